"""The threshold: the lowest that keeps what was asked; and when a cascade counts as worse."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.cascade.threshold import choose, is_worse
from tests.cascade.bundles import told

MARGINS = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5])


def _flags(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text])


def test_as_few_as_possible_are_handed_on() -> None:
    small, large = _flags("1111010100"), _flags("1111111110")
    found = choose(MARGINS, small, large, None)
    assert (found.value, found.handed_on, found.best) == (5.5, pytest.approx(0.6), 9)


def test_what_the_small_model_wins_pays_for_what_it_loses() -> None:
    small, large = _flags("1110110000"), _flags("0111111110")
    assert choose(MARGINS, small, large, None).value == pytest.approx(3.5)


def test_a_floor_below_the_larger_model_hands_on_less() -> None:
    small, large = _flags("1111010100"), _flags("1111111110")
    assert choose(MARGINS, small, large, 0.8).value == pytest.approx(3.5)
    assert choose(MARGINS, small, large, 0.95).value is None


def test_images_of_one_margin_are_answered_by_one_model() -> None:
    margins = np.array([9.0, 5.0, 5.0, 5.0])
    found = choose(margins, _flags("1110"), _flags("1111"), None)
    assert found.value == 7.0
    assert choose(margins, _flags("1111"), _flags("1111"), None).handed_on == 0
    assert choose(margins, _flags("0111"), _flags("1111"), None).handed_on == 1


def test_worse_is_what_a_test_says() -> None:
    assert not is_worse(told(6, 2, 0.29))
    assert is_worse(told(12, 1, 0.003))
    assert not is_worse(told(1, 12, 0.003))
    assert not is_worse(told(12, 1, 0.003, top1=0.88, floor=0.9))
    assert is_worse(told(0, 0, 1.0, top1=0.8, floor=0.9))
    assert is_worse(told(0, 0, 1.0, top1=0.99, floor=1.0))
