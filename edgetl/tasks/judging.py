"""What judging answers shares among tasks: error levels, the allowed drop that so many images settle, and the guard
that holds each class to what it was.

Two errors matter, and each is held to a level. *False alarm*: a candidate that is no worse must not fail; over a task's
three checks together this happens at most `FALSE_ALARM` of the time. *Miss*: a candidate whose true score is worse by
what is allowed, or more, passes at most `MISS` of the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

from numpy.typing import NDArray

from edgetl.records.gate import GateCheck, Verdict
from edgetl.statistics import binomial_tail, paired_interval
from edgetl.text import few

FALSE_ALARM = 0.05
"""How often, at most, a candidate that is no worse fails any of the three checks."""
MISS = 0.05
"""How often, at most, a candidate that is worse by the allowed drop passes."""
LEVEL = FALSE_ALARM / 3
"""Each of the three checks' share (Bonferroni)."""
# The score interval misses its level by up to a fifth at single points (exact sums over all outcomes), so it is taken
# at four fifths of it: then the level is kept everywhere.
Z = NormalDist().inv_cdf(1 - 0.8 * MISS)
MARGIN = 0.01
"""The allowed drop where so many images can settle it."""
# A margin is settled where a candidate as good, of whose images this share flips each way, passes so often.
_FLIPS, _POWER = 0.01, 0.8
# A drop of 0.95 to 0.94 is 0.010000000000000009 in floating point and must not exceed a margin of 0.01.
ROUNDING = 1e-9
_NAMED = 3


def settled_margin(images: int) -> float:
    """The least drop, one point or more in half points, that so many images can settle.

    At it a candidate as good as the baseline, of whose images 1% flip each way, passes four times in five. It depends
    only on the number of images, so that choosing it does not touch the error levels.
    """
    z, spread = NormalDist().inv_cdf(1 - MISS), math.sqrt(2 * _FLIPS / images)
    # The score interval of few flips lies about z^2 / 2 images lower than the normal one.
    least = (z + NormalDist().inv_cdf(_POWER)) * spread + z * z / (2 * images)
    return min(1.0, max(MARGIN, half_points(least)))


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses are rejected with at most `level` probability of any wrong one (Holm 1979)."""
    rejected = [False] * len(p_values)
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > level / (len(p_values) - place):
            break
        rejected[index] = True
    return rejected


def class_check(
    name: str,
    unit: str,
    what: str,
    labels: Sequence[str],
    support: NDArray[Any],
    hits_before: NDArray[Any],
    lost: NDArray[Any],
    won: NDArray[Any],
    allowed: float,
) -> GateCheck:
    """Hold every class's share of hits to what it was, by exact tests with Holm's correction.

    Args:
        name: of the check.
        unit: of its figures, as in `GateCheck`.
        what: what a sentence calls the share, as in `Recall`.
        labels: the C class names.
        support: (C,) int, images that could be hit.
        hits_before: (C,) int, those that were.
        lost: (C,) int, hit before and not now.
        won: (C,) int, hit now and not before.
        allowed: the largest drop that passes, in 0..1.
    """
    hits_after = hits_before - lost + won
    present = [i for i in range(len(labels)) if support[i]]
    if not present:
        return check(
            name,
            unit,
            0.0,
            0.0,
            (0.0, 0.0),
            allowed,
            Verdict.PASS,
            f"{what}: there is no image to judge it on: passes.",
        )
    p_values = [binomial_tail(int(lost[i]), int(lost[i] + won[i])) for i in present]
    drops = [(int(lost[i]) - int(won[i])) / int(support[i]) for i in present]
    rejected = holm(p_values, LEVEL)
    places = range(len(present))
    beyond = [at for at in places if drops[at] > allowed + ROUNDING]
    failed = [at for at in beyond if rejected[at]]
    suspect = [at for at in beyond if p_values[at] <= MISS and not rejected[at]]
    verdict = Verdict.FAIL if failed else Verdict.UNSURE if suspect else Verdict.PASS
    named = sorted(failed or suspect, key=lambda at: (p_values[at], -drops[at]))
    worst = named[0] if named else max(places, key=lambda at: drops[at])

    def described(at: int) -> str:
        index = present[at]
        was, now = (hits[index] / support[index] for hits in (hits_before, hits_after))
        return (
            f"{labels[index]} from {was:.1%} to {now:.1%} ({lost[index]} of its {support[index]} images lost, "
            f"{won[index]} won)"
        )

    allowance = f"a drop of {drop(allowed)} in a class is allowed"
    if named:
        shown = few([described(at) for at in named], _NAMED, by="; ")
        sentence = f"{what} went down in {len(named)} of {len(present)} classes: {shown}; {allowance}: "
        sentence += (
            f"{verdict_word(verdict)} (exact tests, Holm's correction)."
            if failed
            else f"{verdict_word(verdict)}: in one of so many classes chance may do that. "
            "More images of it would settle it."
        )
    elif drops[worst] > 0:
        sentence = (
            f"{what} went down most in {described(worst)}, of {len(present)} classes; {allowance}, and chance is: "
            f"{verdict_word(verdict)}."
        )
    else:
        sentence = (
            f"{what} went down in none of {len(present)} classes; {allowance}: {verdict_word(verdict)}."
        )
    if not failed:
        sentence += _blind([int(support[i]) for i in present])
    index = present[worst]
    was, now = (float(hits[index] / support[index]) for hits in (hits_before, hits_after))
    interval = paired_interval(int(lost[index]), int(won[index]), int(support[index]), Z)
    return check(name, unit, was, now, interval, allowed, verdict, sentence)


def _blind(supports: Sequence[int]) -> str:
    """Says where a collapse could not be distinguished from chance: too few images among so many classes."""
    least = math.ceil(math.log2(len(supports) / LEVEL))
    small = sum(1 for count in supports if count < least)
    if not small:
        return ""
    which = "one class with" if small == 1 else f"{small} classes with"
    return f" In {which} fewer than {least} images a collapse cannot be distinguished from chance."


def check(
    name: str,
    unit: str,
    before: float,
    after: float,
    interval: tuple[float, float],
    limit: float,
    verdict: Verdict,
    sentence: str,
) -> GateCheck:
    """A judged check of a share."""
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


def half_points(share: float) -> float:
    """Rounded up to half a percentage point."""
    return math.ceil(200 * share - ROUNDING) / 200


def drop(share: float) -> str:
    """A share as points, without a sign."""
    return f"{100 * share:.3g} point" + ("" if share == 0.01 else "s")


def points(share: float) -> str:
    """A share as points, with its sign."""
    return f"{100 * share:+.1f}"


def verdict_word(verdict: Verdict) -> str:
    """How a sentence ends."""
    return {Verdict.PASS: "passes", Verdict.FAIL: "FAILS", Verdict.UNSURE: "cannot tell"}[verdict]
