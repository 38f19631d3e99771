"""What a training step minimises: a batch, and the one shape that every loss has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What one step sees. All tensors are on the model's device.

    Attributes:
        images: (N, 3, S, S) float32, channels last; or features (N, ...) float32 where only the head learns.
        targets: (N, ...), as the training task makes them (`edgetl.train.tasks`); arbitrary where an image has none.
        labelled: (N,) bool, the images that have targets; None where all have.
        domain: (N,) int64, the domain that each image comes from; None where there is one.
    """

    images: Tensor
    targets: Tensor
    labelled: Tensor | None = None
    domain: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def parts(self, count: int) -> tuple[Batch, ...]:
        """The batch in `count` parts of about the same number of images."""

        def split(values: Tensor | None) -> tuple[Tensor, ...] | tuple[None, ...]:
            return (None,) * count if values is None else values.tensor_split(count)

        rows = zip(*map(split, (self.images, self.targets, self.labelled, self.domain)), strict=True)
        return tuple(
            Batch(images=images, targets=targets, labelled=labelled, domain=domain)
            for images, targets, labelled, domain in rows
            if images is not None and targets is not None
        )


class Need(StrEnum):
    """What an objective asks of the batches."""

    IMAGES = "images"
    """Pixels, not the features that a frozen backbone made of them: another network looks at them too."""
    LABELS = "labels"
    """Targets of each image, as they are: neither missing nor blended."""


class Objective(Protocol):
    """A loss, whatever it is made of."""

    @property
    def modules(self) -> nn.Module | None:
        """Parts that learn with the model, at the same rates, and are not part of it (projectors, loss weights)."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it asks of the batches."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """A scalar, the mean over the images.

        Args:
            model: images (N, 3, S, S) -> the task's outputs (N, D).
            batch: what the step sees.
        """


Penalty = Callable[[nn.Module], Tensor | None]
"""What a loss adds for the network's weights, beside their decay: a scalar, or None for nothing."""


def no_penalty(model: nn.Module) -> Tensor | None:
    """Nothing."""
    return None


def penalised(value: Tensor, penalty: Tensor | None) -> Tensor:
    """A loss with a penalty, where there is one."""
    return value if penalty is None else value + penalty


HardLoss = Callable[[Tensor, Tensor], Tensor]
"""(outputs (N, D), targets (N, ...)) -> scalar float32, the mean over the images. A module where it has parameters."""


@dataclass(frozen=True, kw_only=True)
class Hard:
    """The loss with the images' own targets; unlabelled images do not take part, one labelled image must.

    Attributes:
        hard_loss: the task's.
        penalty: the task's, added to the loss.
    """

    hard_loss: HardLoss
    needs: frozenset[Need] = frozenset()
    penalty: Penalty = no_penalty

    @property
    def modules(self) -> nn.Module | None:
        """The loss itself, where it learns."""
        return self.hard_loss if isinstance(self.hard_loss, nn.Module) else None

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean over the labelled images."""
        return penalised(hard(self.hard_loss, model(batch.images), batch), self.penalty(model))


def hard(hard_loss: HardLoss, outputs: Tensor, batch: Batch) -> Tensor:
    """The loss of a batch's labelled images: a scalar float32."""
    if batch.labelled is None:
        return hard_loss(outputs, batch.targets)
    return hard_loss(outputs[batch.labelled], batch.targets[batch.labelled])
