"""Affine quantization: real = scale * (integer - zero point), on an 8-bit grid.

Notation and the choice of zero point follow Jacob et al. 2018, "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", section 2. Zero is always one of the grid's values, since
padding and ReLU make exact zeros everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]

SMALLEST_SCALE = 2.0**-100
"""A range below this is as good as zero; smaller scales would make products of scales subnormal."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The integers that a tensor is mapped to.

    Attributes:
        signed: int8, else uint8.
        symmetric: the zero point is the grid's middle (0 for int8) and the range is [-a, a].
        limit: for weights: int8 within -limit..limit, so that the grid itself is symmetric; else all of the type.
    """

    signed: bool
    symmetric: bool
    limit: int | None = None

    @property
    def dtype(self) -> np.dtype[np.int8] | np.dtype[np.uint8]:
        """The numpy type of the integers."""
        return np.dtype(np.int8) if self.signed else np.dtype(np.uint8)

    @property
    def lowest(self) -> int:
        """The smallest integer."""
        if self.limit is not None:
            return -self.limit
        return -128 if self.signed else 0

    @property
    def highest(self) -> int:
        """The largest integer."""
        if self.limit is not None:
            return self.limit
        return 127 if self.signed else 255


UINT8 = Grid(signed=False, symmetric=False)
INT8 = Grid(signed=True, symmetric=False)
INT8_SYMMETRIC = Grid(signed=True, symmetric=True)
INT8_WEIGHTS = Grid(signed=True, symmetric=True, limit=127)
INT7_WEIGHTS = Grid(signed=True, symmetric=True, limit=64)
"""Two products with an unsigned byte stay within 16 bits: 2 * 255 * 64 = 32640, below 32767."""


@dataclass(frozen=True, kw_only=True)
class Affine:
    """A tensor's quantization parameters.

    Attributes:
        grid: the integers.
        scale: float32, () for the whole tensor or (C,) a channel; above 0.
        zero_point: of the grid's dtype and the scale's shape.
        axis: the channel axis; None for the whole tensor.
    """

    grid: Grid
    scale: NDArray[np.float32]
    zero_point: Integers
    axis: int | None = None

    def quantize(self, values: NDArray[np.float32]) -> Integers:
        """Nearest integers (ties to even, as ONNX's QuantizeLinear), saturated to the grid."""
        scale, zero = self._along(values.ndim)
        integers = np.clip(np.rint(values / scale) + zero, self.grid.lowest, self.grid.highest)
        return np.asarray(integers, self.grid.dtype)

    def dequantize(self, integers: Integers) -> NDArray[np.float32]:
        """The real values of integers, float32."""
        scale, zero = self._along(integers.ndim)
        return ((integers.astype(np.float32) - zero) * scale).astype(np.float32)

    @property
    def low(self) -> float:
        """The smallest real value on the grid (per-tensor only)."""
        return (self.grid.lowest - int(self.zero_point)) * float(self.scale)

    @property
    def high(self) -> float:
        """The largest real value on the grid (per-tensor only)."""
        return (self.grid.highest - int(self.zero_point)) * float(self.scale)

    def _along(self, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        shape = [1] * rank
        if self.axis is not None:
            shape[self.axis] = -1
        zero = self.zero_point.astype(np.float32)
        if self.axis is None:
            return self.scale, zero
        return self.scale.reshape(shape), zero.reshape(shape)


def from_range(low: float, high: float, grid: Grid) -> Affine:
    """Per-tensor parameters that cover [low, high], widened to hold zero.

    A range of zero width around zero (an activation that is always 0) gets the scale 1.

    Raises:
        ValueError: the range is not finite or is upside down.
    """
    if not (np.isfinite(low) and np.isfinite(high)) or low > high:
        raise ValueError(f"[{low}, {high}] is not a range")
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high == 0.0:
        scale, zero = 1.0, (grid.lowest if not grid.symmetric else 0)
    elif grid.symmetric:
        scale, zero = max(max(-low, high) / grid.highest, SMALLEST_SCALE), 0
    else:
        scale = max((high - low) / (grid.highest - grid.lowest), SMALLEST_SCALE)
        zero = int(np.clip(np.rint(grid.lowest - low / scale), grid.lowest, grid.highest))
    return Affine(
        grid=grid,
        scale=np.asarray(scale, np.float32),
        zero_point=np.asarray(zero, grid.dtype),
    )


def for_weights(weights: NDArray[np.float32], grid: Grid, axis: int | None) -> Affine:
    """Symmetric parameters that cover the weights: (C,) along `axis`, or () for the whole tensor.

    A channel of zeros (one that pruning or a dead unit left) gets the scale 1.

    Raises:
        ValueError: a weight is not finite, or the grid is not symmetric.
    """
    if not grid.symmetric:
        raise ValueError("weights are quantized symmetrically")
    if not np.isfinite(weights).all():
        raise ValueError("a weight is NaN or infinite")
    others = tuple(a for a in range(weights.ndim) if a != axis) if axis is not None else None
    extent = np.abs(weights).max(axis=others).astype(np.float64)
    scale = np.where(extent > 0.0, np.maximum(extent / grid.highest, SMALLEST_SCALE), 1.0)
    scale32 = scale.astype(np.float32)
    return Affine(grid=grid, scale=scale32, zero_point=np.zeros(scale32.shape, grid.dtype), axis=axis)
