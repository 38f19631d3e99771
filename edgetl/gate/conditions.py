"""What went on while two models were timed in turn: a clock that jumped, a machine that slowed down in the middle."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetl.bench.sensors import throttle_events
from edgetl.bench.timer import Clock

_JUMP_S = 0.25
_SLOWER = 0.10
_CHANCE = 0.001


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """Clocks in nanoseconds, and how to wait seconds; fakes in tests. `cpu` is this process's processor time."""

    monotonic: Clock = time.perf_counter_ns
    wall: Clock = time.time_ns
    cpu: Clock = time.process_time_ns
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, kw_only=True)
class Round:
    """Medians of both models' calls in one round, and the shortest of all the calls, in milliseconds."""

    baseline_ms: float
    current_ms: float
    least_ms: float

    @property
    def log_ratio(self) -> float:
        """Natural log of current over baseline."""
        return math.log(self.current_ms / self.baseline_ms)


class Watch:
    """Looks on from the first round to the last; `notes` says in sentences what was odd.

    Args:
        clocks: the monotonic clock, which times the calls, and the wall clock.
        root: where `sys` is; another folder in tests.
    """

    def __init__(self, clocks: Clocks, root: Path = Path("/")) -> None:
        self._clocks, self._root = clocks, root
        self._throttled = throttle_events(root) or 0
        self._start = clocks.monotonic()
        self._apart = clocks.wall() - self._start
        self._levels: list[float] = []
        self._times: list[float] = []
        self._jumps: list[str] = []

    @property
    def seconds(self) -> float:
        """Time since the first round began."""
        return (self._clocks.monotonic() - self._start) / 1e9

    def see(self, taken: Round) -> bool:
        """Take a round. False where a sample is not above 0: then the clock cannot be trusted."""
        seconds, apart = self.seconds, self._clocks.wall() - self._clocks.monotonic()
        if abs(jump := (apart - self._apart) / 1e9) > _JUMP_S:
            self._jumps.append(
                f"The wall clock moved by {jump:+.1f} s against the monotonic one after {seconds:.0f} s: it was set, "
                "or the machine slept."
            )
            self._apart = apart
        if taken.least_ms <= 0:
            self._jumps.append(
                f"The clock read {taken.least_ms:.3g} ms for a call after {seconds:.0f} s: it stood "
                "still or went backwards, and cannot be trusted."
            )
            return False
        self._times.append(seconds)
        self._levels.append(math.log(taken.baseline_ms * taken.current_ms) / 2)
        return True

    def notes(self) -> tuple[str, ...]:
        """What was odd, a sentence each."""
        notes = list(self._jumps)
        if at := level_change(self._levels):
            before, after = np.median(self._levels[:at]), np.median(self._levels[at:])
            share = math.expm1(float(after - before))
            if share >= _SLOWER or share <= -_SLOWER / (1 + _SLOWER):
                way = "slower: it may throttle, or share its processor" if share > 0 else "faster"
                notes.append(
                    f"After {self._times[at - 1]:.0f} s both ran {abs(share):.0%} {way}. The ratio holds, since both "
                    "were timed in turn; the milliseconds do not."
                )
        if (events := (throttle_events(self._root) or 0) - self._throttled) > 0:
            notes.append(f"The processor throttled {events} times for heat.")
        return tuple(notes)


def level_change(values: Sequence[float]) -> int:
    """Where the level of a series changes: the index of the new level's first value; 0 where it surely does not.

    Pettitt's rank test (1979) at a chance of one in a thousand.
    """
    series, n = np.asarray(values), len(values)
    if n < 2:
        return 0
    ranks = (series[:, None] > series).sum(axis=1) + ((series[:, None] == series).sum(axis=1) + 1) / 2
    sums = 2 * np.cumsum(ranks) - np.arange(1, n + 1) * (n + 1)
    at = int(np.abs(sums).argmax())
    chance = 2 * math.exp(-6 * float(sums[at]) ** 2 / (n**3 + n**2))
    return at + 1 if chance <= _CHANCE else 0
