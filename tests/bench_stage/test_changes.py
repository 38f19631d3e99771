"""The change-point test: against scipy, against simulation, and on series with known changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.bench import changes
from edgetl.bench.changes import change_points, critical, largest_score, level_shifts


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=6, max_size=40))
def test_the_statistic_is_the_largest_wilcoxon_score_over_all_splits(values: list[int]) -> None:
    series = np.array(values, dtype=float)
    count, best = len(series), 0.0
    ties = np.unique(series, return_counts=True)[1]
    # The normal score of Mann and Whitney's U with ties (Lehmann 1975), from scipy's U.
    spread = (count + 1) - sum(t**3 - t for t in ties) / (count * (count - 1))
    for at in range(changes.EDGE, count - changes.EDGE + 1):
        u = scipy.stats.mannwhitneyu(series[:at], series[at:]).statistic
        pairs = at * (count - at)
        if spread > 1e-9:
            best = max(best, abs(u - pairs / 2) / math.sqrt(pairs * spread / 12))
    assert largest_score(series) == pytest.approx(best, abs=1e-9)


def test_ranks_share_ties_as_scipy_s_do() -> None:
    values = np.array([3.0, 1.0, 3.0, 2.0, 3.0])
    assert changes._ranks(values).tolist() == scipy.stats.rankdata(values).tolist()


@pytest.mark.parametrize(("count", "level"), [(12, 0.05), (30, 0.01), (40, 0.01)])
def test_false_alarms_keep_to_the_level(count: int, level: float) -> None:
    generator = np.random.default_rng(5)
    series = generator.lognormal(0, 0.3, (3000, count))
    series[:, 7] *= 50  # An outlier at one place is no change of level.
    limit = critical(count, level)
    alarms = sum(largest_score(values) > limit for values in series)
    assert alarms <= 3000 * level + 3 * math.sqrt(3000 * level)


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 52), st.floats(1.1, 3.0), st.booleans(), st.integers(0, 10_000))
def test_a_step_is_found_where_it_is(at: int, factor: float, down: bool, seed: int) -> None:
    series = np.random.default_rng(seed).normal(1.0, 0.01, 60)
    series[at:] *= 1 / factor if down else factor
    found = change_points(series, level=0.0005)
    assert [change.index for change in found] == [at]
    assert found[0].ratio == pytest.approx(1 / factor if down else factor, rel=0.03)


def test_two_steps_are_found_and_a_spike_is_not() -> None:
    series = np.random.default_rng(1).normal(1.0, 0.01, 90)
    series[30:60] *= 1.4
    series[75] = 40.0
    assert [change.index for change in change_points(series)] == [30, 60]


def test_steps_too_small_to_matter_are_left_out() -> None:
    series = np.concatenate([np.full(30, 1.0), np.full(30, 1.01), np.full(30, 1.2)])
    series += np.random.default_rng(2).normal(0, 1e-4, 90)
    assert [change.index for change in change_points(series, least=0.02)] == [60]
    assert [change.index for change in change_points(series, least=0.005)] == [30, 60]


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 5, [2.0] * 100])
def test_too_few_or_equal_values_hold_no_change(values: list[float]) -> None:
    assert change_points(values) == ()


def test_too_long_a_series_is_refused() -> None:
    with pytest.raises(ValueError, match="401 values came, expected at most 400: take medians of blocks"):
        change_points([1.0] * 401)


def test_samples_that_are_alike_are_no_shift_but_throttling_is() -> None:
    generator = np.random.default_rng(3)
    noise = generator.normal(0, 0.05, 1001)
    samples = np.exp(noise[1:] + 0.6 * noise[:-1])
    assert level_shifts(samples) == ()
    samples[600:] *= 1.5
    [shift] = level_shifts(samples)
    assert abs(shift.index - 600) <= 25
    assert shift.ratio == pytest.approx(1.5, rel=0.05)
