"""A linear probe: how well one linear layer on a frozen backbone's features answers the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.config import Augment
from edgetl.records.scores import Evaluation
from edgetl.records.train import PairedComparison
from edgetl.tasks.base import MetricSpec
from edgetl.train.augment import BatchPart, training_view
from edgetl.train.compare import compare
from edgetl.train.objective import HardLoss
from edgetl.train.pretrain.views import strong_view
from edgetl.train.tasks.base import FitTask, Targets, TrainingTask

_DECAYS = (1e-3, 1e-2, 1e-1)
_HELD = 5
"""Every fifth training image chooses the decay."""
_STEPS = 60


def probe(
    task: TrainingTask, features: NDArray[np.float32], targets: Targets, asked: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Fit a linear layer to the labels of some images and answer for others.

    It is logistic regression, or what the task's plain loss makes of it, with weight decay; the decay is that of three
    which has the least loss on every fifth image, when fitted to the others. Features are standardised first. Nothing
    is random.

    Args:
        task: gives the loss.
        features: (M, F) of the images with `targets`.
        targets: (M, ...), as the task makes them.
        asked: (N, F) of the others.

    Returns:
        (N, D) float32 outputs.
    """
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    own, others = (torch.from_numpy((f - mean) / spread) for f in (features, asked))
    right, loss = torch.from_numpy(targets), task.hard_loss()
    held = torch.arange(len(own)) % _HELD == 0
    decay = _DECAYS[1]
    if 2 <= int((~held).sum()) < len(own):
        found = [_fitted(loss, own[~held], right[~held], task.width, decay) for decay in _DECAYS]
        with torch.no_grad():
            losses = [float(loss(own[held] @ w + b, right[held])) for w, b in found]
        decay = _DECAYS[int(np.argmin(losses))]
    weight, bias = _fitted(loss, own, right, task.width, decay)
    outputs: NDArray[np.float32] = (others @ weight + bias).numpy()
    return outputs


def _fitted(
    loss: HardLoss, features: Tensor, targets: Tensor, width: int, decay: float
) -> tuple[Tensor, Tensor]:
    """The weight (F, D) and bias (D,) of least loss + decay / 2 * squared weight."""
    with torch.enable_grad():
        weight = torch.zeros(features.shape[1], width, requires_grad=True)
        bias = torch.zeros(width, requires_grad=True)
        solver = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            solver.zero_grad()
            total = loss(features @ weight + bias, targets) + decay / 2 * weight.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        solver.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


@dataclass(frozen=True, kw_only=True)
class Probed:
    """Labelled images whose features are probed: the first `fitted` rows of a set are fitted, the others are asked.

    Attributes:
        task: what they are labelled for.
        fitted: training images.
        metric: what is compared.
    """

    task: TrainingTask
    fitted: int
    metric: str

    def outputs(self, targets: Targets, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probe's (N, D) outputs of the images that are asked, from features (M + N, F) of all."""
        own, rest = features[: self.fitted], features[self.fitted :]
        return probe(self.task, own, targets[: self.fitted], rest)

    def compare(
        self, targets: Targets, before: NDArray[np.float32], after: NDArray[np.float32], *, seed: int
    ) -> PairedComparison:
        """Two backbones' features (M + N, F) of the same images: their probes on those that are asked.

        See `edgetl.train.compare`.
        """
        first, second = (self.outputs(targets, features) for features in (before, after))
        return compare(self.task, self.metric, targets[self.fitted :], first, second, seed=seed)


class ProbedTask:
    """What a fit without labels works with: views of its images, and a probe's scores in the place of the network's.

    Its validation set holds labelled training images, on which the probe is fitted, and then those of the validation
    split, which it answers; the network's outputs are the features. See `edgetl.train.tasks.base.FitTask`.
    """

    def __init__(self, probed: Probed, *, pairs: bool, mirror: bool) -> None:
        """Say what the views are.

        Args:
            probed: the labelled images.
            pairs: two strong views of each image, the second one as its target; else one by the fit's own policy.
            mirror: strong views are also mirrored.
        """
        self._probed, self._pairs, self._mirror = probed, pairs, mirror
        self._last: tuple[NDArray[Any], NDArray[np.float32]] | None = None

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """Those of the labelled images' task."""
        return self._probed.task.metrics

    def new_layers(self, model: torch.nn.Module) -> tuple[str, ...]:
        """None: the network has no head."""
        return ()

    def strata(self, targets: Targets) -> NDArray[Any]:
        """One group."""
        return np.zeros(len(targets), dtype=np.int64)

    def shares(self, targets: Tensor) -> Tensor:
        """As they are: nothing is blended."""
        return targets

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
        """A view of each image; in place of the targets the second one, where there are two."""
        if not self._pairs:
            images = training_view(
                pixels, policy, size, generator=generator, view_fraction=view_fraction, part=part
            )
            return images, targets
        first, second = (
            strong_view(pixels, size, mirror=self._mirror, generator=generator) for _ in range(2)
        )
        return first, second

    def val_loss(self, targets: Targets, outputs: NDArray[Any]) -> float:
        """Of the probe, on the images that it is asked."""
        return self._probed.task.val_loss(targets[self._probed.fitted :], self._answers(targets, outputs))

    def evaluate(self, targets: Targets, outputs: NDArray[Any], *, resamples: int = 1000) -> Evaluation:
        """Of the probe, on the images that it is asked."""
        right, answers = targets[self._probed.fitted :], self._answers(targets, outputs)
        return self._probed.task.settled(right, answers).evaluate(right, answers, resamples=resamples)

    def settled(self, targets: Targets, outputs: NDArray[Any]) -> FitTask:
        """As it is: the probe is settled when it is scored."""
        return self

    def _answers(self, targets: Targets, features: NDArray[Any]) -> NDArray[np.float32]:
        """The probe is fitted once for the features of one epoch."""
        if self._last is None or self._last[0] is not features:
            self._last = features, self._probed.outputs(targets, features)
        return self._last[1]
