"""Two models timed in turn in one process, until it is decided whether the candidate is slower than allowed."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable

import numpy as np

from edgetl.bench.timer import quiet_gc
from edgetl.errors import ConfigError
from edgetl.gate.conditions import Clocks, Round, Watch
from edgetl.gate.sequential import LEAST_ROUNDS, LatencyChange, RatioTest, times_longer
from edgetl.progress import SILENT, Progress
from edgetl.records.gate import LatencyTrial, Verdict

Call = Callable[[], object]

SECONDS = 60.0
"""Longest time for the rounds of a trial."""

LEAST_SECONDS = 2.0
"""Shortest time for them: a shorter one sees one mood of the machine."""

SETTLE = 2
"""Uncounted calls at a block's start: they wake the engine's threads and fill the caches."""

_BLOCK_S = 0.03
_MOST_CALLS = 50

_WARMUP_S = 10.0
_STEADY = 0.03
_STEADY_ROUNDS = 8

_REST_STEP_S = 0.005
_REST_S = 0.5
_REST_SHARE = 0.25

_LONGEST_S = 3600.0
_RESAMPLES = 1000
_CHUNK = 100


class Pair:
    """Two models' calls, timed in rounds: a block of A, two of B, one of A, or the reverse, by the toss of a coin.

    Args:
        baseline: runs the baseline once.
        candidate: runs the candidate once.
        clocks: the clocks.
        seed: of the coin.
        images: how many images a model takes in turn whose time depends on them; 1 where none does. Then each block
            takes every image equally often, and its level is the mean of its calls, else the median.
    """

    def __init__(self, baseline: Call, candidate: Call, clocks: Clocks, seed: int, images: int = 1) -> None:
        self._calls, self._clocks, self._coin = (baseline, candidate), clocks, random.Random(seed)
        self.images, self._level = images, statistics.median if images == 1 else statistics.fmean
        self.block = images
        self.samples: tuple[list[float], list[float]] = ([], [])
        self.warmup, self.restless, self._last = 0, 0, -1

    def round(self) -> Round:
        """Time a round and keep its samples."""
        outer = self._coin.randrange(2)
        taken: tuple[list[float], list[float]] = ([], [])
        for which, calls in ((outer, self.block), (1 - outer, 2 * self.block), (outer, self.block)):
            if which != self._last:
                self.restless += not rest(self._clocks)
                self._last = which
            taken[which].extend(time_block(self._calls[which], calls, self._clocks))
        for kept, new in zip(self.samples, taken, strict=True):
            kept += new
        baseline, current = (self._level(times) for times in taken)
        return Round(baseline_ms=baseline, current_ms=current, least_ms=min(map(min, taken)))

    def warm_up(self, most_seconds: float) -> bool:
        """Run uncounted rounds until neither model gets faster; False where one still does when the time is up."""
        start, first = self._clocks.monotonic(), self.round()
        slower = max(first.baseline_ms, first.current_ms, 1e3 * _BLOCK_S / _MOST_CALLS)
        self.block = self.images * max(1, round(1e3 * _BLOCK_S / slower / self.images))
        rounds: list[Round] = []
        while len(rounds) < _STEADY_ROUNDS or _get_faster(rounds):
            if self._clocks.monotonic() - start >= most_seconds * 1e9:
                break
            rounds.append(self.round())
        self.warmup, self.samples, self.restless = len(self.samples[0]), ([], []), 0
        return not _get_faster(rounds)


def race(
    baseline: Call,
    candidate: Call,
    *,
    limit: float,
    seconds: float = SECONDS,
    seed: int = 0,
    images: int = 1,
    clocks: Clocks | None = None,
    progress: Progress = SILENT,
) -> LatencyTrial:
    """Time both in turn until the candidate is surely slower than `limit` allows, surely not, or the time is up.

    Args:
        baseline: runs the baseline once.
        candidate: runs the candidate once.
        limit: the largest increase of the median that passes; 0.025 is 2.5%.
        seconds: longest time for the rounds, after a warm-up of at most ten seconds.
        seed: of the coin that orders the rounds.
        images: see `Pair`; with more than one, means are judged in place of medians.
        clocks: the clocks; fake ones in tests.
        progress: shows the seconds, with the estimate so far.

    Raises:
        ConfigError: `seconds` is not above 0, or `limit` is not a share from 0 up.
    """
    rules = [
        (0 < seconds < math.inf, f"seconds is {seconds}, expected more than 0."),
        (0 <= limit < math.inf, f"limit is {limit}, expected a share from 0 up."),
    ]
    if problems := [sentence for holds, sentence in rules if not holds]:
        raise ConfigError(problems)
    clocks, test, verdict = clocks or Clocks(), RatioTest(), Verdict.UNSURE
    pair = Pair(baseline, candidate, clocks, seed, images)
    with quiet_gc(), progress.task("Timing both in turn", math.ceil(seconds)) as bar:
        steady = pair.warm_up(min(_WARMUP_S, seconds))
        watch, shown = Watch(clocks), 0
        while watch.see(taken := pair.round()):
            test.add(taken.log_ratio)
            verdict, spent = test.verdict(limit), watch.seconds
            if verdict is not Verdict.UNSURE and spent >= min(LEAST_SECONDS, seconds):
                break
            if spent * (1 + 1 / len(test)) > seconds:
                break
            if int(spent) > shown:
                bar.advance(int(spent) - shown, _short(test.change()))
                shown = int(spent)
        else:
            verdict = Verdict.UNSURE
    notes = list(watch.notes())
    if not steady:
        notes.insert(0, "The calls still got faster when the warm-up ended.")
    if pair.restless:
        notes.append(f"The engine's threads did not come to rest before {pair.restless} of the blocks.")
    return _trial(pair, test, verdict, limit, watch.seconds, tuple(notes))


def rest(clocks: Clocks) -> bool:
    """Wait until this process uses no processor time; False where it still does after half a second.

    Threads of ONNX Runtime spin for a while after a call (some 60 ms); on few cores they would slow down the next
    model's. Two steps in a row must be quiet, since kernels count processor time in ticks of up to 10 ms.
    """
    begun, quiet = clocks.monotonic(), 0
    while quiet < 2 and (start := clocks.monotonic()) - begun < _REST_S * 1e9:
        used = clocks.cpu()
        clocks.sleep(_REST_STEP_S)
        quiet = quiet + 1 if clocks.cpu() - used <= _REST_SHARE * (clocks.monotonic() - start) else 0
    return quiet == 2


def time_block(call: Call, block: int, clocks: Clocks) -> list[float]:
    """Settle, then time `block` calls one after the other, in milliseconds."""
    for _ in range(min(SETTLE, block)):
        call()
    times = []
    for _ in range(block):
        start = clocks.monotonic()
        call()
        times.append((clocks.monotonic() - start) / 1e6)
    return times


def _get_faster(rounds: list[Round]) -> bool:
    """Whether the later half of the last rounds is faster than the earlier half by more than 3%, in either model."""
    last = rounds[-_STEADY_ROUNDS:]
    half = len(last) // 2
    if half < 2:
        return False
    for levels in ([r.baseline_ms for r in last], [r.current_ms for r in last]):
        if statistics.median(levels[half:]) < (1 - _STEADY) * statistics.median(levels[:half]):
            return True
    return False


def _trial(
    pair: Pair, test: RatioTest, verdict: Verdict, limit: float, seconds: float, notes: tuple[str, ...]
) -> LatencyTrial:
    change = test.change()
    p99 = _p99(*pair.samples, rounds=len(pair.samples[0]) // (2 * pair.block))
    bounded = change.low > -1 and math.isfinite(change.high)
    return LatencyTrial(
        verdict=verdict,
        limit=limit,
        change=change.value,
        interval=(change.low, change.high) if bounded else None,
        confidence=test.confidence,
        p99_change=None if p99 is None else p99[0],
        p99_interval=None if p99 is None else p99[1:],
        rounds=len(test),
        seconds=seconds,
        seconds_needed=_needed(test, change, limit, seconds) if verdict is Verdict.UNSURE and p99 else None,
        warmup=pair.warmup,
        baseline_ms=tuple(pair.samples[0]),
        current_ms=tuple(pair.samples[1]),
        notes=notes,
        images=pair.images,
    )


def _needed(test: RatioTest, change: LatencyChange, limit: float, seconds: float) -> float | None:
    """Seconds that would have decided it; None where it would take more than an hour."""
    if len(test) < LEAST_ROUNDS:
        return 2 * LEAST_ROUNDS * seconds / len(test)
    needed = seconds * times_longer(change, limit)
    return needed if needed <= _LONGEST_S else None


def _p99(baseline: list[float], current: list[float], rounds: int) -> tuple[float, float, float] | None:
    """Relative change of the 99th percentile, with a 95% bootstrap interval over whole rounds (paired).

    None where the clock gave a time of 0 or less.
    """
    if min(*baseline, *current) <= 0:
        return None
    pair = np.array([baseline, current]).reshape(2, rounds, -1)
    generator, changes = np.random.default_rng(0), []
    for _ in range(_RESAMPLES // _CHUNK):
        drawn = pair[:, generator.integers(0, rounds, (_CHUNK, rounds))].reshape(2, _CHUNK, -1)
        before, after = np.percentile(drawn, 99, axis=2)
        changes.append(after / before - 1)
    low, high = np.quantile(np.concatenate(changes), [0.025, 0.975])
    before, after = np.percentile(pair.reshape(2, -1), 99, axis=1)
    return float(after / before - 1), float(low), float(high)


def _short(change: LatencyChange) -> str:
    if change.low <= -1 or math.isinf(change.high):
        return f"{change.value:+.1%}"
    return f"{change.value:+.1%} ({change.low:+.1%} to {change.high:+.1%})"
