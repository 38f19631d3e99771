"""Judging accuracy on the same images before and after: top-1, macro-F1 and every class's recall.

The rule, and why it is so. A test set is a sample: on 300 images a model that is trained anew flips some either way
and reads a point better or worse by chance. Two errors matter, and each is held to a level.

- *False alarm*: a candidate that is no worse must not fail. Something fails only where the measured drop exceeds
  what is allowed and is significant. Over the three checks together this happens at most `FALSE_ALARM` of the time.
- *Miss*: a candidate whose true top-1 is worse by what is allowed, or more, must not pass. Top-1 passes only where the
  lower bound of the difference lies above the allowed drop (a test of non-inferiority): such a candidate passes at
  most `MISS` of the time.

What lies between is `unsure`, with the number of images that would settle it. A fixed margin of one point would leave
every small set unsure, whatever the model; so where no margin is named it is one point, or the least that so many
images can settle (`settled_margin`), which depends only on their number and not on what was found.

Macro-F1 and recall are guards: they fail and are unsure as top-1 is, but small classes could never show that they
are not inferior, so they pass where nothing speaks against them. Recall takes part class by class, by exact tests with
Holm's (1979) correction, so a class that collapses is caught though the total holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.gate import GateCheck, Verdict
from edgetl.records.scores import Evaluation, Scores, value
from edgetl.statistics import binomial_tail, difference_interval, discordant, paired_interval, wilson_interval
from edgetl.tasks.classification.scores import evaluate_predictions
from edgetl.tasks.judging import (
    LEVEL,
    MARGIN,
    MISS,
    ROUNDING,
    Z,
    check,
    class_check,
    drop,
    half_points,
    points,
    settled_margin,
    verdict_word,
)

_MOST_IMAGES = 1e9
# Bounds the memory of the bootstrap.
_CELLS_AT_ONCE = 2_000_000


def judge(
    truth: NDArray[Any],
    before: NDArray[Any],
    after: NDArray[Any],
    labels: Sequence[str],
    *,
    margin: float | None = None,
    max_recall_drop: float = 0.10,
    same_model: bool = False,
) -> tuple[GateCheck, GateCheck, GateCheck]:
    """Hold predictions to earlier ones on the same images.

    Args:
        truth: (N,) int, the right classes.
        before: (N,) int, what the baseline predicted.
        after: (N,) int, what the candidate predicted.
        labels: the C class names.
        margin: allowed drop of top-1 and of macro-F1, in 0..1; see the module where unset. 0 allows none on these very
            images, without asking about chance.
        max_recall_drop: allowed drop of a class's recall, in 0..1.
        same_model: both predictions come from the same model file, so nothing can have been lost where they are equal.

    Returns:
        The checks `accuracy`, `macro-F1` and `recall`.

    Raises:
        TensorError: shapes do not fit, a class is out of range, or there are no images.
    """
    truth, before, after = np.asarray(truth), np.asarray(before), np.asarray(after)
    if not len(truth):
        raise TensorError("truth: no images came.")
    first, second = (evaluate_predictions(truth, p, labels) for p in (before, after))
    same = same_model and bool((before == after).all())
    allowed = settled_margin(len(truth)) if margin is None else margin
    return (
        _top1(first, second, before == truth, after == truth, allowed, same, settled=margin is None),
        _macro_f1(first, second, macro_f1_draws(truth, before, after, len(labels)), allowed),
        _recall(truth, before, after, labels, max_recall_drop),
    )


def judge_unpaired(
    before: Scores, after: Scores, *, margin: float | None = None, same_model: bool = False
) -> GateCheck:
    """Hold a top-1 to an earlier one where no predictions are at hand, as of the scores written in bundles.

    Which images flipped is unknown, so the interval is that of independent samples (Newcombe 1998, method 10), wider
    than that of the same images. Arguments and rule as in `judge`.
    """
    was, now = _wilson(before), _wilson(after)
    low, high = difference_interval(was, now)
    top1, then = value(after, "top1"), value(before, "top1")
    change, settled = top1 - then, margin is None
    allowed = max(MARGIN, half_points(-difference_interval(was, was)[0])) if margin is None else margin
    if same_model or allowed == 0 or low > -allowed:
        verdict = Verdict.PASS if change >= -allowed - ROUNDING else Verdict.FAIL
    else:
        verdict = Verdict.FAIL if -change > allowed + ROUNDING and high < 0 else Verdict.UNSURE
    bound = "the model file is the same" if same_model else _certainty(low)
    sentence = (
        f"{_went('Top-1', then, top1)} on {after.images:,} images: {points(change)} points, {bound} "
        f"(as of independent images: which of them flipped is not in the bundles); {_allowed(allowed, settled)}: "
        f"{verdict_word(verdict)}."
    )
    if verdict is Verdict.UNSURE:
        sentence += " Give the images, so that they are compared one by one."
    return check("accuracy", "top-1", then, top1, (low, high), allowed, verdict, sentence)


def images_needed(images: int, lost: int, won: int, margin: float) -> int | None:
    """How many images would decide, if they flipped as these did; None where no number would.

    Args:
        images: how many there were.
        lost: right before, wrong now.
        won: wrong before, right now.
        margin: the allowed drop, in 0..1.
    """
    fell = (lost - won) / images
    if abs(fell - margin) <= ROUNDING or margin <= 0:
        return None
    if fell > margin:
        scale = 1.0
        while (
            binomial_tail(math.floor(scale * lost), math.floor(scale * lost) + math.ceil(scale * won)) > LEVEL
        ):
            scale *= 1.05
        return _two_digits(scale * images)
    low = high = 1.0
    while paired_interval(high * lost, high * won, high * images, Z)[0] <= -margin:
        low, high = high, 2 * high
        if high * images > _MOST_IMAGES:
            return None
    for _ in range(20):
        middle = (low + high) / 2
        passes = paired_interval(middle * lost, middle * won, middle * images, Z)[0] > -margin
        low, high = (low, middle) if passes else (middle, high)
    return _two_digits(high * images)


def macro_f1_draws(
    truth: NDArray[Any],
    before: NDArray[Any],
    after: NDArray[Any],
    classes: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Differences of macro-F1, after less before, over images drawn with replacement (paired bootstrap, Efron 1979).

    Drawing N images is drawing the cells (right class, before, after) from a multinomial. Classes that a draw leaves
    without images do not count in it.

    Returns:
        (resamples,) float64.
    """
    cells, counts = np.unique(np.stack([truth, before, after], axis=1), axis=0, return_counts=True)
    generator, images = np.random.default_rng(seed), int(counts.sum())
    columns = [_Sums(cells[:, side], classes) for side in range(3)]
    hits = [_Sums(np.where(cells[:, 0] == cells[:, side], cells[:, 0], classes), classes) for side in (1, 2)]
    differences: list[NDArray[np.float64]] = []
    for start in range(0, resamples, rows := max(1, _CELLS_AT_ONCE // len(cells))):
        drawn = generator.multinomial(images, counts / images, size=min(rows, resamples - start))
        support = columns[0].of(drawn)
        present = support > 0
        before_f1, after_f1 = (
            2 * right.of(drawn) / np.maximum(support + predicted.of(drawn), 1)
            for right, predicted in zip(hits, columns[1:], strict=True)
        )
        differences.append(((after_f1 - before_f1) * present).sum(axis=1) / present.sum(axis=1))
    return np.concatenate(differences)


class _Sums:
    """Sums columns of a matrix by their class; those of a class beyond the last are left out."""

    def __init__(self, classes_of: NDArray[Any], classes: int) -> None:
        self._order = np.argsort(classes_of, kind="stable")
        found, self._starts = np.unique(classes_of[self._order], return_index=True)
        self._found, self._classes = found, classes

    def of(self, matrix: NDArray[np.int64]) -> NDArray[np.int64]:
        """(R, K) counts to (R, classes)."""
        sums = np.zeros((len(matrix), self._classes + 1), dtype=np.int64)
        sums[:, self._found] = np.add.reduceat(matrix[:, self._order], self._starts, axis=1)
        return sums[:, :-1]


# --- the three checks --------------------------------------------------------------------------------


def _top1(
    first: Evaluation,
    second: Evaluation,
    was_right: NDArray[np.bool_],
    is_right: NDArray[np.bool_],
    allowed: float,
    same: bool,
    *,
    settled: bool,
) -> GateCheck:
    images, then, top1 = first.images, value(first, "top1"), value(second, "top1")
    lost, won = discordant(was_right, is_right)
    change = (won - lost) / images
    interval = paired_interval(lost, won, images, Z)
    p_value, beyond = binomial_tail(lost, lost + won), -change > allowed + ROUNDING
    if allowed == 0:
        verdict = Verdict.FAIL if beyond else Verdict.PASS
    elif same or interval[0] > -allowed:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.FAIL if beyond and p_value <= LEVEL else Verdict.UNSURE
    flips = (
        f"{lost} right to wrong, {won} wrong to right" if lost or won else "none changed for better or worse"
    )
    if same:
        sure = "the same predictions by the same model file"
    elif allowed == 0:
        sure = "on these very images"
    elif beyond:
        sure = f"exact McNemar p = {p_value:.2g}"
    else:
        sure = _certainty(interval[0])
    sentence = (
        f"{_went('Top-1', then, top1)} on {images:,} images ({flips}): {points(change)} points, {sure}; "
        f"{_allowed(allowed, settled)}: {verdict_word(verdict)}."
    )
    if verdict is Verdict.UNSURE:
        needed = images_needed(images, lost, won, allowed)
        sentence += (
            f" About {needed:,} images that flip alike would settle it"
            if needed
            else " The drop is just what is allowed, which no number of images would settle"
        )
        least = settled_margin(images)
        sentence += f"; these settle {drop(least)}." if needed and least > allowed else "."
    return check("accuracy", "top-1", then, top1, interval, allowed, verdict, sentence)


def _macro_f1(first: Evaluation, second: Evaluation, draws: NDArray[np.float64], allowed: float) -> GateCheck:
    then, now = value(first, "macro_f1"), value(second, "macro_f1")
    change = now - then
    low, high = (float(v) for v in np.quantile(draws, [MISS, 1 - MISS]))
    beyond = -change > allowed + ROUNDING
    if not beyond:
        verdict = Verdict.PASS
    elif allowed == 0 or float((draws >= 0).mean()) <= LEVEL:
        verdict = Verdict.FAIL
    else:
        verdict = Verdict.UNSURE
    sentence = (
        f"{_went('Macro-F1', then, now)}: {points(change)} points (90% interval "
        f"{points(low)} to {points(high)}, paired bootstrap); a drop of {drop(allowed)} is allowed: "
        f"{verdict_word(verdict)}."
    )
    if verdict is Verdict.UNSURE:
        sentence += " Chance may do that: more images of the rare classes would settle it."
    return check("macro-F1", "macro-F1", then, now, (low, high), allowed, verdict, sentence)


def _recall(
    truth: NDArray[Any], before: NDArray[Any], after: NDArray[Any], labels: Sequence[str], allowed: float
) -> GateCheck:
    classes = len(labels)
    support = np.bincount(truth, minlength=classes)
    hits = np.bincount(truth[before == truth], minlength=classes)
    lost = np.bincount(truth[(before == truth) & (after != truth)], minlength=classes)
    won = np.bincount(truth[(before != truth) & (after == truth)], minlength=classes)
    return class_check("recall", "recall", "Recall", labels, support, hits, lost, won, allowed)


# --- words -------------------------------------------------------------------------------------------


def _wilson(evaluation: Scores) -> tuple[float, tuple[float, float]]:
    right = round(value(evaluation, "top1") * evaluation.images)
    return value(evaluation, "top1"), wilson_interval(right, evaluation.images, Z)


def _two_digits(count: float) -> int:
    """Rounded up to two significant digits."""
    unit = int(10 ** max(0, math.floor(math.log10(count)) - 1))
    return math.ceil(count / unit - ROUNDING) * unit


def _went(name: str, before: float, after: float) -> str:
    return f"{name} went from {before:.1%} to {after:.1%}"


def _certainty(low: float) -> str:
    worse = "not worse" if low >= 0 else f"not more than {-100 * low:.1f} worse"
    return f"with {1 - MISS:.0%} certainty {worse}"


def _allowed(allowed: float, settled: bool) -> str:
    if settled and allowed > MARGIN:
        return f"a drop of {drop(allowed)} is allowed, the least that so many images can settle"
    return f"a drop of {drop(allowed)} is allowed"
