"""Judging boxes on the same images before and after: mAP, and every class's average precision.

Mean average precision has no exact test, so images are drawn with replacement, the same ones for both detectors
(paired bootstrap, Efron 1979), and each draw gives a difference. The rule is that of classification
(`edgetl.tasks.classification.judge`): a drop fails only where it exceeds what is allowed and is significant; mAP passes
only where the lower bound of the difference lies above the allowed drop; what lies between is unsure.

Classes are guards: one fails where its average precision fell by more than is allowed of a class in nearly all
draws, with Bonferroni's correction, so a class that collapses is caught though the mean holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.gate import GateCheck, Verdict
from edgetl.records.scores import Scores, score
from edgetl.tasks.detection.scores import Found, Matches, Truth, averages, draws_for, match
from edgetl.tasks.judging import (
    FALSE_ALARM,
    MARGIN,
    MISS,
    ROUNDING,
    check,
    half_points,
    verdict_word,
)
from edgetl.text import few

_LEVEL = FALSE_ALARM / 2
"""Each of the two checks' share."""
_SPREAD = 0.25
"""Images' share in the settled margin: a candidate as good as the baseline passes four times in five where the
difference of mAP between two trainings varies by a tenth per image, as it did on blood cells at 320 px."""
_NAMED = 3


def settled_margin(images: int) -> float:
    """The least drop of mAP, one point or more in half points, that so many images can settle."""
    return min(1.0, max(MARGIN, half_points(_SPREAD / math.sqrt(images))))


def judge(
    truths: Sequence[Truth],
    before: Sequence[Found],
    after: Sequence[Found],
    labels: Sequence[str],
    *,
    margin: float | None = None,
    max_class_drop: float = 0.10,
    same_model: bool = False,
) -> tuple[GateCheck, GateCheck]:
    """Hold boxes to earlier ones on the same images.

    Args:
        truths: N images' objects, in the original pictures' pixels.
        before: N images' boxes of the baseline.
        after: N images' boxes of the candidate.
        labels: the C class names.
        margin: allowed drop of mAP, in 0..1; `settled_margin` where unset. 0 allows none on these very images, without
            asking about chance.
        max_class_drop: allowed drop of one class's average precision, in 0..1.
        same_model: both come from the same model file, so nothing can have been lost where they are equal.

    Returns:
        The checks `mAP` and `class AP`.

    Raises:
        TensorError: the numbers of images differ, or there are none.
    """
    if not truths or not len(truths) == len(before) == len(after):
        raise TensorError(
            f"truths: {len(truths)} images, {len(before)} and {len(after)} answers; expected as many, at least one."
        )
    first, second = (
        [match(truths, found, label) for label in range(len(labels))] for found in (before, after)
    )
    was, was_each = averages(first)
    now, now_each = averages(second)
    draws, classes = _differences(first, second, len(truths))
    allowed = settled_margin(len(truths)) if margin is None else margin
    return (
        _mean(was.ap, now.ap, draws, allowed, len(truths), same=same_model and was == now),
        _classes(
            [None if a is None else a.ap for a in was_each],
            [None if a is None else a.ap for a in now_each],
            classes,
            labels,
            max_class_drop,
        ),
    )


def judge_unpaired(
    before: Scores, after: Scores, *, margin: float | None = None, same_model: bool = False
) -> GateCheck:
    """Hold a mAP to an earlier one where no boxes are at hand, as of the scores written in bundles.

    The interval is that of independent samples: each figure's own half-widths, added as errors are.
    """
    was, now = score(before, "map"), score(after, "map")
    down = math.hypot(now.value - (now.low or 0.0), (1.0 if was.high is None else was.high) - was.value)
    up = math.hypot((1.0 if now.high is None else now.high) - now.value, was.value - (was.low or 0.0))
    change = now.value - was.value
    low, high = change - down, change + up
    allowed = settled_margin(after.images) if margin is None else margin
    if same_model or allowed == 0 or low > -allowed:
        verdict = Verdict.PASS if change >= -allowed - ROUNDING else Verdict.FAIL
    else:
        verdict = Verdict.FAIL if -change > allowed + ROUNDING and high < 0 else Verdict.UNSURE
    sentence = (
        f"mAP went from {was.value:.3f} to {now.value:.3f} on {after.images:,} images: {100 * change:+.1f} points "
        f"(as of independent images); a drop of {100 * allowed:.3g} is allowed: {verdict_word(verdict)}."
    )
    if verdict is Verdict.UNSURE:
        sentence += " Give the images, so that they are compared one by one."
    return check("mAP", "mAP", was.value, now.value, (low, high), allowed, verdict, sentence)


def _differences(
    first: Sequence[Matches], second: Sequence[Matches], images: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(draws,) differences of mAP and (draws, C) of each class's; NaN where a draw has no object of it."""
    generator = np.random.default_rng(0)
    means, each = [], []
    for _ in range(draws_for([*first, *second])):
        weights = np.bincount(generator.integers(0, images, images), minlength=images)
        (was, was_each), (now, now_each) = averages(first, weights), averages(second, weights)
        means.append(now.ap - was.ap)
        each.append(
            [
                math.nan if a is None or b is None else b.ap - a.ap
                for a, b in zip(was_each, now_each, strict=True)
            ]
        )
    return np.array(means), np.array(each)


def _mean(
    was: float, now: float, draws: NDArray[np.float64], allowed: float, images: int, *, same: bool
) -> GateCheck:
    low, high = (float(v) for v in np.quantile(draws, [MISS, 1 - MISS]))
    beyond = was - now > allowed + ROUNDING
    if allowed == 0:
        verdict = Verdict.FAIL if beyond else Verdict.PASS
    elif same or low > -allowed:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.FAIL if beyond and (draws >= 0).mean() <= _LEVEL else Verdict.UNSURE
    sentence = (
        f"mAP went from {was:.3f} to {now:.3f} on {images:,} images: {100 * (now - was):+.1f} points (90% interval "
        f"{100 * low:+.1f} to {100 * high:+.1f}, paired bootstrap); a drop of {100 * allowed:.3g} is allowed: "
        f"{verdict_word(verdict)}."
    )
    if verdict is Verdict.UNSURE:
        width = (high - low) / 2
        needed = math.ceil(images * (width / max(abs(allowed - (was - now)), 1e-3)) ** 2)
        sentence += f" About {needed:,} images like these would settle it."
    return check("mAP", "mAP", was, now, (low, high), allowed, verdict, sentence)


def _classes(
    was: Sequence[float | None],
    now: Sequence[float | None],
    draws: NDArray[np.float64],
    labels: Sequence[str],
    allowed: float,
) -> GateCheck:
    changes = {
        place: b - a
        for place, (a, b) in enumerate(zip(was, now, strict=True))
        if a is not None and b is not None
    }
    if not changes:
        sentence = "Average precision: there is no object to judge it on: passes."
        return check("class AP", "AP", 0.0, 0.0, (0.0, 0.0), allowed, Verdict.PASS, sentence)
    beyond = [place for place, change in changes.items() if -change > allowed + ROUNDING]
    chance = {place: float(np.nanmean(draws[:, place] >= 0)) for place in beyond}
    failed = [place for place in beyond if chance[place] <= _LEVEL / len(changes)]
    suspect = [place for place in beyond if place not in failed]
    verdict = Verdict.FAIL if failed else Verdict.UNSURE if suspect else Verdict.PASS
    worst = min(changes, key=lambda place: changes[place])
    named = sorted(failed or suspect, key=lambda place: changes[place])

    def words(place: int) -> str:
        return f"{labels[place]} from {was[place]:.3f} to {now[place]:.3f}"

    allowance = f"a drop of {100 * allowed:.3g} points in a class is allowed"
    if named:
        shown = few([words(place) for place in named], _NAMED, by="; ")
        sentence = (
            f"Average precision went down in {shown}, of {len(changes)} classes; "
            f"{allowance}: {verdict_word(verdict)}."
        )
        if not failed:
            sentence += " Chance may do that: more images of it would settle it."
    else:
        sentence = f"Average precision changed most in {words(worst)}, of {len(changes)} classes; {allowance}: passes."
    low, high = (float(v) for v in np.nanquantile(draws[:, worst], [MISS, 1 - MISS]))
    return check(
        "class AP",
        "AP",
        float(was[worst] or 0.0),
        float(now[worst] or 0.0),
        (low, high),
        allowed,
        verdict,
        sentence,
    )
