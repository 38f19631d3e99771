from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgetl.quantize.observers import HALF, Histogram

# 80 powers of two apart; beyond float32's own 149 a tiny negative value would count as zero.
_SIZES = st.floats(2.0**-40, 2.0**40, width=32)
VALUES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 20)),
    elements=st.one_of(st.just(0.0), _SIZES, _SIZES.map(lambda size: -size)),
)


def _of(*batches: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.observe(batch)
    return histogram


def _same(one: Histogram, other: Histogram) -> None:
    assert one.exponent == other.exponent
    np.testing.assert_array_equal(one.counts, other.counts)
    assert (one.low, one.high, one.images) == (other.low, other.high, other.images)


@given(VALUES)
def test_every_value_is_in_its_bin(values: np.ndarray) -> None:
    histogram = _of(values)
    expected, _ = np.histogram(values.astype(np.float64), bins=histogram.edges)
    np.testing.assert_array_equal(histogram.counts, expected)
    assert histogram.total == values.size
    assert (histogram.low, histogram.high) == (values.min(), values.max())


@given(VALUES)
def test_the_cut_into_batches_does_not_matter(values: np.ndarray) -> None:
    _same(_of(values), _of(*(row[None] for row in values)))


def test_the_wider_side_uses_more_than_half_of_its_bins() -> None:
    for extent in np.geomspace(1e-9, 1e9, 57):
        counts = _of(np.array([[0.0, extent]], np.float32)).counts
        assert HALF // 2 <= np.flatnonzero(counts)[-1] - HALF < HALF


def test_size_is_fixed() -> None:
    generator = np.random.default_rng(0)
    histogram = Histogram()
    for scale in (1.0, 1e4, 1e-3, 1e9):
        histogram.observe((generator.normal(size=(4, 3, 50, 50)) * scale).astype(np.float32))
    assert histogram.counts.shape == (2 * HALF,)
    assert histogram.total == 4 * 4 * 3 * 2500


def test_extremes_of_images_are_summed() -> None:
    histogram = _of(np.array([[1.0, 2.0], [-1.0, 5.0]], np.float32), np.array([[0.0, 8.0]], np.float32))
    assert (histogram.low_sum, histogram.high_sum, histogram.images) == (0.0, 15.0, 3)


def test_nan_and_infinity_are_noticed_and_not_counted() -> None:
    histogram = _of(np.array([[1.0, np.nan], [2.0, 3.0], [np.inf, 0.0]], np.float32))
    assert not histogram.finite
    assert (histogram.images, histogram.total, histogram.high) == (1, 2, 3.0)


def test_nothing_observed() -> None:
    histogram = _of(np.zeros((0, 3), np.float32))
    assert (histogram.images, histogram.total) == (0, 0)


def test_all_zeros_are_counted_at_zero() -> None:
    histogram = _of(np.zeros((2, 5), np.float32))
    assert histogram.counts[HALF] == histogram.total == 10
