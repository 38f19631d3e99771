"""The order of candidates, the frontier of score against latency, and which one is proposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgetl.records.scores import Score
from edgetl.records.transfer import Candidate
from edgetl.statistics import Z95
from edgetl.tasks.metrics import metric


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """The position of the proposed candidate, and why it is, in one sentence."""

    position: int
    reason: str


def ranked(candidates: Sequence[Candidate], budget_ms: float | None) -> tuple[Candidate, ...]:
    """The candidates by score, then LogME, then latency, with their place on the frontier and in the budget marked."""
    order = sorted(candidates, key=lambda c: (-c.score.value, -c.logme, c.latency.p50_ms))
    return tuple(
        replace(
            one,
            frontier=not any(_dominates(other, one) for other in order),
            within_budget=None if budget_ms is None else one.latency.p50_ms <= budget_ms,
        )
        for one in order
    )


def propose(candidates: Sequence[Candidate], metric_name: str, budget_ms: float | None) -> Proposal:
    """Choose one of some ranked candidates.

    With a budget it is the best that keeps it. Without one, and where none does, it is the fastest whose score lies
    within one standard error of the best's (the rule of Breiman et al., "Classification and Regression Trees", 1984,
    section 3.4.3): what so few images cannot tell apart is not worth milliseconds.

    Args:
        candidates: from `ranked`, at least one.
        metric_name: by which they are ranked.
        budget_ms: the median latency that may not be exceeded.
    """
    title = metric(metric_name).title
    if budget_ms is None:
        return _simplest(candidates, title)
    fitting = [one for one in candidates if one.latency.p50_ms <= budget_ms]
    if fitting:
        best = fitting[0]
        reason = (
            f"{best.name} has the best {title} of the {len(fitting)} of {len(candidates)} within {budget_ms:g} ms:"
            f" {best.score.value:.1%} in {best.latency.p50_ms:.2f} ms"
        )
        return Proposal(position=candidates.index(best), reason=reason)
    fastest = min(candidates, key=lambda one: one.latency.p50_ms)
    otherwise = _simplest(candidates, title)
    reason = (
        f"none keeps within {budget_ms:g} ms uncut (the fastest, {fastest.name}, takes"
        f" {fastest.latency.p50_ms:.2f} ms), so that pruning must cut it to the budget; without one, {otherwise.reason}"
    )
    return Proposal(position=otherwise.position, reason=reason)


def _simplest(candidates: Sequence[Candidate], title: str) -> Proposal:
    """The fastest of those as good as the best."""
    best = candidates[0]
    error = standard_error(best.score)
    near = [one for one in candidates if one.score.value >= best.score.value - error]
    chosen = min(near, key=lambda one: one.latency.p50_ms)
    position = candidates.index(chosen)
    if position == 0:
        reason = (
            f"{best.name} has the best {title}, {best.score.value:.1%}, and nothing faster comes within one standard"
            f" error of it ({100 * error:.1f} points)"
        )
    else:
        reason = (
            f"{chosen.name} ({chosen.score.value:.1%}, {chosen.latency.p50_ms:.2f} ms) is the fastest within one"
            f" standard error ({100 * error:.1f} points) of the best {title}, {best.score.value:.1%} of {best.name}"
            f" ({best.latency.p50_ms:.2f} ms)"
        )
    return Proposal(position=position, reason=reason)


def standard_error(score: Score) -> float:
    """Of a score, from its 95% interval; 0 where it has none."""
    return 0.0 if score.interval is None else (score.interval[1] - score.interval[0]) / (2 * Z95)


def _dominates(first: Candidate, second: Candidate) -> bool:
    """Whether `first` is at least as good and as fast, and better in one of these."""
    one, other = (first.score.value, -first.latency.p50_ms), (second.score.value, -second.latency.p50_ms)
    return one != other and one[0] >= other[0] and one[1] >= other[1]
