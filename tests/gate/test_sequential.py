"""The sequential test: what it says, and that it errs no more often than it claims, whatever the noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate

from edgetl.gate.sequential import CONFIDENCE, LEAST_ROUNDS, LatencyChange, RatioTest, boundary, times_longer
from edgetl.records.gate import Verdict

LIMIT = 0.025
Noise = Callable[[np.random.Generator, int], NDArray[np.float64]]


def autoregressive(generator: np.random.Generator, number: int, memory: float = 0.95) -> NDArray[np.float64]:
    level, levels = 0.0, np.empty(number)
    steps = generator.normal(0, math.sqrt(1 - memory**2), number)
    for at, step in enumerate(steps):
        levels[at] = level = memory * level + step
    return levels


def neighbour(generator: np.random.Generator, number: int) -> NDArray[np.float64]:
    """Another program that comes and goes: half as slow again, and ten times as noisy."""
    busy = np.cumsum(generator.random(number) < 0.02) % 2
    return (1 + 9 * busy) * generator.normal(0, 1, number) + 20 * busy


NOISES: dict[str, Noise] = {
    "normal": lambda g, n: g.normal(0, 1, n),
    "heavy tails": lambda g, n: g.standard_t(2, n),
    "no mean at all": lambda g, n: g.standard_cauchy(n),
    "autoregressive": autoregressive,
    "drift": lambda g, n: g.normal(0, 1, n) + np.linspace(0, 100, n),
    "spikes": lambda g, n: g.normal(0, 1, n) + 30 * (g.random(n) < 0.1) * g.exponential(1, n),
    "neighbour": neighbour,
}


def timed(
    noise: Noise, generator: np.random.Generator, rounds: int, change: float, size: float
) -> list[float]:
    """Rounds' log ratios as sampling gives them: noise on each block's log time, and a coin for the order."""
    blocks = size * noise(generator, 4 * rounds).reshape(rounds, 4)
    outer_less_inner = (blocks[:, 0] + blocks[:, 3] - blocks[:, 1] - blocks[:, 2]) / 2
    return list(math.log1p(change) + generator.choice([-1.0, 1.0], rounds) * outer_less_inner)


def outcome(log_ratios: list[float]) -> tuple[Verdict, int]:
    """The verdict as the gate finds it, looking after every round, and the rounds it took."""
    test = RatioTest()
    for log_ratio in log_ratios:
        test.add(log_ratio)
        if (verdict := test.verdict(LIMIT)) is not Verdict.UNSURE:
            return verdict, len(test)
    return Verdict.UNSURE, len(test)


@pytest.mark.parametrize("name", NOISES)
def test_an_error_is_as_rare_as_claimed_at_the_very_limit(name: str) -> None:
    generator, gates = np.random.default_rng(7), 100
    found = [outcome(timed(NOISES[name], generator, 80, LIMIT, 0.02))[0] for _ in range(gates)]
    # At the limit every verdict is an error of one side or the other: 1% in all. Of 100, more than 4 are rare.
    assert gates - found.count(Verdict.UNSURE) <= 4


@pytest.mark.parametrize("name", NOISES)
def test_an_equal_bundle_does_not_fail_and_a_slow_one_does_not_pass(name: str) -> None:
    generator = np.random.default_rng(8)
    equal = [outcome(timed(NOISES[name], generator, 80, 0.0, 0.02))[0] for _ in range(40)]
    slow = [outcome(timed(NOISES[name], generator, 80, 0.05, 0.02))[0] for _ in range(40)]
    assert Verdict.FAIL not in equal
    assert Verdict.PASS not in slow


@pytest.mark.parametrize(
    ("change", "verdict"), [(0.0, "pass"), (0.05, "fail"), (0.1, "fail"), (-0.2, "pass")]
)
def test_what_is_clear_is_told_soon(change: float, verdict: str) -> None:
    generator = np.random.default_rng(9)
    found = [outcome(timed(NOISES["normal"], generator, 200, change, 0.02)) for _ in range(60)]
    assert {stated for stated, _ in found} == {Verdict(verdict)}
    assert np.median([rounds for _, rounds in found]) < 35


@pytest.mark.parametrize("memory", [0.6, 0.9])
def test_a_session_s_own_moods_do_not_fail_an_equal_bundle(memory: float) -> None:
    """What the coin cannot turn: one model is slower for many rounds, then the other."""
    generator = np.random.default_rng(10)
    moods = [list(0.03 * autoregressive(generator, 80, memory)) for _ in range(80)]
    assert [outcome(mood)[0] for mood in moods].count(Verdict.FAIL) <= 1


def test_a_session_s_short_moods_leave_the_error_as_claimed() -> None:
    generator = np.random.default_rng(13)
    moods = [list(math.log1p(LIMIT) + 0.02 * autoregressive(generator, 80, 0.3)) for _ in range(100)]
    assert 100 - [outcome(mood)[0] for mood in moods].count(Verdict.UNSURE) <= 4


def test_the_interval_covers_and_agrees_with_the_verdict() -> None:
    generator, inside = np.random.default_rng(11), 0
    for _ in range(60):
        test = RatioTest()
        for log_ratio in timed(NOISES["heavy tails"], generator, 60, 0.03, 0.02):
            test.add(log_ratio)
        change = test.change()
        assert change.low < change.value < change.high
        inside += change.low <= 0.03 <= change.high
        assert test.verdict(change.low - 1e-3) is Verdict.FAIL
        assert test.verdict(change.high + 1e-3) is Verdict.PASS
        assert test.verdict(change.value) is Verdict.UNSURE
    assert inside >= 58


def test_one_outlier_however_far_moves_little() -> None:
    rounds = timed(NOISES["normal"], np.random.default_rng(12), 60, 0.0, 0.02)
    clean, dirty = RatioTest(), RatioTest()
    for at, log_ratio in enumerate(rounds):
        clean.add(log_ratio)
        dirty.add(50.0 if at == 30 else log_ratio)
    assert abs(dirty.change().value - clean.change().value) < 0.003


def test_too_few_rounds_tell_nothing() -> None:
    test = RatioTest()
    assert test.change() == LatencyChange(value=0.0, low=-1.0, high=math.inf)
    for _ in range(LEAST_ROUNDS - 1):
        test.add(5.0)
        assert test.verdict(LIMIT) is Verdict.UNSURE
    test.add(5.0)
    test.add(5.0)
    assert test.verdict(LIMIT) in (Verdict.UNSURE, Verdict.FAIL)


@pytest.mark.parametrize("variance", [0.5, 4.0, 60.0])
def test_the_boundary_is_where_the_mixture_exceeds_its_bound(variance: float) -> None:
    total = boundary(variance, CONFIDENCE)

    def weighed(t: float) -> float:
        return math.exp(t * total - t * t * variance / 2 - t * t / 2) / math.sqrt(2 * math.pi)

    mixture, _ = integrate.quad(weighed, -20, 20)
    assert mixture == pytest.approx(1 / (1 - CONFIDENCE), rel=1e-6)


def test_how_much_longer_it_would_take() -> None:
    # The interval's upper end must come from 3 points above the estimate to 1: nine times the rounds.
    assert times_longer(LatencyChange(value=0.015, low=-0.02, high=0.045), LIMIT) == pytest.approx(9)
    assert times_longer(LatencyChange(value=0.035, low=0.015, high=0.06), LIMIT) == pytest.approx(4)
    assert times_longer(LatencyChange(value=LIMIT, low=0.0, high=0.05), LIMIT) == math.inf
    assert times_longer(LatencyChange(value=0.0, low=-1.0, high=math.inf), LIMIT) == math.inf
