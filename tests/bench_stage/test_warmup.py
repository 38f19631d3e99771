from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from edgetl.bench.clock import less_overhead, overhead_ns
from edgetl.bench.scenarios import BenchOptions, measure
from edgetl.bench.statistics import summarise
from edgetl.bench.warmup import MOST_CALLS, until_steady, warm_up
from edgetl.errors import ConfigError
from tests.bench_stage.test_timer import FakeClock


def _warm(durations: Iterable[float]):
    clock, supply = FakeClock(), iter(durations)
    return until_steady(lambda: clock.work(next(supply)), clock=clock)


def _noise(level: float, count: int = 5000) -> list[float]:
    return list(level * np.random.default_rng(0).normal(1, 0.01, count))


def test_steady_calls_need_one_window_and_a_tenth_of_a_second() -> None:
    warm = _warm(_noise(5.0))
    assert (warm.calls, warm.steady) == (30, True)
    assert warm.seconds == pytest.approx(0.15, rel=0.02)
    assert _warm(_noise(1.0)).calls == 100
    tiny = _warm(_noise(0.001))
    assert (tiny.calls, tiny.steady) == (MOST_CALLS, True)
    stuck = _warm(itertools.repeat(0.0))
    assert (stuck.calls, stuck.steady) == (MOST_CALLS, True)


@pytest.mark.parametrize("slow", [6, 12, 20])
def test_it_lasts_until_slow_calls_are_over(slow: int) -> None:
    warm = _warm([*(1.5 * d for d in _noise(5.0, slow)), *_noise(5.0)])
    assert warm.steady
    # Three calls are no level of their own.
    assert slow + 27 <= warm.calls <= slow + 40


def test_it_lasts_until_calls_stop_getting_faster() -> None:
    """A long way down, as of a clock that rises: longer than the window."""
    warm = _warm(noise * (1 + np.exp(-n / 40)) for n, noise in enumerate(_noise(5.0)))
    assert warm.steady
    assert 100 <= warm.calls <= 250


def test_a_first_call_that_is_slow_alone_is_in_the_warm_up_and_does_not_prolong_it() -> None:
    assert _warm([900.0, *_noise(5.0)]).calls == 30


def test_calls_that_get_slower_and_slower_never_become_steady() -> None:
    warm = _warm(5.0 * 1.01**n for n in itertools.count())
    assert (warm.steady, warm.seconds) == (False, pytest.approx(10.0, rel=0.02))
    short = _warm(0.5 + 0.2 * (n // 15 % 2) for n in itertools.count())
    assert (short.steady, short.calls) == (False, MOST_CALLS)


def test_a_model_too_slow_for_a_window_is_bounded_in_time() -> None:
    warm = _warm(itertools.repeat(4000.0))
    assert (warm.calls, warm.steady) == (3, False)


def test_a_fixed_number_of_calls_is_neither_steady_nor_not() -> None:
    made = []
    warm = warm_up(lambda: made.append(1), 7)
    assert (len(made), warm.calls, warm.steady) == (7, 7, None)


def test_the_record_says_how_many_calls_it_took() -> None:
    clock = FakeClock()
    result = measure(lambda: clock.work(5.0), BenchOptions(runs=10), clock=clock, sleep=clock.sleep)
    assert (result.latency.warmup, result.warm.calls, result.warm.steady) == (30, 30, True)


class SlowClock(FakeClock):
    """A clock whose reading takes 20 microseconds."""

    def __call__(self) -> int:
        self.now += 20_000
        return self.now


def test_the_timer_s_own_time_is_measured_and_subtracted() -> None:
    clock = SlowClock()
    assert overhead_ns(clock) == 20_000
    result = measure(lambda: clock.work(1.0), BenchOptions(runs=10), clock=clock, sleep=clock.sleep)
    assert result.overhead_ns == 20_000
    assert result.latency.samples_ms == pytest.approx([1.0] * 10)


@pytest.mark.serial
def test_the_real_timer_costs_less_than_a_hundredth_of_a_millisecond() -> None:
    import time

    assert 0 < overhead_ns(time.perf_counter_ns) < 10_000


def test_a_clock_that_ran_backwards_is_refused_and_not_hidden() -> None:
    assert less_overhead([0.00001, 2.0], 100.0) == [0.0, pytest.approx(1.9999)]
    with pytest.raises(ConfigError, match="negative or not finite; the clock cannot be trusted"):
        summarise(less_overhead([1.0, -3.0], 100.0), scenario="x", batch=1, threads=1, warmup=0)
