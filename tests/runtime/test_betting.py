"""Bets that do not win while nothing changed, whatever the reference happens to be, and win when something did."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from edgetl.runtime.betting import (
    AT_ONCE,
    ODDS,
    POWERS,
    Capital,
    class_payoffs,
    images_needed,
    largest_mean,
    largest_share,
    payoffs,
    stake,
)


def test_stakes_are_shares_of_one_capital() -> None:
    shares = [math.exp(stake(number)) for number in range(1, 100_000)]
    assert 0.8 < sum(shares) <= 1.0
    assert shares[0] > 0.5
    assert all(before > after for before, after in pairwise(shares))


def test_bets_rise_and_fall_with_the_rank() -> None:
    table = payoffs(100, 1e-4)
    assert table.shape == (2 * len(POWERS), 101)
    for rising, falling in zip(table[::2], table[1::2], strict=True):
        assert (np.diff(rising) > 0).all()
        assert (rising[::-1] == falling).all()
        assert np.exp(rising).mean() < 1.0


@pytest.mark.parametrize("images", [20, 100, 500])
def test_hardly_any_reference_lets_a_bet_win_on_average(images: int) -> None:
    """The means, given the reference, of images from the same distribution: against the bound, and how tight it is."""
    level, draws = 0.01, 4000
    generator = np.random.default_rng(images)
    shares = generator.dirichlet(np.ones(images + 1), size=draws)
    paid = shares @ np.exp(payoffs(images, level)).T
    wins = (paid > 1.0).mean(axis=0)
    assert wins.max() <= level
    values = np.linspace(0.0, 1.0, images + 1) ** 3
    bound, exact = largest_mean(values, level), float(np.quantile(shares @ values, 1 - level))
    assert exact <= bound <= exact + 0.5 * (exact - values.mean())


def test_a_share_has_a_bound() -> None:
    assert largest_share(0, 100, 0.05) == pytest.approx(1 - 0.05**0.01, abs=1e-6)
    assert largest_share(100, 100, 0.05) == 1.0
    generator = np.random.default_rng(0)
    found = generator.binomial(200, 0.3, size=3000)
    assert np.mean([largest_share(int(count), 200, 0.02) < 0.3 for count in found]) <= 0.02


def test_bets_on_classes_do_not_win_by_the_references_own_shares() -> None:
    counts = np.array([0, 5, 60, 100])
    table = class_payoffs(counts, 100, 1e-3)
    assert table.shape == (2, 2 * len(ODDS), 4)
    shares = counts / 100
    means = np.exp(table[1]) * shares + np.exp(table[0]) * (1 - shares)
    assert (means <= 1.0 + 1e-9).all()
    assert not table[:, 0::2, 3].any(), "nothing comes more often than always"
    assert not table[:, 1::2, 0].any(), "nothing comes less often than never"
    often = class_payoffs(counts, 100, 1e-3)[1, 0::2, 1]
    assert (often > 0).all(), "a bet on a class that comes more often wins by each answer with it"


def test_capital_finds_a_change_and_where_it_began() -> None:
    table = payoffs(300, 1e-5)
    capital = Capital((len(table), 1))
    generator = np.random.default_rng(0)
    for number in range(1, 401):
        rank = int(generator.integers(0, 301)) if number <= 300 else int(generator.integers(240, 301))
        capital.pay(np.exp(table[None, :, [rank]]), number)
        if number == 300:
            assert capital.logs.max() < math.log(100)
    assert capital.logs.max() > 10
    best = int(capital.logs[:, 0].argmax())
    assert best % 2 == 0, "it rose"
    assert 290 <= capital.since[best, 0] <= 310


def test_several_images_at_once_are_paid_as_one_after_the_other() -> None:
    paid = np.exp(payoffs(1000, 1e-5)).T[np.random.default_rng(0).integers(0, 1001, 4 * AT_ONCE)]
    paid[3 : 3 + AT_ONCE] = np.exp(payoffs(1000, 1e-5)).T[0]  # the least that there is, again and again
    one_by_one, at_once = Capital(paid.shape[1:]), Capital(paid.shape[1:])
    singly = np.concatenate([one_by_one.pay(row[None], at + 1) for at, row in enumerate(paid)])
    together = [at_once.pay(paid[at : at + AT_ONCE], at + 1) for at in range(0, len(paid), AT_ONCE)]
    np.testing.assert_allclose(np.concatenate(together), singly, rtol=1e-9)
    np.testing.assert_allclose(at_once.values, one_by_one.values, rtol=1e-9)
    np.testing.assert_array_equal(at_once.since, one_by_one.since)


def test_more_images_in_the_reference_find_smaller_changes_sooner() -> None:
    needed = [images_needed(images, 1e-5, 8.0, 1.0) for images in (20, 100, 500)]
    assert needed[0] > needed[1] > needed[2]
    assert images_needed(500, 1e-5, 8.0, 2.0) < needed[2]
    assert images_needed(5, 1e-5, 8.0, 1.0) == math.inf


def test_capital_stays_a_number() -> None:
    capital = Capital((1,))
    for number in range(1, 2000):
        capital.pay(np.array([[8.0]]), number)
    assert np.isfinite(capital.values).all()
    assert np.isfinite(capital.logs).all()
