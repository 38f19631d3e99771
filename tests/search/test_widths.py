"""The width that holds a budget: on lines through what was timed."""

from __future__ import annotations

import pytest

from edgetl.search.widths import Timing, macs_within, power_of


def of_power(power: float, *macs: float) -> list[Timing]:
    """Networks whose milliseconds are a power of their multiply-accumulates."""
    return [Timing(macs=one, ms=0.01 * one**power) for one in macs]


def test_the_power_of_two_timings() -> None:
    first, second = of_power(0.6, 10.0, 300.0)
    assert power_of(first, second) == power_of(second, first) == pytest.approx(0.6)
    assert power_of(first, first, 0.7) == 0.7


@pytest.mark.parametrize(("ms", "power"), [(10.0, 1.1), (1.01, 0.3), (0.5, 0.3)])
def test_timings_that_scatter_do_not_give_an_absurd_power(ms: float, power: float) -> None:
    assert power_of(Timing(macs=1.0, ms=1.0), Timing(macs=1.5, ms=ms)) == power


@pytest.mark.parametrize("macs", [(10.0, 300.0), (150.0, 300.0), (10.0, 20.0), (300.0,), (10.0, 90.0, 300.0)])
def test_the_width_is_on_the_line(macs: tuple[float, ...]) -> None:
    wanted = of_power(0.6, 100.0)[0]
    assert macs_within(wanted.ms, of_power(0.6, *macs), 0.6) == pytest.approx(wanted.macs)


def test_of_many_timings_the_two_around_the_budget_count() -> None:
    far = [Timing(macs=1.0, ms=0.9), Timing(macs=1e6, ms=9.0)]
    assert macs_within(
        1.5, [*far, Timing(macs=10.0, ms=1.0), Timing(macs=40.0, ms=2.0)], 0.6
    ) == pytest.approx(10 * 1.5**2)


def test_where_a_narrower_one_took_longer_what_was_seen_to_hold_counts() -> None:
    assert macs_within(1.0, [Timing(macs=20.0, ms=0.9), Timing(macs=15.0, ms=1.1)], 0.6) == 20.0
