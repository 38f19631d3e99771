"""Judging a multi-label classifier on the same images before and after: macro-F1, each class's recall and false alarms.

The rule is that of `edgetl.tasks.classification.judge`, with macro-F1 in the place of top-1: it
passes where the lower end of its paired bootstrap interval lies above the allowed drop, fails where the measured drop
exceeds it and is significant, and is else unsure. Recall is over the images of a class, freedom from false alarms
(specificity) over all others; both are guards, class by class with Holm's (1979) correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.gate import GateCheck, Verdict
from edgetl.records.scores import Scores, score
from edgetl.statistics import difference_interval
from edgetl.tasks.base import ScoreLimits
from edgetl.tasks.judging import (
    LEVEL,
    MISS,
    ROUNDING,
    check,
    class_check,
    drop,
    points,
    settled_margin,
    verdict_word,
)
from edgetl.tasks.multilabel.scores import f1_of

_DRAWS = 2000
_LEAST_DRAWS = 400
_WORK = 200_000_000


def judge(
    truths: NDArray[Any],
    before: NDArray[Any],
    after: NDArray[Any],
    labels: Sequence[str],
    limits: ScoreLimits,
) -> tuple[GateCheck, GateCheck, GateCheck]:
    """Hold answers to earlier ones on the same images, all (N, C) bool.

    Returns:
        The checks `macro-F1`, `recall` and `false alarms`.

    Raises:
        TensorError: shapes do not fit, or there are no images.
    """
    if not len(truths) or not truths.shape == before.shape == after.shape == (len(truths), len(labels)):
        raise TensorError(
            f"truths {truths.shape}, before {before.shape} and after {after.shape}: expected (N, {len(labels)}) each, "
            "of one image or more."
        )
    same = limits.same_model and bool((before == after).all())
    return (
        _macro_f1(truths, before, after, limits, same),
        _guard("recall", "recall", "Recall", labels, truths, before & truths, after & truths, limits),
        _guard(
            "false alarms",
            "share",
            "The share without false alarms",
            labels,
            ~truths,
            ~before & ~truths,
            ~after & ~truths,
            limits,
        ),
    )


def _guard(
    name: str,
    unit: str,
    what: str,
    labels: Sequence[str],
    members: NDArray[np.bool_],
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    limits: ScoreLimits,
) -> GateCheck:
    support, hits, lost, won = (a.sum(axis=0) for a in (members, before, before & ~after, after & ~before))
    return class_check(name, unit, what, labels, support, hits, lost, won, limits.max_class_drop)


def judge_unpaired(before: Scores, after: Scores, limits: ScoreLimits) -> GateCheck:
    """Hold macro-F1 to an earlier one where no answers are at hand, from both intervals (Newcombe 1998, method 10)."""
    was, now = score(before, "macro_f1"), score(after, "macro_f1")
    low, high = difference_interval(
        (was.value, was.interval or (0.0, 1.0)), (now.value, now.interval or (0.0, 1.0))
    )
    allowed = settled_margin(after.images) if limits.max_drop is None else limits.max_drop
    return _check(was.value, now.value, (low, high), allowed, high < 0, limits.same_model, after.images)


def _macro_f1(
    truths: NDArray[np.bool_],
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    limits: ScoreLimits,
    same: bool,
) -> GateCheck:
    images = len(truths)
    first, second = (_mean_f1(truths, answers, None) for answers in (before, after))
    draws = int(np.clip(_WORK // max(1, truths.size), _LEAST_DRAWS, _DRAWS))
    generator, found = np.random.default_rng(0), np.empty(draws)
    for draw in range(draws):
        weights = generator.multinomial(images, np.full(images, 1 / images)).astype(np.float64)
        found[draw] = _mean_f1(truths, after, weights) - _mean_f1(truths, before, weights)
    low, high = (float(v) for v in np.quantile(found, [MISS, 1 - MISS]))
    allowed = settled_margin(images) if limits.max_drop is None else limits.max_drop
    sure = float((found >= 0).mean()) <= LEVEL
    return _check(first, second, (low, high), allowed, sure, same, images)


def _mean_f1(
    truths: NDArray[np.bool_], answers: NDArray[np.bool_], weights: NDArray[np.float64] | None
) -> float:
    present = truths.any(axis=0) if weights is None else weights @ truths > 0
    return float(f1_of(truths, answers, weights)[present].mean()) if present.any() else 0.0


def _check(
    before: float,
    after: float,
    interval: tuple[float, float],
    allowed: float,
    significant: bool,
    same: bool,
    images: int,
) -> GateCheck:
    change = after - before
    beyond = -change > allowed + ROUNDING
    if same or (allowed == 0 and not beyond) or interval[0] > -allowed:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.FAIL if beyond and (significant or allowed == 0) else Verdict.UNSURE
    low, high = interval
    sentence = (
        f"Macro-F1 went from {before:.1%} to {after:.1%} on {images:,} images: {points(change)} points (90% interval "
        f"{points(low)} to {points(high)}); a drop of {drop(allowed)} is allowed: {verdict_word(verdict)}."
    )
    if verdict is Verdict.UNSURE:
        sentence += " More images would settle it."
    return check("macro-F1", "macro-F1", before, after, interval, allowed, verdict, sentence)
