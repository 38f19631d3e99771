"""Precision over recall class by class, and what surer answers are worth.

Legend: N images, C classes. Only numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.records.confidence import AnswerCurves, ClassCurve

MOST = 6
"""Classes that have a curve: those of the lowest average precision."""
_LOOKED_AT = 200
_RECALLS = np.linspace(0.0, 1.0, 101)
_SHARES = np.arange(1, 51) / 50
"""Shares of the images that are answered, the surest first."""


def of_one(probabilities: NDArray[Any], truths: NDArray[Any], labels: Sequence[str]) -> AnswerCurves:
    """Of one class per image; of very many classes only those of lowest recall are looked at.

    Args:
        probabilities: (N, C) float.
        truths: (N,) int.
        labels: the classes' names.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    right = values.argmax(axis=1) == truths
    support = np.bincount(truths, minlength=len(labels))
    recall = np.bincount(truths, right, len(labels)) / np.maximum(support, 1)
    looked_at = [int(at) for at in np.argsort(recall, kind="stable") if support[at]][:_LOOKED_AT]
    order = np.argsort(-values.max(axis=1), kind="stable")
    hits = np.cumsum(right[order])
    # None of no images.
    answered = np.maximum(1, np.floor(_SHARES * len(values) + 1e-9).astype(np.int64))[
        : len(values) * len(_SHARES)
    ]
    return AnswerCurves(
        classes=_lowest([_curve(labels[at], values[:, at], truths == at) for at in looked_at]),
        right=tuple(round(float(hits[n - 1] / n), 4) for n in answered),
    )


def of_any(probabilities: NDArray[Any], truths: NDArray[Any], labels: Sequence[str]) -> AnswerCurves:
    """Of any number of classes per image, both (N, C); how sure an image's answer is as a whole is not said."""
    values, there = np.asarray(probabilities, dtype=np.float64), np.asarray(truths) > 0.5
    looked_at = np.flatnonzero(there.any(axis=0))[:_LOOKED_AT]
    return AnswerCurves(
        classes=_lowest([_curve(labels[at], values[:, at], there[:, at]) for at in looked_at])
    )


def precision_at(scores: NDArray[np.float64], there: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Precision at 101 recalls from 0 to 1, each the best at so much recall or more, and the average precision.

    The latter is the sum of precisions weighed by the rise in recall, without interpolation.

    Args:
        scores: (N,) of one class.
        there: (N,) whether the image has it; one at least does.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores are one rank
    found = np.cumsum(there[order])[last]
    precision, recall = found / (last + 1), found / found[-1]
    average = float(np.sum(precision * np.diff(recall, prepend=0.0)))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.minimum(np.searchsorted(recall, _RECALLS - 1e-12), len(best) - 1)
    return best[places], average


def _curve(label: str, scores: NDArray[np.float64], there: NDArray[np.bool_]) -> ClassCurve:
    precision, average = precision_at(scores, there)
    return ClassCurve(
        label=label,
        images=int(there.sum()),
        average_precision=average,
        precision=tuple(round(float(value), 4) for value in precision),
    )


def _lowest(curves: Sequence[ClassCurve]) -> tuple[ClassCurve, ...]:
    return tuple(sorted(curves, key=lambda one: (one.average_precision, one.label))[:MOST])
