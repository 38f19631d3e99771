"""One thread or all of them: with which number calls are faster, in little more time than it takes to time one number.

On a small network a second thread may cost more than it gives. All calls are first timed with both numbers for a few
rounds, those in doubt for a few more, and from then on the slower number takes part in every eighth round only.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgetl.bench.statistics import EQUAL, median_ratio
from edgetl.bench.timer import BLOCK, PAUSE_S, SETTLE, time_interleaved
from edgetl.progress import SILENT, Progress

Calls = Mapping[int, Callable[[], object]]
"""The same call by its number of threads."""
SELDOM = 8
"""The slower number is timed in every so-manyth round."""
_WARM_ROUNDS, _ROUNDS, _MORE_ROUNDS = 1, 4, 4


@dataclass(frozen=True, kw_only=True)
class ThreadTimes:
    """Samples in milliseconds with the better number of threads, and with the other one where two were tried.

    `samples_ms` of several calls can be compared in pairs, see `time_interleaved`.
    """

    threads: int
    samples_ms: tuple[float, ...]
    other_threads: int | None = None
    other_ms: tuple[float, ...] = ()


def numbers_of(most: int) -> tuple[int, ...]:
    """The numbers of threads that are tried: one, and the most."""
    return (1, most) if most > 1 else (1,)


def time_threads(
    calls: Mapping[str, Calls],
    *,
    warmup: int,
    runs: int,
    pause_s: float = PAUSE_S,
    settle: int = SETTLE,
    block: int = BLOCK,
    progress: Progress = SILENT,
) -> dict[str, ThreadTimes]:
    """Time calls in turn, each with its better number of threads.

    Of two numbers that are equally fast within the measurement the smaller one is better.

    Args:
        calls: what to time, by name, each with one or two numbers of threads.
        warmup, runs, pause_s, settle, block: as in `time_interleaved`.
        progress: shows the rounds.

    Raises:
        ConfigError: as `time_interleaved` does.
    """
    chosen = {name: next(iter(by_threads)) for name, by_threads in calls.items()}
    open_ = {name: by_threads for name, by_threads in calls.items() if len(by_threads) > 1}
    tried: dict[tuple[str, int], list[float]] = {
        (name, number): [] for name, by_threads in open_.items() for number in by_threads
    }
    for rounds, warm in ((_ROUNDS, _WARM_ROUNDS), (_MORE_ROUNDS, 0)):
        if not open_:
            break
        timed = time_interleaved(
            {f"{name}/{number}": call for name, by in open_.items() for number, call in by.items()},
            warmup=warm * block,
            runs=rounds * block,
            pause_s=pause_s,
            settle=settle,
            block=block,
            progress=progress,
            title="Timing one thread and all",
        )
        for (name, number), samples in tried.items():
            samples += timed.get(f"{name}/{number}", [])
        doubtful = {}
        for name, by_threads in open_.items():
            few, many = (tried[name, number] for number in sorted(by_threads))
            chosen[name], sure = _better(sorted(by_threads), few, many)
            if not sure:
                doubtful[name] = by_threads
        open_ = doubtful
    losers = {
        f"{name}/{number}": call
        for name, by_threads in calls.items()
        for number, call in by_threads.items()
        if number != chosen[name]
    }
    winners = {name: by_threads[chosen[name]] for name, by_threads in calls.items()}
    timed = time_interleaved(
        {**winners, **losers},
        warmup=warmup,
        runs=runs,
        pause_s=pause_s,
        settle=settle,
        block=block,
        every=dict.fromkeys(losers, SELDOM),
        progress=progress,
        title="Timing " + ", ".join(winners),
    )
    found = {}
    for name, by_threads in calls.items():
        other = next((number for number in by_threads if number != chosen[name]), None)
        found[name] = ThreadTimes(
            threads=chosen[name],
            samples_ms=tuple(timed[name]),
            other_threads=other,
            other_ms=() if other is None else tuple(timed[f"{name}/{other}"] or tried[name, other]),
        )
    return found


def _better(numbers: Sequence[int], few: Sequence[float], many: Sequence[float]) -> tuple[int, bool]:
    """The better number, and whether that is beyond doubt; paired samples with fewer threads and with more."""
    least, most = numbers
    if statistics.median(many) <= 0 or statistics.median(few) <= 0:
        return least, True  # the clock is too coarse for this call
    ratio = median_ratio(few, many, paired=True)
    if ratio.low > 1.0:
        return least, True
    if ratio.high * EQUAL < 1.0:
        return most, True
    return (most if ratio.value * EQUAL < 1.0 else least), False
