from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgetl.quantize.affine import (
    INT8,
    INT8_SYMMETRIC,
    INT8_WEIGHTS,
    SMALLEST_SCALE,
    UINT8,
    Grid,
    for_weights,
    from_range,
)

GRIDS = st.sampled_from([UINT8, INT8, INT8_SYMMETRIC])
REALS = st.floats(-1e6, 1e6, width=32)


@given(GRIDS, REALS, REALS)
def test_zero_is_on_every_grid(grid: Grid, one: float, other: float) -> None:
    affine = from_range(min(one, other), max(one, other), grid)
    integers = affine.quantize(np.zeros(1, np.float32))
    assert integers[0] == affine.zero_point
    assert affine.dequantize(integers)[0] == 0.0
    assert float(affine.scale) >= np.float32(SMALLEST_SCALE)


@given(GRIDS, REALS, REALS, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_value_in_range_moves_by_half_a_step(
    grid: Grid, one: float, other: float, shares: list[float]
) -> None:
    low, high = min(one, other, 0.0), max(one, other, 0.0)
    affine = from_range(low, high, grid)
    values = (low + np.array(shares) * (high - low)).astype(np.float32)
    moved = np.abs(affine.dequantize(affine.quantize(values)) - values)
    # Rounding the zero point can put the range's end half a step outside the grid.
    slack = 0.5 if not grid.symmetric else 0.0
    assert (moved <= float(affine.scale) * (0.5 + slack) * 1.0001 + 1e-30).all()


@given(GRIDS, REALS, REALS)
def test_the_grid_covers_the_range(grid: Grid, one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    affine = from_range(low, high, grid)
    step = float(affine.scale)
    assert affine.low <= min(low, 0.0) + 0.51 * step
    assert affine.high >= max(high, 0.0) - 0.51 * step
    assert affine.zero_point.dtype == grid.dtype


@pytest.mark.parametrize(
    ("grid", "low", "high", "scale", "zero"),
    [
        (UINT8, 0.0, 6.0, 6 / 255, 0),
        (UINT8, -1.0, 1.0, 2 / 255, 128),
        (UINT8, -2.55, 0.0, 0.01, 255),
        (UINT8, 1.0, 2.55, 0.01, 0),
        (INT8, 0.0, 6.0, 6 / 255, -128),
        (INT8_SYMMETRIC, -1.27, 1.0, 0.01, 0),
        (INT8_SYMMETRIC, 0.0, 127.0, 1.0, 0),
        (UINT8, 0.0, 0.0, 1.0, 0),
        (INT8, 0.0, 0.0, 1.0, -128),
    ],
)
def test_known_parameters(grid: Grid, low: float, high: float, scale: float, zero: int) -> None:
    affine = from_range(low, high, grid)
    assert float(affine.scale) == pytest.approx(scale)
    assert int(affine.zero_point) == zero


@pytest.mark.parametrize("span", [(1.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_what_is_no_range_is_refused(span: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="is not a range"):
        from_range(*span, UINT8)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
        elements=st.floats(-50, 50, width=32),
    ),
    st.integers(0, 1),
)
def test_weights_have_a_scale_a_channel(weights: np.ndarray, axis: int) -> None:
    affine = for_weights(weights, INT8_WEIGHTS, axis)
    assert affine.scale.shape == affine.zero_point.shape == (weights.shape[axis],)
    assert not affine.zero_point.any()
    integers = affine.quantize(weights)
    assert integers.dtype == np.int8
    assert integers.min() >= -127
    steps = np.moveaxis(np.abs(affine.dequantize(integers) - weights), axis, -1) / affine.scale
    assert steps.max() <= 0.5001


def test_a_channel_of_zeros_stays_zero() -> None:
    weights = np.stack([np.zeros(4), np.ones(4)]).astype(np.float32)
    affine = for_weights(weights, INT8_WEIGHTS, 0)
    assert affine.scale.tolist() == [1.0, np.float32(1 / 127)]
    np.testing.assert_allclose(affine.dequantize(affine.quantize(weights)), weights, rtol=1e-6)


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="a weight is NaN or infinite"):
        for_weights(np.array([[np.nan]], np.float32), INT8_WEIGHTS, 0)
