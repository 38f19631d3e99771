"""The loss of a network that learns further classes and is held to what it answered before."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgetl.config import DistillLoss
from edgetl.train.objective import Batch, Hard, Need, hard, penalised
from edgetl.train.tasks.base import TrainingTask


@dataclass(frozen=True, kw_only=True, eq=False)
class Remembering:
    """(1 - share) * the loss with the labels + share * how far the old classes' outputs are from the old network's.

    Li, Hoiem, "Learning without Forgetting" (ECCV 2016), equation 3; the old network sees the same augmented images, in
    evaluation mode and without gradients. Where its answer contradicts the label, as it may on images of a known class
    under new conditions, it is not followed. On images of new classes it always is.

    Attributes:
        hard: the loss with the labels.
        before: the old network, (N, 3, S, S) -> (N, K); it is frozen.
        known: K, the old classes, which are the first outputs.
        task: gives the soft loss.
        share: of the soft loss, in [0, 1).
        temperature: of both networks' outputs in the soft loss.
    """

    hard: Hard
    before: nn.Module
    known: int
    task: TrainingTask
    share: float
    temperature: float
    needs: frozenset[Need] = field(default=frozenset({Need.IMAGES}))

    def __post_init__(self) -> None:
        self.before.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @property
    def modules(self) -> nn.Module | None:
        """What learns with the network: the loss with the labels, where it does."""
        return self.hard.modules

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See the class; the task's penalty is added."""
        outputs = model(batch.images)
        value = hard(self.hard.hard_loss, outputs, batch)
        if self.share > 0.0:
            value = (1 - self.share) * value + self.share * self._remembered(outputs, batch)
        return penalised(value, self.hard.penalty(model))

    def _remembered(self, outputs: Tensor, batch: Batch) -> Tensor:
        if next(self.before.parameters()).device != batch.images.device:
            self.before.to(batch.images.device)
        with torch.no_grad():
            said = self.before(batch.images)
        # Blended labels are shares of all classes: the largest is the image's.
        right = batch.targets if batch.targets.dim() == 1 else batch.targets.argmax(dim=1)
        follows = (right >= self.known) | (said.argmax(dim=1) == right)
        if not follows.any():
            return outputs.sum() * 0.0
        own, kept = outputs[follows, : self.known], said[follows]
        return self.task.soft_loss(DistillLoss.HINTON, own, kept, right[follows], self.temperature)
