"""A machine in slow motion: calls and waiting move the clocks, nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edgetl.gate.conditions import Clocks


@dataclass
class FakeMachine:
    """`speed(seconds)` multiplies every call's time; `spin_s` is how long threads spin after a call."""

    speed: Callable[[float], float] = lambda seconds: 1.0
    noise: float = 0.02
    spin_s: float = 0.0
    wall_offset_ns: int = 10**18
    now_ns: int = 0
    calls: int = 0
    _spins_until: int = 0
    _cpu: int = 0
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def clocks(self) -> Clocks:
        return Clocks(
            monotonic=lambda: self.now_ns,
            wall=lambda: self.now_ns + self.wall_offset_ns,
            cpu=lambda: self._cpu,
            sleep=self._sleep,
        )

    def call(self, ms: float) -> Callable[[], None]:
        def run() -> None:
            self.calls += 1
            factor = self.speed(self.now_ns / 1e9) * self._random.lognormal(0, self.noise)
            self.now_ns += int(ms * 1e6 * factor)
            self._spins_until = self.now_ns + int(self.spin_s * 1e9)

        return run

    def _sleep(self, seconds: float) -> None:
        start = self.now_ns
        self.now_ns += int(seconds * 1e9)
        self._cpu += max(0, min(self.now_ns, self._spins_until) - start)
