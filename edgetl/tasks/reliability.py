"""How well scores hold: calibration error, loss and Brier score, and the bins of a reliability plot.

Legend: N images, C classes. Only numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.records.confidence import Reliability, ReliabilityBin

BINS = 15
_TINY = 1e-45
"""Of float32 the least number above 0."""


def of_one(probabilities: NDArray[Any], truths: NDArray[Any]) -> Reliability:
    """Of one class per image.

    Args:
        probabilities: (N, C) float.
        truths: (N,) int.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    own = values[np.arange(len(values)), truths]
    squares = (values**2).sum(axis=1) - 2 * own + 1
    right = values.argmax(axis=1) == truths
    return _reliability(values.max(axis=1), right, -np.log(np.maximum(own, _TINY)), squares)


def of_any(probabilities: NDArray[Any], truths: NDArray[Any]) -> Reliability:
    """Of any number of classes per image, both (N, C): each class of each image counts alike."""
    values, right = np.asarray(probabilities, dtype=np.float64).ravel(), np.asarray(truths).ravel()
    own = np.where(right, values, 1 - values)
    return _reliability(values, right, -np.log(np.maximum(own, _TINY)), (1 - own) ** 2)


def binned(scores: NDArray[Any], right: NDArray[Any], bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Answers by their score (M,) in 0..1, in bins of equal width, each closed above; without empty ones."""
    place = np.clip(np.ceil(scores * bins).astype(np.int64) - 1, 0, bins - 1)
    counts, sums, hits = (
        np.bincount(place, weights=weights, minlength=bins) for weights in (None, scores, right)
    )
    return tuple(
        ReliabilityBin(score=float(total / count), right=float(hit / count), answers=int(count))
        for count, total, hit in zip(counts, sums, hits, strict=True)
        if count
    )


def expected_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """The mean distance of score and share of right answers, weighed by the answers (Guo et al. 2017)."""
    answers = sum(one.answers for one in bins)
    return sum(one.answers * abs(one.score - one.right) for one in bins) / max(1, answers)


def _reliability(
    scores: NDArray[Any], right: NDArray[Any], losses: NDArray[Any], squares: NDArray[Any]
) -> Reliability:
    bins = binned(scores, right)
    return Reliability(
        error=expected_error(bins), loss=float(losses.mean()), brier=float(squares.mean()), bins=bins
    )
