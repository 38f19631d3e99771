"""A linear probe: the task's own head, trained to the end on features that are standardised and stay as they are.

The loss is the task's: multinomial logistic regression for one class per image, a logistic regression a class for any
number. Only the ridge on the weights is chosen, on the validation images: scores on them are a little too high, for all
backbones alike.

Legend: N training and V validation images, F features, D outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.errors import TensorError
from edgetl.train.tasks.base import Targets, TrainingTask

RIDGES = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4)
"""Weights of half the squared norm in the mean loss that are tried, from strong to weak."""
_ITERATIONS = 60
_TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a probe answers on the validation images, (V, D) float32, and the ridge that it was trained with."""

    outputs: NDArray[np.float32]
    ridge: float


def linear_probe(
    task: TrainingTask,
    train: tuple[NDArray[Any], Targets],
    val: tuple[NDArray[Any], Targets],
) -> Probe:
    """Train a probe for each ridge, from strong to weak, until the validation loss no longer falls.

    Each starts from the one before, and the loss is convex, so that the order costs time and no accuracy.

    Args:
        task: gives the loss.
        train: features (N, F) float and targets (N, ...).
        val: features (V, F) float and targets (V, ...).

    Raises:
        TensorError: a feature is not finite.
    """
    features, val_features = _compact(*_standardised(train[0], val[0]))
    targets, loss = torch.from_numpy(np.array(train[1])), task.hard_loss()
    weight = torch.zeros(features.shape[1], task.width, requires_grad=True)
    bias = torch.zeros(task.width, requires_grad=True)
    best: Probe | None = None
    lowest = np.inf
    for ridge in RIDGES:
        _fit(weight, bias, lambda outputs: loss(outputs, targets), features, ridge)
        with torch.no_grad():
            outputs = (val_features @ weight + bias).numpy()
        found = task.val_loss(val[1], outputs)
        if best is not None and not found < lowest:
            break
        best, lowest = Probe(outputs=outputs, ridge=ridge), found
    assert best is not None
    return best


def _fit(weight: Tensor, bias: Tensor, loss: Any, features: Tensor, ridge: float) -> None:
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimiser.zero_grad()
        value: Tensor = loss(features @ weight + bias) + 0.5 * ridge * (weight**2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(objective)  # type: ignore[no-untyped-call]


def _standardised(train: NDArray[Any], val: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """With the training features' mean and standard deviation; those that do not vary become 0."""
    first, second = np.asarray(train, dtype=np.float64), np.asarray(val, dtype=np.float64)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise TensorError("features: a value is not finite.")
    mean, deviation = first.mean(axis=0), first.std(axis=0)
    scale = np.where(
        deviation > _TINY * max(float(deviation.max()), _TINY), 1.0 / np.maximum(deviation, _TINY), 0.0
    )
    return (first - mean) * scale, (second - mean) * scale


def _compact(train: NDArray[np.float64], val: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """The same geometry in fewer numbers where there are more features than images.

    The weights of a ridge regression lie in the span of the training images, so that coordinates in it give the same
    answers: at most N numbers an image.
    """
    if len(train) < train.shape[1]:
        variances, vectors = np.linalg.eigh(train @ train.T)
        kept = variances > _TINY * max(float(variances[-1]), _TINY)
        roots = np.sqrt(variances[kept])
        train, val = vectors[:, kept] * roots, val @ train.T @ vectors[:, kept] / roots
    return torch.from_numpy(train.astype(np.float32)), torch.from_numpy(val.astype(np.float32))
