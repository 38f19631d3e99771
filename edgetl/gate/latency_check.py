"""The latency line of a gate: of two bundles timed in turn, or of a bundle against a stored figure."""

from __future__ import annotations

import math
from statistics import NormalDist

from edgetl.gate.sequential import CONFIDENCE
from edgetl.records.gate import GateCheck, LatencyTrial, Verdict
from edgetl.records.measured import Latency

UNKNOWN_SPREAD = 0.26 / math.sqrt(2)
"""Relative standard deviation of median latency between runs where the machine's own is not known.

Two runs of one binary differ by 26% between CI jobs (public figures); a difference of two runs spreads by the root
of two times one run's.
"""

_STUDENT = 4.6041
"""Student's t at 99.5% with 4 degrees of freedom: a spread that was itself estimated, from five runs at least."""


def check_trial(baseline: Latency, current: Latency, trial: LatencyTrial) -> GateCheck:
    """Two models timed in turn."""
    mean = trial.images > 1
    how = f"{trial.rounds} rounds in turn, {trial.seconds:.0f} s" + (
        f", {trial.images} images" if mean else ""
    )
    sentence = (
        f"{_levels(baseline, current, mean)}: {_percent(trial.change)} "
        f"({_interval(trial.interval, trial.confidence)}; {how}){_p99(trial)}; {_allowed(trial.limit)}: "
    )
    match trial.verdict:
        case Verdict.PASS:
            sentence += "passes."
        case Verdict.FAIL:
            sentence += "FAILS."
        case Verdict.UNSURE:
            sentence += f"CANNOT TELL. {_remedy(trial)}"
    return GateCheck(
        name="latency",
        unit="ms",
        baseline=_level(baseline, mean),
        current=_level(current, mean),
        change=trial.change,
        interval=trial.interval,
        limit=trial.limit,
        judged=True,
        verdict=trial.verdict,
        sentence=" ".join((sentence, *trial.notes)),
    )


def check_stored(
    baseline: Latency,
    current: Latency,
    limit: float,
    *,
    spread: float | None,
    judged: bool,
    mean: bool = False,
) -> GateCheck:
    """A run of now against a run of another time.

    Between two runs a machine differs from itself by far more than the samples of one run show, so the interval is
    that of the spread between runs: of a difference of two runs, in the log of the median.

    Args:
        baseline: the stored run.
        current: the run of now.
        limit: the largest increase of the median that passes.
        spread: relative standard deviation of the median between runs of one bundle on this machine, from five runs
            or more; `UNKNOWN_SPREAD` where unset.
        judged: False shows the figures only.
        mean: judge the mean in place of the median: a cascade is one of the two.
    """
    was, is_now = _level(baseline, mean), _level(current, mean)
    used = UNKNOWN_SPREAD if spread is None else spread
    log_ratio = math.log(is_now / was)
    half = (NormalDist().inv_cdf((1 + CONFIDENCE) / 2) if spread is None else _STUDENT) * used * math.sqrt(2)
    low, change, high = (math.expm1(log_ratio + side * half) for side in (-1, 0, 1))
    source = (
        "as others do; name a history of five runs or more (--history) to know"
        if spread is None
        else "as its history says"
    )
    sentence = (
        f"{_levels(baseline, current, mean)}: {_percent(change)} ({_interval((low, high), CONFIDENCE)}: the machine "
        f"differs from itself by {used:.1%} between runs, {source}); "
    )
    verdict = _against(low, high, limit) if judged else Verdict.PASS
    if not judged:
        sentence += "not judged, since the machines differ."
    elif verdict is Verdict.UNSURE:
        sentence += f"{_allowed(limit)}: CANNOT TELL. Time both bundles in one run: --against OTHER_BUNDLE."
    else:
        sentence += f"{_allowed(limit)}: {'passes' if verdict is Verdict.PASS else 'FAILS'}."
    return GateCheck(
        name="latency",
        unit="ms",
        baseline=was,
        current=is_now,
        change=change,
        interval=(low, high),
        limit=limit,
        judged=judged,
        verdict=verdict,
        sentence=sentence,
    )


def _against(low: float, high: float, limit: float) -> Verdict:
    if high <= limit:
        return Verdict.PASS
    return Verdict.FAIL if low > limit else Verdict.UNSURE


def _level(latency: Latency, mean: bool) -> float:
    return latency.mean_ms if mean else latency.p50_ms


def _levels(baseline: Latency, current: Latency, mean: bool) -> str:
    which = "Mean" if mean else "Median"
    return f"{which} latency went from {_level(baseline, mean):.3g} ms to {_level(current, mean):.3g} ms"


def _interval(interval: tuple[float, float] | None, confidence: float) -> str:
    if interval is None:
        return "too few rounds for an interval"
    return f"{confidence:.0%} interval {_percent(interval[0])} to {_percent(interval[1])}"


def _p99(trial: LatencyTrial) -> str:
    if trial.p99_change is None or trial.p99_interval is None:
        return ""
    low, high = trial.p99_interval
    return f", p99 {_percent(trial.p99_change)} (95% interval {_percent(low)} to {_percent(high)})"


def _remedy(trial: LatencyTrial) -> str:
    if trial.p99_change is None:
        return "Mend the clock first."
    if trial.seconds_needed is None:
        return "No time within an hour would; measure on a quieter machine, or allow another increase."
    return f"Some {_round_up(trial.seconds_needed)} s of rounds would: --seconds {_round_up(trial.seconds_needed)}."


def _round_up(seconds: float) -> int:
    """To ten seconds: an estimate is no more exact."""
    return 10 * math.ceil(seconds / 10)


def _allowed(limit: float) -> str:
    return f"an increase of {100 * limit:.3g}% is allowed"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}%"
