"""Small networks and scorers for the tests of pruning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgetl.config import Importance
from edgetl.models.size import network_size
from edgetl.prune.importance import Scorer, scorer
from edgetl.prune.plan import Cost, CutLimits
from edgetl.tasks.base import Classification
from edgetl.train.tasks.classification import ClassificationTraining

SIZE = 32


def seeded(build: Any, *args: Any, seed: int = 0) -> nn.Module:
    """Build a network with fixed weights and batch norm statistics that are not the trivial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = build(*args)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
                nn.init.normal_(module.running_mean, std=0.1)
        return model.eval()


class Chain(nn.Module):
    """stem (16) -> expand (32) -> depthwise (32) -> project (16) + stem -> pool -> classifier (3)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.expand = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.classifier = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.stem(images)
        stream = stream + self.project(self.depthwise(self.expand(stream)))
        return self.classifier(stream.mean((2, 3)))  # type: ignore[no-any-return]


def batches(n: int = 8, count: int = 2, size: int = SIZE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, size, size, generator=generator) for _ in range(count)]


def make_scorer(kind: Importance, teacher: nn.Module, images: Sequence[Tensor] = ()) -> Scorer:
    task = ClassificationTraining(spec=Classification(labels=tuple("abcd")))
    return scorer(kind, images=lambda: images, teacher=teacher, task=task, temperature=2.0, seed=0)


def budget(
    model: nn.Module, macs: float | None = None, parameters: float | None = None, size: int = SIZE
) -> Cost:
    """Shares of a network's cost as a budget."""
    whole = network_size(model, size)
    return Cost(
        macs=math.inf if macs is None else macs * whole.macs,
        parameters=math.inf if parameters is None else parameters * whole.parameters,
    )


def limits(round_to: int = 8, max_cut: float = 0.9, **widths: int) -> CutLimits:
    return CutLimits(round_to=round_to, max_cut=max_cut, widths=widths)
