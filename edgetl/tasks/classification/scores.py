"""Scores of a classifier as pure functions on arrays.

Legend: N images, C classes. `labels` is (N,) int in 0..C-1, `scores` is (N, C) float logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.codec import to_json
from edgetl.records.scores import Evaluation, Score
from edgetl.statistics import wilson_interval
from edgetl.tasks.classification.answers import softmax
from edgetl.tasks.classification.detail import ClassDetail, ClassScore, WorstAnswer
from edgetl.tasks.relations import Relation, distances
from edgetl.tasks.reliability import binned, expected_error


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
    labels: NDArray[Any],
    scores: NDArray[Any],
    names: Sequence[str],
    *,
    relation: Relation | None = None,
    resamples: int = 1000,
) -> Evaluation:
    """Score a classifier.

    Macro-F1 and balanced accuracy are means over the classes that have images; a ratio with an empty
    denominator is 0. Top-1's interval is Wilson's (1927), the others' are bootstrap intervals of a fixed seed, all at
    95%.

    Where the classes are related, `label_distance` is the mean distance of the answers from the right classes, and
    `severity` that of the mistakes alone, which there is none of without mistakes
    (Bertinetto et al., "Making Better Mistakes", CVPR 2020, section 4.1).

    Args:
        labels: (N,) int, the right classes.
        scores: (N, C) float logits.
        names: the C class names.
        relation: of the classes.
        resamples: of the bootstrap; 0 leaves its intervals out.

    Raises:
        TensorError: shapes do not fit, a label is out of range, or a score is NaN.
    """
    labels, scores = _checked(labels, scores)
    if scores.shape[1] != len(names):
        raise TensorError(f"scores: {scores.shape[1]} columns came for {len(names)} class names.")
    predictions = scores.argmax(axis=1)
    plain = evaluate_predictions(labels, predictions, names)
    found = dict(plain.scores)
    cells = confusion(labels, predictions, len(names))
    if resamples and len(labels):
        intervals = confusion_intervals(cells, len(names), resamples=resamples)
        for name, (low, high) in zip(("macro_f1", "balanced_accuracy"), intervals, strict=True):
            found[name] = Score(value=found[name].value, low=low, high=high)
    if len(names) > 5:
        found["top5"] = Score(value=topk_accuracy(labels, scores, 5))
    if relation is not None and len(labels):
        found |= distance_scores(cells, distances(relation, names), resamples=resamples)
    if len(labels):
        found["calibration_error"] = Score(value=calibration_error(labels, scores))
    worst = worst_answers(labels, scores)
    detail = plain.detail | ({"worst": to_json(worst)} if worst else {})
    return dataclasses.replace(plain, scores=found, detail=detail)


def worst_answers(labels: NDArray[Any], scores: NDArray[Any], most: int = 8) -> tuple[WorstAnswer, ...]:
    """The mistakes of the highest probabilities, the highest first; of equal ones the earlier image comes first.

    Args:
        labels: (N,) int.
        scores: (N, C) float logits.
        most: how many at most.
    """
    answers = scores.argmax(axis=1)
    wrong = np.flatnonzero(answers != labels)
    sure = softmax(scores[wrong]).max(axis=1) if len(wrong) else np.zeros(0)
    return tuple(
        WorstAnswer(
            image=int(wrong[at]),
            truth=int(labels[wrong[at]]),
            answer=int(answers[wrong[at]]),
            score=float(sure[at]),
        )
        for at in np.argsort(-sure, kind="stable")[:most]
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
    low, high = wilson_interval(right, images)
    detail = ClassDetail(
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
    return Evaluation(
        images=images,
        scores={
            "top1": Score(value=right / images if images else 0.0, low=low, high=high),
            "macro_f1": Score(value=float(f1[present].mean()) if images else 0.0),
            "balanced_accuracy": Score(value=float(recall[present].mean()) if images else 0.0),
        },
        detail=to_json(detail),
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


def distance_scores(
    cells: NDArray[np.int64], apart: NDArray[np.float64], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Score]:
    """`severity`, where there are mistakes, and `label_distance`, with 95% percentile bootstrap intervals.

    Args:
        cells: as from `confusion`, at least one image.
        apart: (C, C) float64, how far classes are from one another.
        resamples: number of draws, as in `confusion_intervals`; 0 leaves the intervals out.
        seed: of the draws.
    """
    rows, columns, counts = cells.T
    far, wrong, images = apart[rows, columns], rows != columns, int(counts.sum())
    generator, shares = np.random.default_rng(seed), counts / images
    total, mistakes = np.empty(resamples), np.empty(resamples)
    for i in range(resamples):
        drawn = generator.multinomial(images, shares)
        total[i], mistakes[i] = drawn @ far, drawn[wrong].sum()

    def scored(value: float, means: NDArray[np.float64]) -> Score:
        if not len(means):
            return Score(value=value)
        low, high = np.quantile(means, [0.025, 0.975])
        return Score(value=value, low=float(low), high=float(high))

    found = {"label_distance": scored(float(counts @ far) / images, total / images)}
    if wrong.any():
        some = mistakes > 0  # A draw without mistakes says nothing of them.
        value = float(counts @ far) / int(counts[wrong].sum())
        found = {"severity": scored(value, total[some] / mistakes[some]), **found}
    return found


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
    found = binned(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins)
    return expected_error(found)


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
