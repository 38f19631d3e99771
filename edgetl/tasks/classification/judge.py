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
images can settle (`settled_margin`), which depends on their number alone and not on what was found.

Macro-F1 and recall are guards: they fail and are unsure as top-1 is, but small classes could never show that they
are not inferior, so they pass where nothing speaks against them. Recall takes part class by class, by exact tests with
Holm's (1979) correction, so a class that collapses is caught though the total holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.gate import GateCheck, Verdict
from edgetl.records.scores import Evaluation, Scores, value
from edgetl.statistics import binomial_tail, difference_interval, paired_interval, wilson_interval
from edgetl.tasks.classification.scores import evaluate_predictions

FALSE_ALARM = 0.05
"""How often, at most, a candidate that is no worse fails any of the three checks."""
MISS = 0.05
"""How often, at most, a candidate that is worse by the allowed drop of top-1 passes."""

# Bonferroni: each of the three checks gets its share.
_LEVEL = FALSE_ALARM / 3
# The score interval misses its level by up to a fifth at single points (exact sums over all outcomes), so it is taken
# at four fifths of it: then the level is kept everywhere.
_Z = NormalDist().inv_cdf(1 - 0.8 * MISS)
_MARGIN = 0.01
# A margin is settled where a candidate as good, of whose images this share flips each way, passes so often.
_FLIPS, _POWER = 0.01, 0.8
# A drop of 0.95 to 0.94 is 0.010000000000000009 in floating point and must not exceed a margin of 0.01.
_ROUNDING = 1e-9
_MOST_IMAGES = 1e9
# Bounds the memory of the bootstrap.
_CELLS_AT_ONCE = 2_000_000
_NAMED = 3


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
    allowed = max(_MARGIN, _half_points(-difference_interval(was, was)[0])) if margin is None else margin
    if same_model or allowed == 0 or low > -allowed:
        verdict = Verdict.PASS if change >= -allowed - _ROUNDING else Verdict.FAIL
    else:
        verdict = Verdict.FAIL if -change > allowed + _ROUNDING and high < 0 else Verdict.UNSURE
    bound = "the model file is the same" if same_model else _certainty(low)
    sentence = (
        f"{_went('Top-1', then, top1)} on {after.images:,} images: {_points(change)} points, {bound} "
        f"(as of independent images: which of them flipped is not in the bundles); {_allowed(allowed, settled)}: "
        f"{_word(verdict)}."
    )
    if verdict is Verdict.UNSURE:
        sentence += " Give the images, so that they are compared one by one."
    return _check("accuracy", "top-1", then, top1, (low, high), allowed, verdict, sentence)


def settled_margin(images: int) -> float:
    """The least drop of top-1, one point or more in half points, that so many images can settle.

    At it a candidate as good as the baseline, of whose images 1% flip each way, passes four times in five. It depends
    on the number of images alone, so that choosing it does not touch the error levels.
    """
    z, spread = NormalDist().inv_cdf(1 - MISS), math.sqrt(2 * _FLIPS / images)
    # The score interval of few flips lies about z^2 / 2 images lower than the normal one.
    least = (z + NormalDist().inv_cdf(_POWER)) * spread + z * z / (2 * images)
    return min(1.0, max(_MARGIN, _half_points(least)))


def images_needed(images: int, lost: int, won: int, margin: float) -> int | None:
    """How many images would decide, if they flipped as these did; None where no number would.

    Args:
        images: how many there were.
        lost: right before, wrong now.
        won: wrong before, right now.
        margin: the allowed drop, in 0..1.
    """
    drop = (lost - won) / images
    if abs(drop - margin) <= _ROUNDING or margin <= 0:
        return None
    if drop > margin:
        scale = 1.0
        while (
            binomial_tail(math.floor(scale * lost), math.floor(scale * lost) + math.ceil(scale * won))
            > _LEVEL
        ):
            scale *= 1.05
        return _two_digits(scale * images)
    low = high = 1.0
    while paired_interval(high * lost, high * won, high * images, _Z)[0] <= -margin:
        low, high = high, 2 * high
        if high * images > _MOST_IMAGES:
            return None
    for _ in range(20):
        middle = (low + high) / 2
        passes = paired_interval(middle * lost, middle * won, middle * images, _Z)[0] > -margin
        low, high = (low, middle) if passes else (middle, high)
    return _two_digits(high * images)


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses are rejected with at most `level` probability of any wrong one (Holm 1979)."""
    rejected = [False] * len(p_values)
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > level / (len(p_values) - place):
            break
        rejected[index] = True
    return rejected


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
    lost, won = int((was_right & ~is_right).sum()), int((~was_right & is_right).sum())
    change = (won - lost) / images
    interval = paired_interval(lost, won, images, _Z)
    p_value, beyond = binomial_tail(lost, lost + won), -change > allowed + _ROUNDING
    if allowed == 0:
        verdict = Verdict.FAIL if beyond else Verdict.PASS
    elif same or interval[0] > -allowed:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.FAIL if beyond and p_value <= _LEVEL else Verdict.UNSURE
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
        f"{_went('Top-1', then, top1)} on {images:,} images ({flips}): {_points(change)} points, {sure}; "
        f"{_allowed(allowed, settled)}: {_word(verdict)}."
    )
    if verdict is Verdict.UNSURE:
        needed = images_needed(images, lost, won, allowed)
        sentence += (
            f" About {needed:,} images that flip alike would settle it"
            if needed
            else " The drop is just what is allowed, which no number of images would settle"
        )
        least = settled_margin(images)
        sentence += f"; these settle {_drop(least)}." if needed and least > allowed else "."
    return _check("accuracy", "top-1", then, top1, interval, allowed, verdict, sentence)


def _macro_f1(first: Evaluation, second: Evaluation, draws: NDArray[np.float64], allowed: float) -> GateCheck:
    then, now = value(first, "macro_f1"), value(second, "macro_f1")
    change = now - then
    low, high = (float(v) for v in np.quantile(draws, [MISS, 1 - MISS]))
    beyond = -change > allowed + _ROUNDING
    if not beyond:
        verdict = Verdict.PASS
    elif allowed == 0 or float((draws >= 0).mean()) <= _LEVEL:
        verdict = Verdict.FAIL
    else:
        verdict = Verdict.UNSURE
    sentence = (
        f"{_went('Macro-F1', then, now)}: {_points(change)} points (90% interval "
        f"{_points(low)} to {_points(high)}, paired bootstrap); a drop of {_drop(allowed)} is allowed: "
        f"{_word(verdict)}."
    )
    if verdict is Verdict.UNSURE:
        sentence += " Chance alone may do that: more images of the rare classes would settle it."
    return _check("macro-F1", "macro-F1", then, now, (low, high), allowed, verdict, sentence)


def _recall(
    truth: NDArray[Any], before: NDArray[Any], after: NDArray[Any], labels: Sequence[str], allowed: float
) -> GateCheck:
    classes = len(labels)
    support = np.bincount(truth, minlength=classes)
    hits_before, hits_after = (np.bincount(truth[p == truth], minlength=classes) for p in (before, after))
    present = [int(i) for i in np.flatnonzero(support)]
    lost = np.bincount(truth[(before == truth) & (after != truth)], minlength=classes)
    won = np.bincount(truth[(before != truth) & (after == truth)], minlength=classes)
    p_values = [binomial_tail(int(lost[i]), int(lost[i] + won[i])) for i in present]
    drops = [(int(lost[i]) - int(won[i])) / int(support[i]) for i in present]
    rejected = holm(p_values, _LEVEL)
    places = range(len(present))
    beyond = [at for at in places if drops[at] > allowed + _ROUNDING]
    failed = [at for at in beyond if rejected[at]]
    suspect = [at for at in beyond if p_values[at] <= MISS and not rejected[at]]
    verdict = Verdict.FAIL if failed else Verdict.UNSURE if suspect else Verdict.PASS
    named = sorted(failed or suspect, key=lambda at: (p_values[at], -drops[at]))
    worst = named[0] if named else max(places, key=lambda at: drops[at])

    def told(at: int) -> str:
        index = present[at]
        was, now = (hits[index] / support[index] for hits in (hits_before, hits_after))
        return (
            f"{labels[index]} from {was:.1%} to {now:.1%} ({lost[index]} of its {support[index]} images lost, "
            f"{won[index]} won)"
        )

    allowance = f"a drop of {_drop(allowed)} in a class is allowed"
    if named:
        shown = "; ".join(told(at) for at in named[:_NAMED])
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        sentence = f"Recall went down in {len(named)} of {len(present)} classes: {shown}{more}; {allowance}: "
        sentence += (
            f"{_word(verdict)} (exact tests, Holm's correction)."
            if failed
            else f"{_word(verdict)}: in one of so many classes chance may do that. More images of it would settle it."
        )
    elif drops[worst] > 0:
        sentence = (
            f"Recall went down most in {told(worst)}, of {len(present)} classes; {allowance}, and chance is: "
            f"{_word(verdict)}."
        )
    else:
        sentence = f"Recall went down in none of {len(present)} classes; {allowance}: {_word(verdict)}."
    if not failed:
        sentence += _blind([int(support[i]) for i in present])
    index = present[worst]
    was, now = (float(hits[index] / support[index]) for hits in (hits_before, hits_after))
    interval = paired_interval(int(lost[index]), int(won[index]), int(support[index]), _Z)
    return _check("recall", "recall", was, now, interval, allowed, verdict, sentence)


def _blind(supports: Sequence[int]) -> str:
    """Says where a collapse could not be told from chance: too few images to be significant among so many classes."""
    least = math.ceil(math.log2(len(supports) / _LEVEL))
    small = sum(1 for count in supports if count < least)
    if not small:
        return ""
    which = "one class with" if small == 1 else f"{small} classes with"
    return f" In {which} fewer than {least} images a collapse cannot be told from chance."


# --- words -------------------------------------------------------------------------------------------


def _check(
    name: str,
    unit: str,
    before: float,
    after: float,
    interval: tuple[float, float],
    limit: float,
    verdict: Verdict,
    sentence: str,
) -> GateCheck:
    return GateCheck(
        name=name,
        unit=unit,
        baseline=before,
        current=after,
        change=after - before,
        interval=interval,
        limit=limit,
        judged=True,
        verdict=verdict,
        sentence=sentence,
    )


def _wilson(evaluation: Scores) -> tuple[float, tuple[float, float]]:
    right = round(value(evaluation, "top1") * evaluation.images)
    return value(evaluation, "top1"), wilson_interval(right, evaluation.images, _Z)


def _half_points(share: float) -> float:
    return math.ceil(200 * share - _ROUNDING) / 200


def _two_digits(count: float) -> int:
    """Rounded up to two significant digits."""
    unit = int(10 ** max(0, math.floor(math.log10(count)) - 1))
    return math.ceil(count / unit - _ROUNDING) * unit


def _went(name: str, before: float, after: float) -> str:
    return f"{name} went from {before:.1%} to {after:.1%}"


def _certainty(low: float) -> str:
    worse = "not worse" if low >= 0 else f"not more than {-100 * low:.1f} worse"
    return f"with {1 - MISS:.0%} certainty {worse}"


def _allowed(allowed: float, settled: bool) -> str:
    if settled and allowed > _MARGIN:
        return f"a drop of {_drop(allowed)} is allowed, the least that so many images can settle"
    return f"a drop of {_drop(allowed)} is allowed"


def _drop(share: float) -> str:
    return f"{100 * share:.3g} point" + ("" if share == 0.01 else "s")


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _word(verdict: Verdict) -> str:
    return {Verdict.PASS: "passes", Verdict.FAIL: "FAILS", Verdict.UNSURE: "cannot tell"}[verdict]
