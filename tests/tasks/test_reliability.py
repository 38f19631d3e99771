"""How well scores hold, by hand-made answers."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.tasks.reliability import binned, expected_error, of_any, of_one


def test_bins_are_of_equal_width_and_closed_above() -> None:
    found = binned(np.array([0.0, 0.5, 0.51, 1.0]), np.array([False, True, False, True]), bins=2)
    assert [(b.score, b.right, b.answers) for b in found] == [(0.25, 0.5, 2), (0.755, 0.5, 2)]
    assert expected_error(found) == pytest.approx((0.25 + 0.255) / 2)
    assert expected_error(()) == 0.0


def test_of_one_class_per_image() -> None:
    shares, truths = np.array([[0.8, 0.2]] * 10), np.array([0] * 8 + [1] * 2)
    found = of_one(shares, truths)
    assert found.error == pytest.approx(0.0, abs=1e-12)
    assert found.loss == pytest.approx(-(8 * np.log(0.8) + 2 * np.log(0.2)) / 10)
    assert found.brier == pytest.approx((8 * 2 * 0.04 + 2 * 2 * 0.64) / 10)
    assert [b.answers for b in found.bins] == [10]
    assert of_one(shares, np.zeros(10, dtype=int)).error == pytest.approx(0.2)


def test_of_any_number_of_classes_each_counts() -> None:
    found = of_any(np.array([[0.75, 0.25], [0.75, 0.25]]), np.array([[True, False], [True, True]]))
    assert found.loss == pytest.approx(-(3 * np.log(0.75) + np.log(0.25)) / 4)
    assert found.brier == pytest.approx((3 * 0.0625 + 0.5625) / 4)
    assert [(b.score, b.right, b.answers) for b in found.bins] == [(0.25, 0.5, 2), (0.75, 1.0, 2)]
    assert found.error == pytest.approx(0.25)


def test_a_score_of_nothing_has_a_finite_loss() -> None:
    assert np.isfinite(of_one(np.array([[1.0, 0.0]]), np.array([1])).loss)
