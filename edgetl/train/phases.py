"""The phases of each training strategy."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import assert_never

from edgetl.config import Episodes, Imbalance, Mix, Strategy, TrainConfig
from edgetl.train import episodes
from edgetl.train.blocks import last_blocks, last_stages
from edgetl.train.loop import Fitting
from edgetl.train.tasks.base import TrainingTask, output_parameters
from edgetl.train.tasks.mixing import Mixing

GRADUAL_STEPS = 3
"""`gradual` frees the last third of the stages, then two thirds, then all (after Howard, Ruder 2018, ULMFiT)."""

HEAD_PHASE = "head"
"""The phase in which the head learns alone."""
_ON_FEATURES, _ON_IMAGES = 20, 1
"""Epochs of a head before the other layers learn. Of 150 photographs in ten classes (`caltech10`, 160 px, one seed), a
head of 20 epochs reached 95.0% on validation images; all layers, after one epoch of the head, 89.3%."""


def phases(
    config: TrainConfig, seed: int, metric: str, task: TrainingTask, *, on_features: bool = False
) -> tuple[Fitting, ...]:
    """What is fitted one after the other.

    Args:
        config: names the strategy.
        seed: of everything random.
        metric: by which each phase's epoch is chosen.
        task: says which layers make the outputs.
        on_features: whether the first phase sees cached features, which go straight into the head.
    """
    usual = _ON_FEATURES if on_features else _ON_IMAGES
    head = Fitting(
        phase=HEAD_PHASE,
        epochs=usual if config.head_epochs is None else config.head_epochs,
        batch_size=config.batch_size,
        lr=config.head_lr,
        weight_decay=config.weight_decay,
        augment=config.augment,
        seed=seed,
        class_balance=config.imbalance is Imbalance.SAMPLING,
        precision=config.precision,
        optimizer=config.optimizer,
        trainable=None if on_features else partial(output_parameters, task),
        mixing=None if config.mix is Mix.NONE else Mixing(config.mix, config.mix_alpha),
        accumulate=config.accumulate,
        compiled=config.compile,
        spread=True,
        patience=config.patience,
        select=metric,
    )
    after = dataclasses.replace(
        head,
        phase="full",
        epochs=config.epochs,
        lr=config.lr,
        ema=config.ema,
        trainable=None,
        layer_decay=config.layer_decay,
    )
    match config.strategy:
        case Strategy.FULL:
            return head, after
        case Strategy.HEAD:
            return (dataclasses.replace(head, epochs=config.epochs, ema=config.ema),)
        case Strategy.PARTIAL:
            return head, dataclasses.replace(
                after, phase="partial", trainable=last_blocks(config.unfrozen_blocks, task)
            )
        case Strategy.GRADUAL:
            return head, *_gradual(after, task)
        case _:
            assert_never(config.strategy)


def with_episodes(planned: tuple[Fitting, ...], config: TrainConfig, method: Episodes) -> tuple[Fitting, ...]:
    """The phases with one of episodes after them, in which all that the last one frees learns; as they are for none."""
    if method is Episodes.NONE:
        return planned
    own = episodes.episodic(method)
    return *planned, dataclasses.replace(
        planned[-1],
        phase=episodes.PHASE,
        epochs=config.episode_epochs,
        mixing=None,
        accumulate=1,
        class_balance=False,
        episodic=own,
    )


def _gradual(after: Fitting, task: TrainingTask) -> tuple[Fitting, ...]:
    """The epochs spread over the steps, the later ones taking what does not divide."""
    steps = min(GRADUAL_STEPS, after.epochs)
    found = []
    for step in range(steps):
        first, last = after.epochs * step // steps, after.epochs * (step + 1) // steps
        whole = step == steps - 1
        found.append(
            dataclasses.replace(
                after,
                phase=f"gradual-{step + 1}",
                epochs=last - first,
                trainable=None if whole else last_stages((step + 1) / steps, task),
            )
        )
    return tuple(found)
