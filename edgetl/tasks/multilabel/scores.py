"""Scores of a multi-label classifier as pure functions on arrays.

Legend: N images, C classes. `truths` and `answers` are (N, C) bool, `logits` is (N, C) float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.codec import to_json
from edgetl.records.scores import Evaluation, Score
from edgetl.statistics import wilson_interval
from edgetl.tasks.multilabel.detail import TagScore, TagsDetail

_DRAWS = 500
_LEAST_DRAWS = 100
# Bounds the time of the bootstrap: so many array elements are touched.
_WORK = 100_000_000


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of each class by itself, stable for large logits."""
    values = np.asarray(logits, dtype=np.float64)
    return np.where(values >= 0, 1.0, np.exp(-np.abs(values))) / (1.0 + np.exp(-np.abs(values)))


def evaluate(
    truths: NDArray[Any],
    logits: NDArray[Any],
    names: Sequence[str],
    thresholds: NDArray[Any],
    *,
    seed: int = 0,
    resamples: int | None = None,
) -> Evaluation:
    """Score a multi-label classifier.

    mAP is the mean over the classes that have images of the area under precision over recall, as a sum over the
    ranks, equal scores being one rank (as scikit-learn's `average_precision_score`); macro-F1 the mean of F1 over the
    same classes; `exact` the share of images with every class right. Intervals are at 95%: Wilson's (1927) for shares,
    percentile bootstrap (Efron 1979) over the images for the means.

    Args:
        truths: (N, C) bool.
        logits: (N, C) float.
        names: the C class names.
        thresholds: (C,) float, the least probability that is answered.
        seed: of the draws.
        resamples: 0 leaves the bootstrap's intervals out.

    Raises:
        TensorError: shapes do not fit, or a logit is NaN.
    """
    truths, logits = _checked(truths, logits, len(names))
    answers = sigmoid(logits) >= thresholds
    images, ranks = len(truths), Ranks(truths, logits)
    exact = int((answers == truths).all(axis=1).sum())
    low, high = wilson_interval(exact, images)
    areas, f1 = ranks.average_precision(), f1_of(truths, answers)
    figures = {"map": _mean(areas, ranks.present), "macro_f1": _mean(f1, ranks.present)}
    found = {name: Score(value=figure) for name, figure in figures.items()}
    if images and resamples != 0:
        draws = _bootstrap(truths, answers, ranks, seed)
        for at, (name, figure) in enumerate(figures.items()):
            ends = np.quantile(draws[:, at], [0.025, 0.975])
            found[name] = Score(value=figure, low=float(ends[0]), high=float(ends[1]))
    found["exact"] = Score(value=exact / images if images else 0.0, low=low, high=high)
    classes = []
    for at, name in enumerate(names):
        hits = int((truths[:, at] & answers[:, at]).sum())
        support, answered = int(truths[:, at].sum()), int(answers[:, at].sum())
        classes.append(
            TagScore(
                label=name,
                threshold=float(thresholds[at]),
                support=support,
                answered=answered,
                precision=_share(hits, answered),
                recall=_share(hits, support),
                f1=float(f1[at]),
                average_precision=float(areas[at]),
            )
        )
    return Evaluation(images=images, scores=found, detail=to_json(TagsDetail(classes=tuple(classes))))


def f1_of(
    truths: NDArray[np.bool_], answers: NDArray[np.bool_], weights: NDArray[Any] | None = None
) -> NDArray[Any]:
    """(C,) F1 of each class, 0 where it is neither there nor answered; `weights` (N,) counts images."""
    counted = np.ones(len(truths)) if weights is None else weights
    hits = counted @ (truths & answers)
    both = counted @ truths + counted @ answers
    return np.divide(2.0 * hits, both, out=np.zeros(truths.shape[1]), where=both > 0)


class Ranks:
    """Images in the order of their scores, class by class; equal scores share a rank."""

    def __init__(self, truths: NDArray[np.bool_], logits: NDArray[Any]) -> None:
        self._order = np.argsort(-logits, axis=0, kind="stable")
        self._right = np.take_along_axis(truths, self._order, axis=0)
        ordered = np.take_along_axis(logits, self._order, axis=0)
        last = np.ones(ordered.shape, dtype=bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        places = np.where(last, np.arange(len(ordered))[:, None], len(ordered))
        # The end of an image's rank: the nearest last place at or below it.
        self._ends = np.minimum.accumulate(places[::-1], axis=0)[::-1]
        self.present = truths.any(axis=0)

    def average_precision(self, weights: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """(C,) for each class; `weights` (N,) counts images."""
        counted = np.ones(self._order.shape) if weights is None else weights[self._order]
        hits = counted * self._right
        seen, right = np.cumsum(counted, axis=0), np.cumsum(hits, axis=0)
        below, above = (np.take_along_axis(a, self._ends, axis=0) for a in (seen, right))
        precision = np.divide(above, below, out=np.zeros(below.shape), where=below > 0)
        total = hits.sum(axis=0)
        area: NDArray[np.float64] = np.divide(
            (hits * precision).sum(axis=0), total, out=np.zeros(len(total)), where=total > 0
        )
        return area


def _bootstrap(
    truths: NDArray[np.bool_], answers: NDArray[np.bool_], ranks: Ranks, seed: int
) -> NDArray[np.float64]:
    """(draws, 2) mAP and macro-F1; classes that a draw leaves without images do not count in it."""
    images = len(truths)
    draws = int(np.clip(_WORK // max(1, truths.size), _LEAST_DRAWS, _DRAWS))
    generator, found = np.random.default_rng(seed), np.empty((draws, 2))
    for draw in range(draws):
        weights = generator.multinomial(images, np.full(images, 1 / images)).astype(np.float64)
        present = weights @ truths > 0
        found[draw] = (
            _mean(ranks.average_precision(weights), present),
            _mean(f1_of(truths, answers, weights), present),
        )
    return found


def _mean(values: NDArray[Any], present: Any) -> float:
    return float(values[present].mean()) if present.any() else 0.0


def _share(hits: int, of: int) -> Score:
    low, high = wilson_interval(hits, of)
    return Score(value=hits / of if of else 0.0, low=low, high=high)


def _checked(
    truths: NDArray[Any], logits: NDArray[Any], classes: int
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    truths, logits = np.asarray(truths), np.asarray(logits)
    if (
        truths.shape != logits.shape
        or truths.ndim != 2
        or truths.shape[1] != classes
        or truths.dtype != np.bool_
    ):
        raise TensorError(
            f"truths {truths.shape} {truths.dtype} and logits {logits.shape}: expected (N, {classes}) bool and float."
        )
    if np.isnan(logits).any():
        raise TensorError(
            f"logits: {int(np.isnan(logits).any(axis=1).sum())} of {len(logits)} rows hold NaN."
        )
    return truths, logits
