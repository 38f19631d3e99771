"""Scores of a classifier as pure functions on arrays.

Legend: N images, C classes. `labels` is (N,) int in 0..C-1, `scores` is (N, C) float logits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.figures import ClassScore, Evaluation
from edgetl.frozen import dataclass

Z95 = 1.959963984540054
"""97.5% quantile of the standard normal distribution."""


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


def topk_accuracy(labels: NDArray[Any], scores: NDArray[Any], k: int) -> float:
    """Share of images whose label is among the `k` largest scores, in 0..1; 0 for no images."""
    labels, scores = _checked(labels, scores)
    if not len(labels):
        return 0.0
    own = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    rank = (scores > own).sum(axis=1) + ((scores == own) & earlier).sum(axis=1)
    return float((rank < k).mean())


def evaluate(
    labels: NDArray[Any], scores: NDArray[Any], names: Sequence[str], *, resamples: int = 1000
) -> Evaluation:
    """Score a classifier.

    Macro-F1 and balanced accuracy are means over the classes that have images; a ratio with an empty
    denominator is 0. Top-1's interval is Wilson's (1927), the others' are bootstrap intervals of a fixed seed, all at
    95%.

    Args:
        labels: (N,) int, the right classes.
        scores: (N, C) float logits.
        names: the C class names.
        resamples: of the bootstrap; 0 leaves its intervals out.

    Raises:
        TensorError: shapes do not fit, a label is out of range, or a score is NaN.
    """
    labels, scores = _checked(labels, scores)
    if scores.shape[1] != len(names):
        raise TensorError(f"scores: {scores.shape[1]} columns came for {len(names)} class names.")
    predictions = scores.argmax(axis=1)
    plain = evaluate_predictions(labels, predictions, names)
    macro_f1, balanced = None, None
    if resamples and len(labels):
        cells = confusion(labels, predictions, len(names))
        macro_f1, balanced = confusion_intervals(cells, len(names), resamples=resamples)
    return dataclasses.replace(
        plain,
        top5=topk_accuracy(labels, scores, 5) if len(names) > 5 else None,
        calibration_error=calibration_error(labels, scores) if len(labels) else None,
        macro_f1_interval=macro_f1,
        balanced_accuracy_interval=balanced,
    )


def evaluate_predictions(labels: NDArray[Any], predictions: NDArray[Any], names: Sequence[str]) -> Evaluation:
    """As `evaluate`, from (N,) int predicted classes and so without what needs scores or draws."""
    cells = confusion(labels, predictions, len(names))
    support, predicted, hits = class_counts(cells, len(names))
    images, right = int(support.sum()), int(hits.sum())
    recall = _ratio(hits, support)
    precision = _ratio(hits, predicted)
    f1 = _ratio(2 * hits, support + predicted)
    present = support > 0
    return Evaluation(
        images=images,
        top1=right / images if images else 0.0,
        top1_interval=wilson_interval(right, images),
        macro_f1=float(f1[present].mean()) if images else 0.0,
        balanced_accuracy=float(recall[present].mean()) if images else 0.0,
        classes=tuple(
            ClassScore(
                label=name,
                support=int(support[i]),
                precision=float(precision[i]),
                recall=float(recall[i]),
                f1=float(f1[i]),
            )
            for i, name in enumerate(names)
        ),
        cells=tuple(map(tuple, cells.tolist())),
    )


def confusion_intervals(
    cells: NDArray[np.int64],
    classes: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Percentile bootstrap intervals (Efron 1979) of macro-F1 and balanced accuracy.

    Drawing N images with replacement is drawing the cells of their confusion matrix from a multinomial, so the
    time does not grow with N. Classes that a draw leaves without images do not count in it.

    Args:
        cells: as from `confusion`, at least one image.
        classes: C.
        resamples: number of draws.
        seed: of the draws; the same gives the same intervals.
        confidence: share of the draws that an interval covers.
    """
    generator, images = np.random.default_rng(seed), int(cells[:, 2].sum())
    rows, columns = cells[:, 0], cells[:, 1]
    shares, diagonal = cells[:, 2] / images, rows == columns
    f1, balanced = np.empty(resamples), np.empty(resamples)
    for i in range(resamples):
        drawn = generator.multinomial(images, shares)
        support = np.bincount(rows, drawn, classes)
        predicted = np.bincount(columns, drawn, classes)
        right = np.bincount(rows[diagonal], drawn[diagonal], classes)
        present = support > 0
        f1[i] = (2 * right[present] / (support + predicted)[present]).mean()
        balanced[i] = (right[present] / support[present]).mean()
    tail = (1 - confidence) / 2
    low_f1, high_f1 = np.quantile(f1, [tail, 1 - tail])
    low, high = np.quantile(balanced, [tail, 1 - tail])
    return (float(low_f1), float(high_f1)), (float(low), float(high))


def confusion(labels: NDArray[Any], predictions: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """(K, 3) int64: right class, predicted class, images, for the K cells of the matrix that are not zero, row by row.

    Raises:
        TensorError: lengths differ, or an index is outside 0..C-1.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape:
        raise TensorError(f"labels {labels.shape} and predictions {predictions.shape}: expected (N,) twice.")
    for name, values in (("labels", labels), ("predictions", predictions)):
        if len(values) and (values.min() < 0 or values.max() >= classes):
            raise TensorError(
                f"{name}: values {values.min()}..{values.max()} came, expected 0..{classes - 1}."
            )
    flat = labels.astype(np.int64) * classes + predictions.astype(np.int64)
    places, counts = np.unique(flat, return_counts=True)
    return np.column_stack([places // classes, places % classes, counts]).astype(np.int64)


def class_counts(
    cells: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(C,) int64 each, from `confusion`'s cells: images of the class, images predicted as it, those of both."""
    rows, columns, images = cells.T
    hits = np.where(rows == columns, images, 0)
    support, predicted, right = (
        np.bincount(places, weights, classes).astype(np.int64)
        for places, weights in ((rows, images), (columns, images), (rows, hits))
    )
    return support, predicted, right


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) for no trials."""
    if trials == 0:
        return (0.0, 1.0)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # At 0 and at all successes the bound is exact; rounding would miss it by 1e-17.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == trials else min(1.0, (centre + half) / scale)
    return (low, high)


def calibration_error(labels: NDArray[Any], scores: NDArray[Any], bins: int = 15) -> float:
    """Expected calibration error of the top class over equal-width bins (Guo et al. 2017), in 0..1.

    Args:
        labels: (N,) int.
        scores: (N, C) float logits.
        bins: number of confidence bins.
    """
    labels, scores = _checked(labels, scores)
    if not len(labels):
        return 0.0
    probabilities = softmax(scores).astype(np.float64)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    surplus = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(surplus).sum() / len(labels))


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Two classifiers on the same images.

    `only_first` images were right by the first alone, `only_second` by the second alone. `difference` is the
    second's accuracy less the first's, `interval` its 95% interval, `p_value` of the exact McNemar test.
    """

    images: int
    only_first: int
    only_second: int
    difference: float
    interval: tuple[float, float]
    p_value: float


def compare_paired(first: NDArray[Any], second: NDArray[Any]) -> PairedComparison:
    """Compare two classifiers image by image.

    The p-value is McNemar's (1947) in its exact binomial form; the interval is `paired_interval`.

    Args:
        first: (N,) bool, which images the first classifier got right.
        second: (N,) bool, the same images in the same order.

    Raises:
        TensorError: the lengths differ or are 0.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise TensorError(
            f"first {first.shape} and second {second.shape}: expected (N,) twice, N at least 1."
        )
    images, lost, won = len(first), int((first & ~second).sum()), int((~first & second).sum())
    return PairedComparison(
        images=images,
        only_first=lost,
        only_second=won,
        difference=(won - lost) / images,
        interval=paired_interval(lost, won, images),
        p_value=min(1.0, 2 * binomial_tail(max(lost, won), lost + won)),
    )


def paired_interval(lost: float, won: float, images: float, z: float = Z95) -> tuple[float, float]:
    """Score interval of a difference of paired proportions, second less first (Tango 1998).

    It holds its level on small sets and where no image flipped: then its ends are z^2 / (images + z^2) from 0.

    Args:
        lost: images that were right by the first classifier alone.
        won: images that were right by the second alone.
        images: all images, at least 1.
        z: quantile of the standard normal distribution; 1.96 gives 95%.
    """

    def score(difference: float) -> float:
        # The share of lost images that is likeliest under this difference solves a quadratic equation.
        b = (2 * images - won + lost) * difference - won - lost
        c = -lost * difference * (1 - difference)
        share = (math.sqrt(max(0.0, b * b - 8 * images * c)) - b) / (4 * images)
        variance = images * (2 * share + difference * (1 - difference))
        distance = won - lost - images * difference
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    measured = (won - lost) / images
    return (_root(score, z, -1.0, measured), _root(score, -z, measured, 1.0))


def binomial_tail(successes: int, trials: int) -> float:
    """P of at least `successes` heads in `trials` tosses of a fair coin; McNemar's exact test, one-sided."""
    base = math.lgamma(trials + 1) - trials * math.log(2)
    return min(
        1.0,
        math.fsum(
            math.exp(base - math.lgamma(k + 1) - math.lgamma(trials - k + 1))
            for k in range(successes, trials + 1)
        ),
    )


def difference_interval(
    first: tuple[float, tuple[float, float]], second: tuple[float, tuple[float, float]]
) -> tuple[float, float]:
    """95% interval of second less first for independent proportions, from their Wilson intervals.

    Newcombe (1998), method 10. Each argument is (proportion, (low, high)).
    """
    (p, (p_low, p_high)), (q, (q_low, q_high)) = first, second
    low = q - p - math.hypot(q - q_low, p_high - p)
    high = q - p + math.hypot(q_high - q, p - p_low)
    return (max(-1.0, low), min(1.0, high))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    count: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979), the same for the same seed.

    Args:
        statistic: maps (count,) indices, drawn with replacement, to a figure.
        count: number of items to draw from, at least 1.
        resamples: number of draws.
        seed: of the draws.
        confidence: share of the draws that the interval covers.
    """
    generator = np.random.default_rng(seed)
    values = [statistic(generator.integers(0, count, count)) for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return (float(low), float(high))


def _root(falling: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a falling function takes `value`, to 2^-50 of the range; an end where it never does."""
    if falling(low) <= value:
        return low
    if falling(high) >= value:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > value else (low, middle)
    return (low + high) / 2


def _ratio(above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros(len(above), dtype=np.float64), where=below > 0)


def _checked(labels: NDArray[Any], scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or scores.ndim != 2 or len(labels) != len(scores):
        raise TensorError(f"labels {labels.shape} and scores {scores.shape}: expected (N,) and (N, C).")
    if labels.dtype.kind not in "iu":
        raise TensorError(f"labels: {labels.dtype} came, expected integers.")
    if scores.shape[1] == 0:
        raise TensorError("scores: no class columns came.")
    if np.isnan(scores).any():
        raise TensorError(
            f"scores: {int(np.isnan(scores).any(axis=1).sum())} of {len(scores)} rows hold NaN."
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= scores.shape[1]):
        raise TensorError(
            f"labels: values {labels.min()}..{labels.max()} came, expected 0..{scores.shape[1] - 1}."
        )
    return labels, scores
