"""The probability from which each class is answered, chosen on images that nothing was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.tasks.multilabel.scores import sigmoid

_EQUAL = 1e-12


def best_thresholds(truths: NDArray[np.bool_], logits: NDArray[Any]) -> tuple[float, ...]:
    """For each class the probability from which it is answered, so that its F1 is largest on these images.

    Halfway between the probabilities of two images that stand next to each other; of equal F1 the threshold nearest to
    0.5. 0.5 where a class has no positive or no negative image.

    Args:
        truths: (N, C).
        logits: (N, C).
    """
    probabilities = np.asarray(sigmoid(logits), dtype=np.float64)
    return tuple(_best(truths[:, at], probabilities[:, at]) for at in range(truths.shape[1]))


def _best(truths: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> float:
    if truths.all() or not truths.any():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(truths[order])
    answered = np.arange(1, len(ranked) + 1)
    f1 = 2 * hits / (answered + truths.sum())
    cuts = (ranked + np.append(ranked[1:], 0.0)) / 2
    possible = np.append(ranked[:-1] > ranked[1:], True)  # images of one probability are answered alike
    best = possible & (f1 >= f1[possible].max() - _EQUAL)
    return float(cuts[best][np.abs(cuts[best] - 0.5).argmin()])
