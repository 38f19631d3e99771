"""What each method of adaptation makes of the teacher."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.config import AdaptMethod, Strategy
from edgetl.errors import ModelError
from edgetl.models.norms import batch_norms, recalibrate
from edgetl.records.train import EpochRecord
from edgetl.tasks.classification.answers import softmax
from edgetl.train.adapt import camera, distances
from edgetl.train.adapt.domains import Domains, flat
from edgetl.train.adapt.objective import SOURCE, Adversary, Aligned, Distance
from edgetl.train.adapt.pseudo import confident, pseudo_labels
from edgetl.train.evaluate import predict_outputs
from edgetl.train.features import head_of, plain_views
from edgetl.train.loader import step_sizes
from edgetl.train.loop import NO_START, Fitting, fit
from edgetl.train.objective import Hard, Objective
from edgetl.train.phases import phases
from edgetl.train.seeds import derive, numpy_generator
from edgetl.train.sets import FeatureSet, PixelSet, Unlabelled

RETAKEN = "retaken.npy"
"""Pixels while the stage runs: labelled images as the target's camera takes them."""
LEAST = 2
"""Images of a domain that have a covariance."""
_ROUNDS = 3
"""Of self-training: in each, a larger share of the target's images counts."""
_STATISTICS = 512
"""Target images from which batch norm's statistics are measured, at most."""


def too_small(steps: Sequence[tuple[int, int]]) -> str:
    """Why a method cannot compare the two domains' features in these steps, to be put after its name; empty if it can.

    Args:
        steps: images of the source and of the target of each.
    """
    if any(min(step) >= LEAST for step in steps):
        return ""
    return (
        f"compares {LEAST} or more images of either domain in each step, but its steps have {steps[0][0]} and"
        f" {steps[0][1]}"
    )


class Methods:
    """Adapts the teacher of both domains by any of the methods."""

    def __init__(self, domains: Domains) -> None:
        self.domains = domains
        self.config, self.inputs = domains.config, domains.inputs
        self.out, self.progress = domains.out, domains.progress
        train = self.inputs.train
        on_features = train.strategy is Strategy.HEAD
        self.planned = phases(train, self.inputs.seed, domains.metric, domains.task, on_features=on_features)
        self.hard = Hard(hard_loss=domains.task.hard_loss(train, domains.sets.train.targets))

    def adapted(self, method: AdaptMethod) -> tuple[nn.Module, tuple[EpochRecord, ...]]:
        """What a method makes of the teacher, and its epochs.

        Raises:
            ModelError: the network or a step of training lacks what the method needs.
        """
        network = copy.deepcopy(self.domains.teacher)
        on_features = self.inputs.train.strategy is Strategy.HEAD
        self.progress.message(f"adapt: {method} on {len(self.domains.target)} images of the target")
        match method:
            case AdaptMethod.BN:
                return self._normed(network), ()
            case AdaptMethod.CORAL if on_features:
                return network, self._recoloured(network)
            case AdaptMethod.CORAL:
                return network, self._aligned(network, method, lambda _: distances.coral)
            case AdaptMethod.MMD:
                return network, self._aligned(network, method, lambda _: distances.mmd)
            case AdaptMethod.DANN:
                return network, self._aligned(network, method, partial(self._adversary, network))
            case AdaptMethod.SELF_TRAINING:
                if on_features:
                    return network, self._self_trained_on_features(network)
                return network, self._self_trained(network, self.domains.sets.train)
            case AdaptMethod.CAMERA if on_features:
                return network, self._self_trained_on_features(network, retaken=True)
            case AdaptMethod.CAMERA:
                return network, self._self_trained(network, self._half_retaken())
            case AdaptMethod.WEIGHTED if on_features:
                head, source = self._head(network)
                val = self.domains.features(network, self.domains.sets.val)
                return network, self._fit_head(head, "adapt-weighted", source, val)
            case AdaptMethod.WEIGHTED:
                return network, self._fit(network, "adapt-weighted", self.config.epochs, self.hard, None)
            case AdaptMethod.AUTO:
                raise AssertionError("auto is no single method")
            case _:
                assert_never(method)

    def _normed(self, network: nn.Module) -> nn.Module:
        """Batch norms see the target's statistics. Li et al., "Revisiting Batch Normalization for Practical Domain
        Adaptation" (2016), section 3.
        """
        if not batch_norms(network):
            raise ModelError("The network has no batch norm, whose statistics could be the target's.")
        recalibrate(network, list(plain_views(self.domains.target, _STATISTICS)))
        return network

    def _recoloured(self, network: nn.Module) -> tuple[EpochRecord, ...]:
        """The head learns from source features that have the target's mean and covariance."""
        head, source = self._head(network)
        features = self.domains.features(network, self.domains.target)
        target = torch.from_numpy(flat(features))
        views, from_source = np.array(source.features), self.domains.sets.train.domains == SOURCE
        for view in views:
            plain = torch.from_numpy(view[from_source])
            view[from_source] = distances.recoloured(plain.flatten(1), target).view(plain.shape).numpy()
        own = dataclasses.replace(
            source, features=views, identity=f"{source.identity} recoloured {features.identity}"
        )
        return self._fit_head(head, "adapt-coral", own, self.domains.features(network, self.domains.sets.val))

    def _self_trained_on_features(
        self, network: nn.Module, *, retaken: bool = False
    ) -> tuple[EpochRecord, ...]:
        """The head learns from the source's labels and from its own for the target, which weigh the same; where the
        source is retaken, first from the source's labels alone, for its images as both cameras take them, and then
        from its surest answers.
        """
        head, source = self._head(network)
        target, val = (
            self.domains.features(network, self.domains.target),
            self.domains.features(network, self.domains.sets.val),
        )
        history: tuple[EpochRecord, ...] = ()
        if retaken:
            source = self._as_both_cameras(network, source)
            history += self._fit_head(head, "adapt-camera", source, val)
        for number in range(1, _ROUNDS + 1):
            answers = softmax(predict_outputs(head, target)).astype(np.float32)
            share = number / _ROUNDS
            rows, labels = (
                confident(answers, share) if retaken else pseudo_labels(flat(target), answers, share)
            )
            own = _joined(source, target, rows, labels)
            phase = f"adapt-{'camera-' if retaken else ''}self-{number}"
            history += self._fit_head(head, phase, own, val)
        return history

    def _as_both_cameras(self, network: nn.Module, source: FeatureSet) -> FeatureSet:
        """The source's features, and once more those of its images as the target's camera takes them."""
        data = self.domains.sets.train
        pixels = self._retaken(np.ones(len(data), np.bool_))
        other = self.domains.views(network, dataclasses.replace(data, pixels=pixels))
        weights = source.weights
        return FeatureSet(
            np.concatenate([source.features, other.features], axis=1),
            np.concatenate([source.targets, other.targets]),
            f"{source.identity} {other.identity}",
            None if weights is None else np.concatenate([weights, weights]),
        )

    def _half_retaken(self) -> PixelSet:
        """The source, half of whose images are as the target's camera takes them: an epoch costs as much as before."""
        data = self.domains.sets.train
        drawn = numpy_generator(self.inputs.seed, "retaken").random(len(data)) < 1 / 2
        return dataclasses.replace(data, pixels=self._retaken(drawn))

    def _retaken(self, which: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """The training images' pixels, some of the source's as the target's camera takes them."""
        pixels, source = self.domains.sets.train.pixels, np.asarray(self.domains.sets.train.domains == SOURCE)
        found = camera.measured(pixels, self.domains.unlabelled().pixels, np.flatnonzero(source))
        path = self.out / RETAKEN
        return camera.retake(
            found, pixels, which & source, path, seed=self.inputs.seed, progress=self.progress
        )

    def _self_trained(self, network: nn.Module, train: PixelSet) -> tuple[EpochRecord, ...]:
        """The network learns from the source's labels and from its own for the target, more of them in each round."""
        further = self.domains.unlabelled()
        history: tuple[EpochRecord, ...] = ()
        rounds = min(_ROUNDS, self.config.epochs)
        for number in range(1, rounds + 1):
            answers = softmax(predict_outputs(network, self.domains.target)).astype(np.float32)
            if train is self.domains.sets.train:
                features = flat(self.domains.features(network, self.domains.target))
                rows, labels = pseudo_labels(features, answers, number / rounds)
            else:
                rows, labels = confident(answers, number / rounds)
            guessed = dataclasses.replace(further, pixels=further.pixels[rows], guessed=labels)
            first, last = (self.config.epochs * part // rounds for part in (number - 1, number))
            phase = f"adapt-{'' if train is self.domains.sets.train else 'camera-'}self-{number}"
            history += self._fit(network, phase, last - first, self.hard, guessed, train)
        return history

    def _aligned(
        self, network: nn.Module, method: AdaptMethod, distance: Callable[[int], Distance]
    ) -> tuple[EpochRecord, ...]:
        """The network learns from the source's labels while a distance of the domains' features shrinks.

        Args:
            network: the teacher's copy.
            method: names the phase.
            distance: of so many steps of training.
        """
        further, epochs = self.domains.unlabelled(), self.config.epochs
        sizes = step_sizes(len(self.domains.sets.train), self.inputs.train.batch_size, further.share)
        if reason := too_small(sizes):
            raise ModelError(f"It {reason}.")
        steps = epochs * len(sizes)
        objective = Aligned(
            hard=self.hard, distance=distance(steps), layer=self.domains.layer, weight=self.config.weight
        )
        return self._fit(network, f"adapt-{method}", epochs, objective, further)

    def _adversary(self, network: nn.Module, steps: int) -> Adversary:
        width = flat(self.domains.features(network, self.domains.target)).shape[1]
        return Adversary(width, steps=steps, seed=derive(self.inputs.seed, "adversary"))

    def _fit(
        self,
        network: nn.Module,
        phase: str,
        epochs: int,
        objective: Objective,
        further: Unlabelled | None,
        train: PixelSet | None = None,
    ) -> tuple[EpochRecord, ...]:
        """As the last phase of the teacher's training, with target images in each step. The last epoch counts: the
        source's validation split cannot say which is best for the target.
        """
        fitting = dataclasses.replace(
            _last_epoch(self.planned[-1], phase), epochs=epochs, lr=self.config.lr, mixing=None, accumulate=1
        )
        return fit(
            network,
            fitting,
            task=self.domains.task,
            train=self.domains.sets.train if train is None else train,
            val=self.domains.sets.val,
            objective=objective,
            state=self.out / f"{phase}.state",
            progress=self.progress,
            unlabelled=further,
            start=NO_START,
        )

    def _fit_head(
        self, head: nn.Module, phase: str, train: FeatureSet, val: FeatureSet
    ) -> tuple[EpochRecord, ...]:
        """As in the teacher's training, on other features."""
        return fit(
            head,
            _last_epoch(self.planned[-1], phase),
            task=self.domains.task,
            train=train,
            val=val,
            objective=self.hard,
            state=self.out / f"{phase}.state",
            progress=self.progress,
            start=NO_START,
        )

    def _head(self, network: nn.Module) -> tuple[nn.Module, FeatureSet]:
        """The head as a network of its own, and the source's features as in the teacher's training.

        Raises:
            ModelError: the features cannot be cached.
        """
        head = head_of(network, (self.domains.layer,), self.inputs.spec.size)
        source = self.domains.views(network, self.domains.sets.train)
        return head, dataclasses.replace(source, weights=self.domains.sets.train.weights)


def _last_epoch(planned: Fitting, phase: str) -> Fitting:
    return dataclasses.replace(planned, phase=phase, select=None, patience=0, spread=False)


def _joined(
    source: FeatureSet, target: FeatureSet, rows: NDArray[np.int64], labels: NDArray[np.int64]
) -> FeatureSet:
    """Both domains' features, the rarer ones repeated until both come about equally often."""
    own, other = np.arange(len(source)), np.arange(len(rows))
    own = np.tile(own, max(1, round(len(other) / len(own))))
    other = np.tile(other, max(1, round(len(source) / len(other))))
    views = len(source.features)
    features = np.concatenate(
        [source.features[:, own], np.repeat(target.features[:, rows[other]], views, axis=0)], axis=1
    )
    targets = np.concatenate([source.targets[own], labels[other]])
    weights = None if source.weights is None else np.concatenate([source.weights[own], np.ones(len(other))])
    return FeatureSet(features, targets, f"{source.identity} {target.identity} {len(rows)}", weights)
