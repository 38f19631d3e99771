"""Warm-up until the calls are steady, instead of a fixed number of calls.

Barrett et al. 2017 ("Virtual machine warmup blows hot and cold") call a process steady once its last stretch holds no
change point. Here the last stretch is a sliding window, tested after every third of it, and the search is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edgetl.bench.changes import change_points
from edgetl.bench.timer import Clock, quiet_gc

WINDOW = 30
MOST_CALLS = 1000
MOST_SECONDS = 10.0

# Clock governors need about that long to answer a load.
_LEAST_SECONDS = 0.1
_LEVEL = 0.01
_LEAST = 0.05


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How many calls it took, and whether the last ones were steady; `steady` is None for a fixed number of calls."""

    calls: int
    steady: bool | None
    seconds: float


def until_steady(
    call: Callable[[], object], *, clock: Clock = time.perf_counter_ns, most_seconds: float = MOST_SECONDS
) -> WarmUp:
    """Call until the last 30 calls hold no change of level by 5%; at least a tenth of a second or 1000 calls.

    After 1000 calls or `most_seconds` it ends, steady or not.
    """
    samples: list[float] = []
    with quiet_gc():
        start = last = clock()
        while True:
            call()
            now = clock()
            samples.append(max(now - last, 1))
            last, seconds = now, (now - start) / 1e9
            full = len(samples) >= WINDOW and len(samples) % (WINDOW // 3) == 0
            spent = len(samples) >= MOST_CALLS
            ready = full and (spent or seconds >= _LEAST_SECONDS)
            if ready and not change_points(samples[-WINDOW:], level=_LEVEL, least=_LEAST):
                return WarmUp(calls=len(samples), steady=True, seconds=seconds)
            if spent or seconds >= most_seconds:
                return WarmUp(calls=len(samples), steady=False, seconds=seconds)
            last = clock()


def warm_up(call: Callable[[], object], calls: int | None, *, clock: Clock = time.perf_counter_ns) -> WarmUp:
    """Call `calls` times, or until steady where unset."""
    if calls is None:
        return until_steady(call, clock=clock)
    start = clock()
    for _ in range(calls):
        call()
    return WarmUp(calls=calls, steady=None, seconds=(clock() - start) / 1e9)
