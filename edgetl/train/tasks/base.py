"""What a task adds to training: its network, its targets and how they move with the picture, its losses.

Legend: N images, D outputs: all tensors of the task side by side in one (N, D), in the order of the device task's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgetl.config import Augment, DistillLoss, TrainConfig
from edgetl.models import backbones
from edgetl.records.scores import Evaluation
from edgetl.tasks.all import task_of
from edgetl.tasks.base import MetricSpec, TaskSpec, labels_of
from edgetl.train.augment import BatchPart, training_view
from edgetl.train.objective import HardLoss

if TYPE_CHECKING:
    from edgetl.data.index import Sample
    from edgetl.inputs.spec import PreprocessSpec

Targets: TypeAlias = NDArray[Any]
"""(N, ...): what is right, one row per image. `Classification`: (N,) int64, the class. `Detection`: see its module."""


class FitTask(Protocol):
    """What a fit asks of a task: what learns first, the views of its images, the scores of its outputs."""

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """The device task's: the figures of `evaluate`, the one that fits are judged by first."""

    def new_layers(self, model: nn.Module) -> tuple[str, ...]:
        """The parts that start from random weights, and learn first."""

    def strata(self, targets: Targets) -> NDArray[Any]:
        """(N,) int64: the group that each image counts to where groups are to be drawn equally often."""

    def view(
        self,
        pixels: Tensor,
        targets: Tensor,
        policy: Augment,
        size: int,
        *,
        generator: torch.Generator,
        view_fraction: float,
        part: BatchPart | None = None,
    ) -> tuple[Tensor, Tensor]:
        """An augmented view of each image, and its targets, which move with the pixels.

        Args:
            pixels: (N, S, S, 3) uint8.
            targets: (N, ...).
            policy, size, generator, view_fraction, part: as for `edgetl.train.augment.training_view`.

        Returns:
            (N, 3, size, size) float32 in 0..255, and the targets.
        """

    def shares(self, targets: Tensor) -> Tensor:
        """Targets in the form in which they can be blended, (N, D) float32; `hard_loss` takes both forms."""

    def val_loss(self, targets: Targets, outputs: NDArray[Any]) -> float:
        """The plain loss of outputs (N, D) on the validation split."""

    def evaluate(self, targets: Targets, outputs: NDArray[Any], *, resamples: int = 1000) -> Evaluation:
        """Score outputs (N, D); `resamples` of the bootstrap, 0 leaves its intervals out."""

    def settled(self, targets: Targets, outputs: NDArray[Any]) -> FitTask:
        """With what answers are decided by, as chosen on the validation split: thresholds, where there are any."""


class TrainingTask(FitTask, Protocol):
    """A task's code for training."""

    @property
    def spec(self) -> TaskSpec:
        """What it trains for."""

    @property
    def width(self) -> int:
        """D, the outputs of its network."""

    def network(self, backbone: str, weights: str | Path, *, seed: int, size: int) -> nn.Module:
        """A backbone for images of `size`, with the task's head: images (N, 3, S, S) -> outputs (N, D).

        Raises:
            ModelError: unknown backbone.
            WeightsError: the weights cannot be had or do not fit.
        """

    def output_layers(self, model: nn.Module) -> tuple[str, ...]:
        """The layers that make the outputs: pruning never cuts these."""

    def targets(self, samples: Sequence[Sample], spec: PreprocessSpec) -> Targets:
        """The rows of samples, in order; places in them are pixels of images that `spec` makes."""

    def hard_loss(self, config: TrainConfig | None = None, targets: Targets | None = None) -> HardLoss:
        """The loss with the labels: the recipe's for the training `targets`, or, without both, the plain one."""

    def penalty(self, model: nn.Module) -> Tensor | None:
        """What every loss adds for the network's weights, beside their decay: a scalar; None for nothing."""

    def soft_loss(
        self, kind: DistillLoss, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        """How far a student's outputs (N, D) are from a teacher's: a scalar float32, the mean over the images.

        Args:
            kind: the loss.
            student, teacher: (N, D) of any float dtype, computed in float32.
            targets: (N, ...), for a loss that asks for them.
            temperature: of the soft targets, above 0.
        """

    def drawn_loss(
        self, outputs: Tensor, teacher: Tensor, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """The loss with answers drawn from the teacher's softened probabilities: a scalar, the sum over the images.

        Its squared gradient is, in the mean, the Fisher information: the curvature of the soft loss.

        Args:
            outputs, teacher: (N, D).
            temperature: of both.
            generator: on the CPU.
        """

    def blend(self, members: Sequence[Tensor], temperature: float) -> Tensor:
        """Outputs (N, D) float32 whose softened probabilities are the mean of the members'."""

    def settled(self, targets: Targets, outputs: NDArray[Any]) -> TrainingTask:
        """With what answers are decided by, as chosen on the validation split: thresholds, where there are any."""

    def selection(self, targets: Targets) -> str:
        """The metric by which epochs are chosen where the recipe names none, for the training split's targets."""


class OneClassifier:
    """What the tasks share whose network is a backbone with one classifier of all D outputs."""

    spec: TaskSpec

    @property
    def width(self) -> int:
        """One output per class; of several heads all of theirs."""
        return len(labels_of(self.spec))

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """The device task's."""
        return task_of(self.spec).metrics

    def network(self, backbone: str, weights: str | Path, *, seed: int, size: int) -> nn.Module:
        """The backbone with a classifier."""
        labels = labels_of(self.spec)
        return backbones.create(backbone, self.width, weights, seed=seed, size=size, labels=labels)

    def output_layers(self, model: nn.Module) -> tuple[str, ...]:
        """The classifier."""
        return backbones.classifier_names(model)

    def new_layers(self, model: nn.Module) -> tuple[str, ...]:
        """The classifier."""
        return self.output_layers(model)

    def penalty(self, model: nn.Module) -> Tensor | None:
        """None."""
        return None

    def settled(self, targets: Targets, outputs: NDArray[Any]) -> Self:
        """As it is."""
        return self

    def view(
        self,
        pixels: Tensor,
        targets: Tensor,
        policy: Augment,
        size: int,
        *,
        generator: torch.Generator,
        view_fraction: float,
        part: BatchPart | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The targets say nothing of places, so that they stay as they are."""
        images = training_view(
            pixels, policy, size, generator=generator, view_fraction=view_fraction, part=part
        )
        return images, targets


def output_parameters(task: TrainingTask, model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the parts that are new: a head that learns by itself."""
    return [p for name in task.new_layers(model) for p in model.get_submodule(name).parameters()]
