"""Training for one class per image, and how the loss weighs classes of unequal size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgetl.config import Imbalance, LabelsConfig, RelationLoss, TrainConfig
from edgetl.errors import ConfigError
from edgetl.records.scores import Evaluation
from edgetl.tasks.base import Classification
from edgetl.tasks.classification import scores
from edgetl.tasks.metrics import MACRO_F1, TOP1
from edgetl.tasks.relations import Tree, distances
from edgetl.train.objective import HardLoss
from edgetl.train.tasks import soft
from edgetl.train.tasks.base import OneClassifier, Targets
from edgetl.train.tasks.relations import hierarchical, related_loss, soft_labels

if TYPE_CHECKING:
    from edgetl.data.index import Sample
    from edgetl.inputs.spec import PreprocessSpec

IMBALANCE = 3.0
"""Above this ratio of the largest to the smallest class, epochs are chosen by macro-F1 instead of top-1."""


@dataclass(frozen=True, kw_only=True)
class ClassificationTraining(OneClassifier):
    """See `TrainingTask`. Targets are (N,) int64 classes, or (N, C) float32 shares where images are blended.

    Attributes:
        spec: `spec.labels[i]` names output i.
        labels: what the relation of the classes does to the loss with the labels: of the teacher, and of all that
            follow it.
    """

    spec: Classification
    labels: LabelsConfig = field(default_factory=LabelsConfig)

    soft_loss = staticmethod(soft.soft_loss)

    def targets(self, samples: Sequence[Sample], spec: PreprocessSpec) -> Targets:
        """(N,) int64."""
        return np.array([s.label for s in samples], dtype=np.int64)

    def strata(self, targets: Targets) -> NDArray[Any]:
        """The classes."""
        return targets

    def shares(self, targets: Tensor) -> Tensor:
        """(N, C) float32, each row summing to 1."""
        return F.one_hot(targets, self.width).float()

    def hard_loss(self, config: TrainConfig | None = None, targets: Targets | None = None) -> HardLoss:
        """Cross-entropy or what the relation makes of it, by the recipe's smoothing and balance of the classes."""
        if config is None or targets is None:
            return self._loss()
        match config.imbalance:
            case Imbalance.NONE | Imbalance.SAMPLING:
                return self._loss(config.label_smoothing)
            case Imbalance.CLASS_WEIGHTS:
                return self._loss(config.label_smoothing, weights=class_weights(targets, self.width))
            case Imbalance.LOGIT_ADJUSTMENT:
                return self._loss(config.label_smoothing, shift=log_prior(targets, self.width))
            case _:
                assert_never(config.imbalance)

    def _loss(
        self, label_smoothing: float = 0.0, *, weights: Tensor | None = None, shift: Tensor | None = None
    ) -> HardLoss:
        """See `cross_entropy` and `edgetl.train.tasks.relations`."""
        asked, relation = self.labels.loss, self.spec.relation
        match asked:
            case RelationLoss.PLAIN:
                return cross_entropy(label_smoothing, weights=weights, shift=shift)
            case RelationLoss.SOFT if relation is not None:
                parts = soft_labels(distances(relation, self.spec.labels), self.labels.softness)
            case RelationLoss.HIERARCHICAL if isinstance(relation, Tree):
                parts = hierarchical(relation, self.spec.labels, self.labels.discount)
            case RelationLoss.SOFT | RelationLoss.HIERARCHICAL:
                raise ConfigError(
                    f"labels.loss = {asked} asks how the classes are related; name a tree with labels.tree."
                )
            case _:
                assert_never(asked)
        return related_loss(parts, label_smoothing, weights=weights, shift=shift)

    def drawn_loss(
        self, outputs: Tensor, teacher: Tensor, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Cross-entropy with a class drawn for each image."""
        probabilities = F.softmax(teacher.float().cpu() / temperature, dim=1)
        drawn = torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(outputs.device)
        return F.cross_entropy(outputs.float() / temperature, drawn, reduction="sum")

    def blend(self, members: Sequence[Tensor], temperature: float) -> Tensor:
        """Logits whose softmax at `temperature` is the mean of the members' (Hinton et al. 2015, section 2)."""
        shares = torch.stack([F.log_softmax(member.float() / temperature, dim=1) for member in members])
        return temperature * (shares.logsumexp(0) - math.log(len(members)))

    def val_loss(self, targets: Targets, outputs: NDArray[Any]) -> float:
        """Mean cross-entropy, in nats."""
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        return float((log_sum - shifted[np.arange(len(targets)), targets]).mean())

    def evaluate(self, targets: Targets, outputs: NDArray[Any], *, resamples: int = 1000) -> Evaluation:
        """Accuracy and its kin."""
        spec = self.spec
        return scores.evaluate(targets, outputs, spec.labels, relation=spec.relation, resamples=resamples)

    def selection(self, targets: Targets) -> str:
        """Macro-F1 where the classes are imbalanced (see `IMBALANCE`), else top-1."""
        counts = np.unique(targets, return_counts=True)[1]
        return (MACRO_F1 if counts.max() > IMBALANCE * counts.min() else TOP1).name


def cross_entropy(
    label_smoothing: float = 0.0, *, weights: Tensor | None = None, shift: Tensor | None = None
) -> HardLoss:
    """Cross-entropy with the labels, smoothed (Szegedy et al. 2016, section 7).

    Args:
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
        weights: (C,) float32, what an image of each class counts; see `class_weights`.
        shift: (C,) float32, added to the logits before the loss; see `log_prior`.
    """

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        logits = outputs.float()
        if shift is not None:
            logits = logits + shift.to(logits.device)
        if weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        # a mean over the images, not over their weights, so that the loss of a batch is that of its parts
        each = F.cross_entropy(
            logits,
            targets,
            weight=weights.to(logits.device),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        return each.mean()

    return loss


def class_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """(C,) float32 weights in inverse proportion to the classes' sizes; their mean over the images is 1.

    A class without images counts like one with a single image.
    """
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    present = int((np.bincount(labels, minlength=classes) > 0).sum())
    return torch.from_numpy((len(labels) / (present * counts)).astype(np.float32))


def log_prior(labels: NDArray[np.int64], classes: int) -> Tensor:
    """(C,) float32 log shares of the classes, for the logit-adjusted loss (Menon et al. 2021, equation 10, tau 1).

    A class without images counts like one with a single image.
    """
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))
