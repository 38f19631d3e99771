"""Training for any number of classes per image.

Legend: N images, C classes. Targets are (N, C) float32: 1 where the class is in the image, else 0; between where images
are blended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgetl.config import DistillLoss, LabelLoss, TrainConfig
from edgetl.errors import ConfigError
from edgetl.records.scores import Evaluation
from edgetl.tasks.base import MultiLabel
from edgetl.tasks.metrics import MAP
from edgetl.tasks.multilabel.scores import evaluate
from edgetl.tasks.multilabel.task import MultiLabelTask
from edgetl.tasks.multilabel.thresholds import best_thresholds
from edgetl.train.objective import HardLoss
from edgetl.train.tasks.base import OneClassifier, Targets

if TYPE_CHECKING:
    from edgetl.data.index import Sample
    from edgetl.inputs.spec import PreprocessSpec

GAMMA_NEGATIVE, CLIP = 4.0, 0.05
"""Focus and margin of the asymmetric loss on absent classes, as in its paper's experiments."""


@dataclass(frozen=True, kw_only=True)
class MultiLabelTraining(OneClassifier):
    """See `TrainingTask`.

    Attributes:
        spec: `spec.labels[i]` names output i.
        loss: with the labels.
    """

    spec: MultiLabel
    loss: LabelLoss = LabelLoss.BCE

    def targets(self, samples: Sequence[Sample], spec: PreprocessSpec) -> Targets:
        """(N, C) float32, from the positions of each image's classes."""
        found = np.zeros((len(samples), self.width), dtype=np.float32)
        for row, sample in zip(found, samples, strict=True):
            row[list(sample.label)] = 1.0
        return found

    def strata(self, targets: Targets) -> NDArray[Any]:
        """The rarest of each image's classes; C where it has none."""
        sizes = targets.sum(axis=0)
        rarity = np.where(targets > 0, sizes, np.inf)
        rarest: NDArray[Any] = np.where(targets.any(axis=1), rarity.argmin(axis=1), self.width)
        return rarest.astype(np.int64)

    def shares(self, targets: Tensor) -> Tensor:
        """The targets themselves."""
        return targets

    def hard_loss(self, config: TrainConfig | None = None, targets: Targets | None = None) -> HardLoss:
        """The task's loss, summed over the classes; with a recipe or without."""
        match self.loss:
            case LabelLoss.BCE:
                return binary_cross_entropy
            case LabelLoss.ASYMMETRIC:
                return asymmetric
            case _:
                assert_never(self.loss)

    def soft_loss(
        self, kind: DistillLoss, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        """T^2 times the divergence of each class's yes and no, summed over the classes; see `soft_labels`.

        Raises:
            ConfigError: a loss between the classes of one softmax.
        """
        if kind is not DistillLoss.HINTON:
            raise ConfigError(f"distill.loss = {kind} compares classes of which one is right; take hinton.")
        return soft_labels(student, teacher, temperature)

    def drawn_loss(
        self, outputs: Tensor, teacher: Tensor, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Binary cross-entropy with classes drawn for each image, each by its own probability."""
        drawn = torch.bernoulli(torch.sigmoid(teacher.float().cpu() / temperature), generator=generator)
        logits = outputs.float() / temperature
        return F.binary_cross_entropy_with_logits(logits, drawn.to(outputs.device), reduction="sum")

    def blend(self, members: Sequence[Tensor], temperature: float) -> Tensor:
        """Logits whose sigmoid at `temperature` is the mean of the members'."""
        softened = torch.stack([member.float() / temperature for member in members])
        return temperature * (F.logsigmoid(softened).logsumexp(0) - F.logsigmoid(-softened).logsumexp(0))

    def val_loss(self, targets: Targets, outputs: NDArray[Any]) -> float:
        """Mean binary cross-entropy, in nats, summed over the classes."""
        loss = np.maximum(outputs, 0) - outputs * targets + np.log1p(np.exp(-np.abs(outputs)))
        return float(loss.sum(axis=1).mean())

    def evaluate(self, targets: Targets, outputs: NDArray[Any], *, resamples: int = 1000) -> Evaluation:
        """As the device's task scores it, with the spec's thresholds: 0.5 for each class until they are settled."""
        cuts = MultiLabelTask(spec=self.spec).thresholds
        return evaluate(targets > 0.5, outputs, self.spec.labels, cuts, resamples=resamples)

    def settled(self, targets: Targets, outputs: NDArray[Any]) -> MultiLabelTraining:
        """With the threshold of the best F1 for each class."""
        return replace(self, spec=replace(self.spec, thresholds=best_thresholds(targets > 0.5, outputs)))

    def selection(self, targets: Targets) -> str:
        """Mean average precision: every class counts alike, and it asks for no threshold."""
        return MAP.name


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of logits (N, C) with targets (N, C): summed over the classes, a mean over the images."""
    return F.binary_cross_entropy_with_logits(outputs.float(), targets, reduction="none").sum(1).mean()


def asymmetric(outputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy in which easy absent classes fade: summed over the classes, a mean over the images.

    -y log p - (1 - y) p_m^4 log(1 - p_m), with p_m = max(p - 0.05, 0). Ridnik et al., "Asymmetric Loss For Multi-Label
    Classification" (ICCV 2021), equations 4 to 7, with gamma+ = 0, gamma- = 4 and a margin of 0.05.
    """
    present = F.logsigmoid(outputs.float())
    shifted = (present.exp() - CLIP).clamp_min(0.0)
    absent = torch.log1p(-shifted)
    each = targets * present + (1 - targets) * shifted**GAMMA_NEGATIVE * absent
    return -each.sum(1).mean()


def soft_labels(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence of the softened sigmoids: T^2 * sum over classes of KL(Bernoulli of the teacher || of the student).

    Zero where both agree; the mean over the images. Each class is a softmax of yes and no: Hinton et al. (2015),
    section 2, class by class.
    """
    own, other = student.float() / temperature, teacher.float() / temperature
    yes = torch.sigmoid(other)
    found = yes * (F.logsigmoid(other) - F.logsigmoid(own))
    found = found + (1 - yes) * (F.logsigmoid(-other) - F.logsigmoid(-own))
    return found.sum(1).mean() * temperature**2
