"""A network, image sets and settings so small that a fit takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgetl.config import Augment, TrainPrecision
from edgetl.inputs.image import PreprocessSpec
from edgetl.records.scores import Score, Scores
from edgetl.records.train import EpochRecord
from edgetl.tasks.base import Classification
from edgetl.train.loop import Fitting
from edgetl.train.objective import Batch, Hard, Need
from edgetl.train.sets import PixelSet, Unlabelled
from edgetl.train.tasks.classification import ClassificationTraining, cross_entropy

SPEC = PreprocessSpec(size=16)
TASK = ClassificationTraining(spec=Classification(labels=("red", "green", "blue")))


def entropy(label_smoothing: float = 0.0, **settings: Tensor) -> Hard:
    """The plain objective of a classifier."""
    return Hard(hard_loss=cross_entropy(label_smoothing, **settings))


@dataclass(frozen=True)
class Plain:
    """A function as an objective."""

    loss: Callable[[nn.Module, Batch], Tensor]
    modules: nn.Module | None = None
    needs: frozenset[Need] = frozenset()


def network(seed: int = 0) -> nn.Module:
    """A network with all that makes resuming hard: batch norm, dropout, a depthwise layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(8, 3),
        )


def head(model: nn.Module) -> list[nn.Parameter]:
    return list(model[9].parameters())  # type: ignore[index]


def pixel_set(n: int, side: int = 18, seed: int = 0) -> PixelSet:
    """Images of three classes that differ in colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    pixels = rng.integers(0, 80, (n, side, side, 3))
    pixels[np.arange(n), :, :, labels] += 120
    return PixelSet(pixels.astype(np.uint8), labels.astype(np.int64), SPEC)


def unlabelled(n: int, share: float) -> Unlabelled:
    """Images of the same kind without labels."""
    return Unlabelled(pixels=pixel_set(n, seed=7).pixels, share=share, sha256=f"{n} images")


def fitting(**changes: Any) -> Fitting:
    settings: dict[str, Any] = {
        "phase": "full",
        "epochs": 4,
        "batch_size": 8,
        "lr": 1e-2,
        "weight_decay": 0.02,
        "augment": Augment.BASIC,
        "precision": TrainPrecision.FP32,
        "seed": 5,
        "ema": 0.9,
    }
    return Fitting(**(settings | changes))


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether all tensors are equal, bit by bit."""
    other = second.state_dict()
    return all(torch.equal(v, other[k]) for k, v in first.state_dict().items())


def epoch_record(epoch: int, top1: float, f1: float) -> EpochRecord:
    return EpochRecord(
        phase="full",
        epoch=epoch,
        loss=0.0,
        val_loss=0.0,
        val=Scores(images=10, scores={"top1": Score(value=top1), "macro_f1": Score(value=f1)}),
        learning_rate=0.0,
        seconds=0.0,
        images_per_second=0.0,
    )
