"""What a classifier answers for one image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One class's probability (softmax of the logits), in 0..1."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The best class of an image, and the `top` best, best first."""

    label: str
    index: int
    score: float
    top: tuple[Candidate, ...]

    @property
    def text(self) -> str:
        """The class and its probability."""
        return f"{self.label} {self.score:.1%}"


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities over the last axis, stable for large logits.

    Args:
        logits: (..., C) float.

    Returns:
        (..., C) float32; each row sums to 1.
    """
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


def topk(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Indices of the `k` largest scores, best first; of equal scores the lower index comes first.

    Args:
        scores: (N, C) float.
        k: how many; at most C are returned.

    Returns:
        (N, min(k, C)) int64.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), axis=-1, kind="stable")
    return order[..., :k].astype(np.int64)
