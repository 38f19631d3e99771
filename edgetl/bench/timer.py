"""Wall time of calls, by the monotonic clock.

Calls that are to be compared are timed interleaved: on a shared machine the same program may differ by a
quarter between two moments, but neighbouring calls see the same machine.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from edgetl.errors import ConfigError
from edgetl.progress import SILENT, Progress

Clock = Callable[[], int]
"""A monotonic clock in nanoseconds."""

PAUSE_S = 0.05
"""Before every block of calls of engines that are compared: ONNX Runtime's threads still spin for tens of milliseconds
after a call and would slow down the next engine's, eager torch's most."""
SETTLE, BLOCK = 3, 5
"""A block: calls that wake the engine's threads, then calls that are timed, one after the other."""
_BLOCK_MS, _LONGEST = 15.0, 30

_EVERY_ROUND: Mapping[str, int] = MappingProxyType({})

# A bar that is redrawn after every call would take part in the measurement.
_REPORTS = 20


@contextmanager
def quiet_gc() -> Iterator[None]:
    """Collect garbage now and keep the collector off inside the block, so that no sample pays for it."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    warmup: int,
    runs: int,
    seed: int = 0,
    pause_s: float = 0.0,
    settle: int = 0,
    block: int = 1,
    every: Mapping[str, int] = _EVERY_ROUND,
    clock: Clock = time.perf_counter_ns,
    progress: Progress = SILENT,
    title: str = "",
) -> dict[str, list[float]]:
    """Time several calls in turn, each `block` times per round, in an order shuffled anew every round.

    Sample i of every name that takes part in each round comes from round i, so samples can be compared in pairs. All
    samples are kept.

    Args:
        calls: what to time, by name.
        warmup: rounds that are run first and not counted.
        runs: rounds that are counted.
        seed: of the order.
        pause_s: sleep before every block, in seconds. Engines whose threads spin for a while after a call
            (ONNX Runtime does) would else slow down the calls of another engine.
        settle: uncounted calls after the pause, which wake the engine's threads and fill the caches.
        block: calls that are timed one after the other.
        every: names that take part in every so-manyth round only; they may end without a sample.
        clock: the clock, in nanoseconds.
        progress: shows the rounds, seldom.
        title: what the bar is called; by the calls' names where empty.

    Returns:
        `runs` samples in milliseconds for each name, rounded up to whole blocks.

    Raises:
        ConfigError: nothing to time, or fewer than one run.
    """
    if not calls or runs < 1 or warmup < 0:
        raise ConfigError(
            f"Timing needs a call and a run: got {len(calls)} calls, {runs} runs, {warmup} warm-ups."
        )
    names, order = list(calls), random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in names}
    unmeasured = -(-warmup // block)
    rounds = unmeasured - (-runs // block)
    stride = max(1, rounds // _REPORTS)
    with progress.task(title or "Timing " + ", ".join(names), rounds) as bar, quiet_gc():
        for turn in range(rounds):
            order.shuffle(names)
            for name in names:
                if turn % every.get(name, 1):
                    continue
                if pause_s:
                    time.sleep(pause_s)
                for _ in range(settle):
                    calls[name]()
                elapsed = [_time_once(calls[name], clock) for _ in range(block)]
                if turn >= unmeasured:
                    samples[name] += elapsed
            if (turn + 1) % stride == 0:
                bar.advance(stride)
    return samples


def time_calls(
    call: Callable[[], object],
    *,
    warmup: int,
    runs: int,
    clock: Clock = time.perf_counter_ns,
    progress: Progress = SILENT,
) -> list[float]:
    """Time one call `runs` times after `warmup` uncounted ones; milliseconds."""
    return time_interleaved({"calls": call}, warmup=warmup, runs=runs, clock=clock, progress=progress)[
        "calls"
    ]


def block_of(calls: Mapping[str, Callable[[], object]]) -> tuple[int, int]:
    """The settling and the timed calls of a block: more than `SETTLE` and `BLOCK` where a call takes so little time
    that these would end before caches and clock are what they are in a row of calls.

    Args:
        calls: what is to be timed; the fastest decides.
    """
    fastest = min(statistics.median(time_calls(call, warmup=SETTLE, runs=BLOCK)) for call in calls.values())
    block = min(max(BLOCK, round(_BLOCK_MS / fastest)), _LONGEST)
    return max(SETTLE, block // 3), block


def _time_once(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return (clock() - start) / 1e6
