"""Losses that draw the features of two domains together while the labels are learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetl.train.objective import Batch, Hard, Need
from edgetl.train.watching import watching

SOURCE, TARGET = 0, 1
"""Values of `Batch.domain`."""

_HIDDEN = 256

Distance = Callable[[Tensor, Tensor], Tensor]
"""(features of source images (n, D), of target images (m, D)) -> a scalar. A module where it learns."""


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """The loss with the labels, plus `weight` times the distance of the two domains' features in the batch.

    Attributes:
        hard: the loss with the labels.
        distance: of the features.
        layer: the network's last layer, whose input the features are.
        weight: of the distance.
    """

    hard: Hard
    distance: Distance
    layer: str
    weight: float = 1.0
    needs: frozenset[Need] = frozenset({Need.IMAGES})

    @property
    def modules(self) -> nn.Module | None:
        """What learns with the network: the loss with the labels, and the distance, where they do."""
        found = [part for part in (self.hard.modules, self.distance) if isinstance(part, nn.Module)]
        return nn.ModuleList(found) if found else None

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See the class; a batch of one domain has no distance."""
        name = f">{self.layer}"
        with watching(model, (name,)) as seen:
            value = self.hard.loss(model, batch)
        if batch.domain is None:
            return value
        features = seen[name].flatten(1)
        source, target = features[batch.domain == SOURCE], features[batch.domain == TARGET]
        if min(len(source), len(target)) < 2:
            return value
        return value + self.weight * self.distance(source, target)


class Adversary(nn.Module):
    """A classifier of domains that the features learn to deceive: its loss, with the gradient turned round before it.

    The gradient that reaches the features is multiplied by -(2 / (1 + exp(-10 p)) - 1), where p is the share of the
    steps that are done. Ganin et al., "Domain-Adversarial Training of Neural Networks" (JMLR 2016), section 5.2.2. Both
    domains weigh the same.
    """

    done: Tensor

    def __init__(self, width: int, *, steps: int, seed: int) -> None:
        """Args:
        width: D, of the features.
        steps: of the whole training.
        seed: decides the first weights.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.judge = nn.Sequential(nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))
        self.steps = steps
        # A buffer, so that a training that was stopped goes on with it.
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The cross-entropy of the judge's verdicts: a scalar float32."""
        strength = 2 / (1 + math.exp(-10 * min(1.0, int(self.done) / max(1, self.steps)))) - 1
        if self.training:
            self.done += 1
        turned: Any = _Turned.apply
        verdicts = [self.judge(turned(part.float(), strength))[:, 0] for part in (source, target)]
        return sum(
            (
                F.binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, float(domain)))
                for domain, verdict in enumerate(verdicts)
            ),
            torch.zeros((), device=source.device),
        ) / len(verdicts)


class _Turned(torch.autograd.Function):
    """The identity, whose gradient is multiplied by -strength."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None
