"""Training for several heads on one backbone, from targets of which some may be missing.

Legend: N images, D outputs, all heads' side by side in the order of the spec. The network is one classifier of D
outputs: the heads share all but their own rows of its last layer (hard sharing: Caruana, "Multitask Learning", 1997);
or each has an adapter before these (soft sharing, `edgetl.models.adapters`).
Each head has its own task's losses and scores, on the images that are labelled for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgetl.config import DistillLoss, TrainConfig
from edgetl.errors import ConfigError
from edgetl.models.adapters import adapt_, adapted_heads
from edgetl.records.scores import Evaluation
from edgetl.tasks.base import Classification, MultiHead
from edgetl.tasks.metrics import MEAN
from edgetl.tasks.multihead.task import MultiHeadTask
from edgetl.train.objective import HardLoss
from edgetl.train.tasks.base import OneClassifier, Targets, TrainingTask

if TYPE_CHECKING:
    from edgetl.data.index import Sample
    from edgetl.inputs.spec import PreprocessSpec

_NO_STRATUM = -1


@dataclass(frozen=True, kw_only=True)
class Head:
    """One of the heads.

    Attributes:
        name: as in the spec.
        task: its own.
        own: which of the D outputs are its.
    """

    name: str
    task: TrainingTask
    own: slice


@dataclass(frozen=True, kw_only=True)
class MultiHeadTraining(OneClassifier):
    """See `TrainingTask`.

    Targets are (N, D) float32: 1 for what an image shows, else 0, or shares where images are blended; NaN throughout a
    head that the image is not labelled for.

    Attributes:
        spec: the heads, in the order of the outputs.
        tasks: the heads' own, by name.
        learnt_weights: how training adds up the heads' losses; see `HeadsLoss`.
        adapters: whether each head has one.
        tie: weight of the penalty on adapters that differ.
    """

    spec: MultiHead
    tasks: Mapping[str, TrainingTask]
    learnt_weights: bool = True
    adapters: bool = False
    tie: float = 0.0

    def network(self, backbone: str, weights: str | Path, *, seed: int, size: int) -> nn.Module:
        """The backbone with one classifier, or with adapted heads."""
        model = super().network(backbone, weights, seed=seed, size=size)
        if not self.adapters:
            return model
        return adapt_(model, [len(head.labels) for head in self.spec.heads.values()], seed=seed)

    def output_layers(self, model: nn.Module) -> tuple[str, ...]:
        """The classifier, or the heads with their adapters."""
        found = adapted_heads(model)
        return super().output_layers(model) if found is None else (found[0],)

    def penalty(self, model: nn.Module) -> Tensor | None:
        """`tie` times how far the adapters are from their mean, where there are any."""
        found = adapted_heads(model) if self.tie else None
        return None if found is None else self.tie * found[1].spread()

    @property
    def heads(self) -> tuple[Head, ...]:
        """Each head's task and outputs."""
        found, start = [], 0
        for name, spec in self.spec.heads.items():
            end = start + len(spec.labels)
            found.append(Head(name=name, task=self.tasks[name], own=slice(start, end)))
            start = end
        return tuple(found)

    def targets(self, samples: Sequence[Sample], spec: PreprocessSpec) -> Targets:
        """(N, D) float32."""
        found = np.full((len(samples), self.width), np.nan, dtype=np.float32)
        heads = self.heads
        for row, sample in zip(found, samples, strict=True):
            label: Any = sample.label
            for head, target in zip(heads, label, strict=True):
                if target is not None:
                    row[head.own] = 0.0
                    row[head.own][list(target) if isinstance(target, tuple) else target] = 1.0
        return found

    def strata(self, targets: Targets) -> NDArray[Any]:
        """(N,) int64: the class in the first head that an image is labelled for, of several the rarest.

        Counted over all D outputs; an image of none of them is -1.
        """
        counts = np.nansum(targets, axis=0)
        found = np.full(len(targets), _NO_STRATUM, dtype=np.int64)
        for head in reversed(self.heads):
            own = targets[:, head.own]
            rarity = np.where(own > 0, counts[head.own], np.inf)
            rarest = np.where(
                np.isfinite(rarity).any(axis=1), head.own.start + rarity.argmin(axis=1), _NO_STRATUM
            )
            found = np.where(_known(own), rarest, found)
        return found

    def shares(self, targets: Tensor) -> Tensor:
        """They are shares. A blend with an image that is not labelled for a head is not labelled for it either."""
        return targets

    def hard_loss(self, config: TrainConfig | None = None, targets: Targets | None = None) -> HardLoss:
        """The heads' own losses as one; see `HeadsLoss`. Without a recipe they are added up as they are."""
        if config is None or targets is None:
            return HeadsLoss([(head.own, head.task.hard_loss(), 1.0) for head in self.heads], learnt=False)
        parts = []
        for head in self.heads:
            own, known = _own(head, targets)
            loss = head.task.hard_loss(config, own)
            parts.append((head.own, loss, len(known) / max(1, int(known.sum()))))
        return HeadsLoss(parts, learnt=self.learnt_weights)

    def soft_loss(
        self, kind: DistillLoss, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        """The sum of the heads', over all images, labelled for them or not.

        Raises:
            ConfigError: `dkd`, which asks for the class of every image.
        """
        if kind is DistillLoss.DKD:
            raise ConfigError(
                'distill.loss = "dkd" needs one class for every image, which several heads do not have; use "hinton" or'
                ' "dist".'
            )
        return _sum(
            head.task.soft_loss(kind, student[:, head.own], teacher[:, head.own], targets, temperature)
            for head in self.heads
        )

    def drawn_loss(
        self, outputs: Tensor, teacher: Tensor, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """The sum of the heads'."""
        return _sum(
            head.task.drawn_loss(outputs[:, head.own], teacher[:, head.own], temperature, generator)
            for head in self.heads
        )

    def blend(self, members: Sequence[Tensor], temperature: float) -> Tensor:
        """Each head's own."""
        return torch.cat(
            [
                head.task.blend([member[:, head.own] for member in members], temperature)
                for head in self.heads
            ],
            dim=1,
        )

    def val_loss(self, targets: Targets, outputs: NDArray[Any]) -> float:
        """The sum of the heads' plain losses, each the mean over the images that are labelled for it."""
        total = 0.0
        for head in self.heads:
            own, known = _own(head, targets)
            if len(own):
                total += head.task.val_loss(own, outputs[known][:, head.own])
        return total

    def evaluate(self, targets: Targets, outputs: NDArray[Any], *, resamples: int = 1000) -> Evaluation:
        """Each head's scores as `head/metric`, on the images that are labelled for it, and their mean."""
        found = {}
        for head in self.heads:
            own, known = _own(head, targets)
            found[head.name] = head.task.evaluate(own, outputs[known][:, head.own], resamples=resamples)
        return MultiHeadTask(spec=self.spec).together(found, len(targets))

    def settled(self, targets: Targets, outputs: NDArray[Any]) -> MultiHeadTraining:
        """Each head by the images that are labelled for it."""
        tasks = {}
        for head in self.heads:
            own, known = _own(head, targets)
            tasks[head.name] = head.task.settled(own, outputs[known][:, head.own])
        heads: Any = {name: task.spec for name, task in tasks.items()}
        return replace(self, spec=MultiHead(heads=heads), tasks=tasks)

    def selection(self, targets: Targets) -> str:
        """The mean of the heads' first metrics."""
        return MEAN.name


class HeadsLoss(nn.Module):
    """The losses of several heads as one: a mean over the images, each of which counts in the heads it is labelled for.

    Learnt weights are those of Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses" (CVPR
    2018), section 3.2: the sum of exp(-s) * loss + s / 2, with one log-variance s per head that learns with the
    network; a head whose loss stays large counts less. Equal ones leave s at 0.

    Attributes:
        log_variances: (heads,) float32, for learnt weights.
    """

    def __init__(self, parts: Sequence[tuple[slice, HardLoss, float]], *, learnt: bool) -> None:
        """Take the heads' losses.

        Args:
            parts: of each head its outputs, its loss, and how often an image that is labelled for it counts: the
                inverse share of such images, so that a head of few labels counts like the others.
            learnt: whether the weights are.
        """
        super().__init__()
        self._parts = list(parts)
        self.log_variances = nn.Parameter(torch.zeros(len(self._parts))) if learnt else None
        self._losses = nn.ModuleList([loss for _, loss, _ in self._parts if isinstance(loss, nn.Module)])

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(N, D) outputs and targets to a scalar float32; 0, with a gradient, where no image is labelled."""
        total = outputs.float().sum() * 0.0
        for number, (own, loss, counts) in enumerate(self._parts):
            known = ~targets[:, own.start].isnan()
            images = int(known.sum())
            if not images:
                continue
            value = loss(outputs[known][:, own], targets[known][:, own])
            if self.log_variances is not None:
                s = self.log_variances[number]
                value = torch.exp(-s) * value + s / 2
            total = total + value * (counts * images / len(targets))
        if self.log_variances is not None:
            total = total + self.log_variances.sum() * 0.0
        return total


def _sum(parts: Any) -> Tensor:
    return torch.stack(list(parts)).sum()


def _known(own: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) which images are labelled for a head of these targets."""
    return np.asarray(~np.isnan(own[:, 0]))


def _own(head: Head, targets: Targets) -> tuple[Targets, NDArray[np.bool_]]:
    """A head's targets in its own task's form, of the images that are labelled for it; and which these are."""
    own = targets[:, head.own]
    known = _known(own)
    one = isinstance(head.task.spec, Classification)
    return own[known].argmax(axis=1) if one else own[known], known
