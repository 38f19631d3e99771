"""Streaming histograms of activations: fixed size, one pass, exact to merge.

The bins are a grid of power-of-two width aligned at zero. When a value falls outside, the width is doubled
and bins are added in pairs, which loses resolution but never a count. So the histogram depends on the values
only, not on their order or their cut into batches, and merging is associative.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

HALF = 4096
"""Bins on each side of zero. The wider side always uses more than half of its bins: at least 2048, which is 8
for a step of an 8-bit grid."""
_SMALLEST_EXPONENT = -100
_CHUNK = 1 << 15  # values; the float and index copies of a chunk stay in the level-2 cache


class Histogram:
    """What is known of one activation.

    Attributes:
        exponent: bins are 2**exponent wide.
        counts: (2 * HALF,) int64; bin i holds values in [(i - HALF) * width, (i - HALF + 1) * width).
        low, high: extremes of all values; +inf and -inf before the first.
        images: number of images seen.
        low_sum, high_sum: sums of each image's extremes.
        finite: no NaN or infinity was seen; such values are not counted.
    """

    def __init__(self) -> None:
        self.exponent = _SMALLEST_EXPONENT
        self.counts: NDArray[np.int64] = np.zeros(2 * HALF, np.int64)
        self.low, self.high = math.inf, -math.inf
        self.images = 0
        self.low_sum, self.high_sum = 0.0, 0.0
        self.finite = True

    @property
    def width(self) -> float:
        """A bin's width."""
        return 2.0**self.exponent

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    @property
    def edges(self) -> NDArray[np.float64]:
        """The (2 * HALF + 1,) edges of the bins."""
        return np.arange(-HALF, HALF + 1, dtype=np.float64) * self.width

    def observe(self, values: NDArray[np.float32]) -> None:
        """Count a batch of activations.

        Args:
            values: (N, ...) float32, N images.
        """
        if values.size == 0:
            return
        rows = np.ascontiguousarray(values, np.float32).reshape(len(values), -1)
        lows, highs = rows.min(axis=1), rows.max(axis=1)
        low, high = float(lows.min()), float(highs.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.finite = False
            rows = rows[np.isfinite(rows).all(axis=1)]
            if rows.size:
                self.observe(rows)
            return
        self.images += len(rows)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.low_sum += float(lows.sum(dtype=np.float64))
        self.high_sum += float(highs.sum(dtype=np.float64))
        self._widen(_exponent(max(-low, high)))
        self._count(rows.reshape(-1))

    def _widen(self, exponent: int) -> None:
        if exponent > self.exponent:
            self.counts = _coarser(self.counts, exponent - self.exponent)
            self.exponent = exponent

    def _count(self, values: NDArray[np.float32]) -> None:
        per_width = np.float32(2.0**-self.exponent)
        scaled = np.empty(min(_CHUNK, values.size), np.float32)
        indices = np.empty(scaled.size, np.intp)
        for start in range(0, values.size, _CHUNK):
            chunk = values[start : start + _CHUNK]
            part, bins = scaled[: chunk.size], indices[: chunk.size]
            # Floor before the shift: both are then exact in float32, whatever the bin width.
            np.multiply(chunk, per_width, out=part)
            np.floor(part, out=part)
            np.add(part, HALF, out=part)
            np.copyto(bins, part, casting="unsafe")
            self.counts += np.bincount(bins, minlength=2 * HALF)


def _exponent(extent: float) -> int:
    """The smallest exponent whose bins hold -extent..extent."""
    _, exponent = math.frexp(extent / HALF)
    return max(exponent, _SMALLEST_EXPONENT) if extent > 0.0 else _SMALLEST_EXPONENT


def _coarser(counts: NDArray[np.int64], doublings: int) -> NDArray[np.int64]:
    # After log2(HALF) + 1 doublings all counts stand next to zero, where more change nothing.
    for _ in range(min(doublings, HALF.bit_length())):
        paired = np.zeros_like(counts)
        paired[HALF // 2 : HALF // 2 + HALF] = counts.reshape(-1, 2).sum(axis=1)
        counts = paired
    return counts
