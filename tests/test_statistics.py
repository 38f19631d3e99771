from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl import statistics
from edgetl.errors import TensorError


def test_wilson_interval_matches_published_values() -> None:
    # Newcombe (1998), table I, method 3: 81/263, 15/148, 0/20, 1/29.
    assert statistics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert statistics.wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert statistics.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert statistics.wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(1, 500), st.data())
def test_wilson_interval_holds_the_proportion(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = statistics.wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0


def test_paired_comparison_counts_and_exact_p() -> None:
    first = np.array([True] * 90 + [False] * 10)
    second = first.copy()
    second[:8] = False
    second[95:97] = True
    result = statistics.compare_paired(first, second)
    assert (result.only_first, result.only_second, result.images) == (8, 2, 100)
    assert result.difference == pytest.approx(-0.06)
    # Two-sided binomial: 2 * (1 + 10 + 45) / 1024.
    assert result.p_value == pytest.approx(2 * 56 / 1024)
    assert result.interval[0] < -0.06 < result.interval[1]


@given(st.integers(0, 60), st.integers(0, 60))
def test_exact_p_agrees_with_scipy(lost: int, won: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    first = np.array([True] * lost + [False] * won + [True])
    second = np.array([False] * lost + [True] * won + [True])
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert statistics.compare_paired(first, second).p_value == pytest.approx(expected)


def test_exact_p_of_many_images_does_not_overflow() -> None:
    first, second = np.ones(20_000, dtype=bool), np.zeros(20_000, dtype=bool)
    assert statistics.compare_paired(first, second).p_value == pytest.approx(0.0, abs=1e-300)


def test_paired_interval_matches_published_values() -> None:
    # Fagerland, Lydersen and Laake (2017), chapter 8, of Bentur et al. (2009): Tango's interval -0.517 to -0.026.
    assert statistics.paired_interval(7, 1, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    # Without flips its ends have a closed form.
    assert statistics.paired_interval(0, 0, 50) == pytest.approx(
        (-3.8415 / 53.8415, 3.8415 / 53.8415), abs=1e-5
    )
    assert statistics.paired_interval(5, 0, 5)[0] == -1.0
    low, high = statistics.paired_interval(9, 2, 120)
    assert statistics.paired_interval(2, 9, 120) == pytest.approx((-high, -low))


@pytest.mark.parametrize("difference", [-0.12, -0.05, 0.02])
def test_paired_interval_is_that_of_the_score_test(difference: float) -> None:
    """Its ends are where the score test, with the likeliest shares found numerically, is at its quantile."""
    optimize = pytest.importorskip("scipy.optimize")
    lost, won, images = 9, 4, 120

    def unlikely(share: float) -> float:
        rest = 1 - 2 * share - difference
        return -(
            lost * math.log(share)
            + won * math.log(share + difference)
            + (images - lost - won) * math.log(rest)
        )

    bounds = (max(0.0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9)
    share = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    deviation = math.sqrt(images * (2 * share + difference - difference**2))
    z = (won - lost - images * difference) / deviation
    low, high = statistics.paired_interval(lost, won, images, abs(z))
    assert (low if z > 0 else high) == pytest.approx(difference, abs=1e-5)


def test_paired_interval_covers_the_truth() -> None:
    """Summed over all outcomes of 200 images of which 4.5% are lost and 0.5% won."""
    multinomial = pytest.importorskip("scipy.stats").multinomial
    covered = 0.0
    for lost in range(26):
        for won in range(7):
            low, high = statistics.paired_interval(lost, won, 200)
            if low <= -0.04 <= high:
                covered += multinomial.pmf([lost, won, 200 - lost - won], 200, [0.045, 0.005, 0.95])
    assert 0.94 < covered < 0.96


def test_difference_of_independent_proportions_matches_newcombe() -> None:
    # Newcombe (1998), part two, table II (a): 56/70 less 48/80 has 0.0524 .. 0.3339 by method 10.
    first = (48 / 80, statistics.wilson_interval(48, 80))
    second = (56 / 70, statistics.wilson_interval(56, 70))
    assert statistics.difference_interval(first, second) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_paired_comparison_refuses_other_lengths() -> None:
    with pytest.raises(TensorError, match=r"first \(2,\) and second \(3,\)"):
        statistics.compare_paired(np.ones(2), np.ones(3))


@pytest.mark.parametrize(
    ("successes", "trials", "chance"), [(3, 10, 0.5), (1, 6, 0.07), (20, 300, 0.07), (6, 6, 0.2)]
)
def test_a_binomial_tail_is_the_sum_of_its_terms(successes: int, trials: int, chance: float) -> None:
    terms = [
        math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(successes, trials + 1)
    ]
    assert statistics.binomial_tail(successes, trials, chance) == pytest.approx(math.fsum(terms), rel=1e-9)


@pytest.mark.parametrize(("trials", "most"), [(0, 0), (1, 1), (6, 2), (18, 4), (100, 13), (1000, 89)])
def test_the_most_that_chance_explains(trials: int, most: int) -> None:
    assert statistics.most_by_chance(trials, 0.07) == most
    assert statistics.binomial_tail(most + 1, trials, 0.07) < 0.01
    assert most == 0 or statistics.binomial_tail(most, trials, 0.07) >= 0.01
