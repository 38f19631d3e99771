"""What the clock itself costs, so that it is not counted as the model's time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from edgetl.bench.timer import Clock, time_calls

_CALLS = 1001


def overhead_ns(clock: Clock) -> float:
    """Median time in nanoseconds that `time_calls` reads for a call that does nothing."""
    return statistics.median(time_calls(_nothing, warmup=_CALLS // 10, runs=_CALLS, clock=clock)) * 1e6


def less_overhead(samples_ms: Sequence[float], overhead: float) -> list[float]:
    """Samples without the timer's own nanoseconds, 0 at least; a negative one stays, for the statistics to refuse."""
    return [s if s < 0 else max(s - overhead / 1e6, 0.0) for s in samples_ms]


def _nothing() -> None:
    pass
