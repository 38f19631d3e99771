"""A sequential test of how much slower a candidate is than its baseline, from calls that were timed in turn.

Each round times both in the order A B B A or B A A B, by the toss of a coin, and gives one number: the log of the
ratio of their medians. What the machine does (drift, bursts, a neighbour) moves both; what is left of it has a random
sign, since the coin gave it that sign. So about the true log ratio the rounds' numbers are symmetric, whatever their
tails and however the machine's noise hangs together in time. For such numbers a bound holds at all times at once:
with z_i the distance from a supposed ratio, cut off and in units of the earlier rounds' spread, S its sum and V the
sum of its squares, the mixture over t of exp(t S - t^2 V / 2) exceeds 1/a at any time with a chance of at most a
(symmetry: de la Pena 1999; mixture: Robbins 1970; confidence sequences: Howard et al. 2021). The ratios for which it
does not exceed 1/a are an interval that may be looked at after every round, and the test may stop when it likes.

A mood of one session that lasts for many rounds would break the symmetry: the coin does not turn it. Therefore V is
enlarged where next rounds are alike or sums over batches of 2, 4, 8, ... rounds spread more than single ones would
have them: that never makes the bound less safe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgetl.records.gate import Verdict

CONFIDENCE = 0.99
"""Chance that an interval covers the true change at every moment of a gate: it fails an equal bundle in at most 1%."""

LEAST_ROUNDS = 16
"""Rounds before a verdict."""

_FIRST = 6
"""Rounds that only measure the spread."""

_WINDOW = 48
"""Earlier rounds that give the spread."""

_CUT = 3.0
"""Where a distance is cut off, in median absolute deviations (2 standard deviations of a normal spread)."""

_MIXTURE = 1.0
"""Inverse variance of t in the mixture: the bound is tightest where V is some ten times that."""

_BATCHES = 8
"""Fewest batches whose sums are squared."""

_MOST_MEMORY = 0.95
_FINE = 1e-5
_WIDE = 3.0


@dataclass(frozen=True, kw_only=True)
class LatencyChange:
    """The relative change of latency: 0.02 is 2% slower. An end that is not known yet is infinite."""

    value: float
    low: float
    high: float


@dataclass
class RatioTest:
    """Rounds in, verdict out. Not frozen: it grows by `add`."""

    confidence: float = CONFIDENCE
    _logs: list[float] = field(default_factory=list)
    _scales: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._logs)

    def add(self, log_ratio: float) -> None:
        """Take a round: the natural log of candidate over baseline."""
        self._scales.append(_scale(self._logs[-_WINDOW:]) if len(self._logs) >= _FIRST else 0.0)
        self._logs.append(log_ratio)

    def verdict(self, limit: float) -> Verdict:
        """Whether the change is surely above `limit` (fail), surely below (pass), or neither yet."""
        if len(self) < LEAST_ROUNDS:
            return Verdict.UNSURE
        total, excluded = self._evidence(math.log1p(limit))
        if not excluded:
            return Verdict.UNSURE
        return Verdict.FAIL if total > 0 else Verdict.PASS

    def change(self) -> LatencyChange:
        """The estimate, where the sum S is 0, and the interval of all changes that are not excluded."""
        if len(self) <= _FIRST:
            return LatencyChange(
                value=math.expm1(float(np.median(self._logs or [0.0]))), low=-1.0, high=math.inf
            )
        centre = self._centre()
        high = self._edge(centre, 1.0)
        low = self._edge(centre, -1.0)
        return LatencyChange(value=math.expm1(centre), low=math.expm1(low), high=math.expm1(high))

    def _evidence(self, log_ratio: float) -> tuple[float, bool]:
        """S, and whether the supposed ratio is excluded."""
        z = self._distances(log_ratio)
        total = float(z.sum())
        # The cheap sum of squares first: most rounds end there.
        if abs(total) < boundary(float(z @ z), self.confidence):
            return total, False
        return total, abs(total) >= boundary(_largest_variance(z), self.confidence)

    def _distances(self, log_ratio: float) -> NDArray[np.float64]:
        logs, scales = np.array(self._logs[_FIRST:]), np.array(self._scales[_FIRST:])
        cut: NDArray[np.float64] = np.clip((logs - log_ratio) / scales, -1.0, 1.0)
        return cut

    def _centre(self) -> float:
        low, high = min(self._logs), max(self._logs)
        while high - low > _FINE:
            middle = (low + high) / 2
            low, high = (middle, high) if self._distances(middle).sum() > 0 else (low, middle)
        return (low + high) / 2

    def _edge(self, centre: float, side: float) -> float:
        """The log ratio nearest to `centre` on that side that is excluded; infinite where none is."""
        inside, step = 0.0, 0.01
        while not self._evidence(centre + side * step)[1]:
            inside, step = step, 2 * step
            if step > _WIDE:
                return side * math.inf
        outside = step
        while outside - inside > _FINE:
            middle = (inside + outside) / 2
            if self._evidence(centre + side * middle)[1]:
                outside = middle
            else:
                inside = middle
        return centre + side * outside


def boundary(variance: float, confidence: float) -> float:
    """The S from which the mixture (t normal, variance 1) exceeds 1 / (1 - confidence) where V is `variance`."""
    spread = variance + _MIXTURE
    return math.sqrt(spread * (math.log(spread / _MIXTURE) - 2 * math.log(1 - confidence)))


def times_longer(change: LatencyChange, limit: float) -> float:
    """How many times the rounds so far it would take to decide, if the change is as estimated: at least 1.

    The interval narrows as one over the root of the rounds, until its nearer end reaches the limit. Infinite where
    the estimate is at the limit.
    """
    away = abs(change.value - limit)
    half = change.high - change.value if change.value < limit else change.value - change.low
    return math.inf if away == 0 or math.isinf(half) else max(1.0, (half / away) ** 2)


def _scale(logs: Sequence[float]) -> float:
    """Three median absolute deviations; above 0, since a coarse clock may give equal rounds."""
    middle = _median(logs)
    return max(_CUT * _median([abs(value - middle) for value in logs]), _FINE)


def _median(values: Sequence[float]) -> float:
    """The upper of two middles: for every round of a long gate, so without the cost of an array."""
    return sorted(values)[len(values) // 2]


def _largest_variance(z: NDArray[np.float64]) -> float:
    """The sum of squares; or what it would be for sums of neighbours that hang together, where that is larger.

    Once by the correlation of next neighbours, as in a series of first order, and once by sums of batches.
    """
    about = z - z.mean()
    power = float(about @ about)
    memory = min(max(float(about[1:] @ about[:-1]) / power, 0.0), _MOST_MEMORY) if power > 0 else 0.0
    largest, size = float(z @ z) * (1 + memory) / (1 - memory), 2
    while len(z) >= _BATCHES * size:
        number = len(z) // size
        sums = about[: number * size].reshape(number, size).sum(axis=1)
        largest, size = max(largest, float(sums @ sums) * number / (number - 1)), 2 * size
    return largest
