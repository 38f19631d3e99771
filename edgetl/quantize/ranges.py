"""From a histogram to the range that the 8-bit grid shall cover. All estimators read the same single pass."""

from __future__ import annotations

from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from edgetl.config import Calibrator
from edgetl.quantize.affine import Grid, from_range
from edgetl.quantize.observers import HALF, Histogram

Range = tuple[float, float]

_ENTROPY_CANDIDATES = 256
_SHRINKS = np.geomspace(1.0, 0.1, 48)


def estimate(histogram: Histogram, calibrator: Calibrator, grid: Grid, *, percentile: float) -> Range:
    """The range (low, high) of an activation, within what was observed.

    Args:
        histogram: of at least one value.
        calibrator: the estimator; not `auto`, which is a choice between models.
        grid: what the range will be mapped to; a symmetric grid makes estimators look at absolute values.
        percentile: for `Calibrator.PERCENTILE`, in per cent.

    Raises:
        ValueError: the histogram is empty.
    """
    if histogram.images == 0:
        raise ValueError("the histogram is empty")
    match calibrator:
        case Calibrator.MINMAX:
            return histogram.low, histogram.high
        case Calibrator.MOVING_AVERAGE:
            return mean_extremes(histogram)
        case Calibrator.PERCENTILE:
            return percentiles(histogram, grid, percentile)
        case Calibrator.ENTROPY:
            return least_divergence(histogram, grid)
        case Calibrator.MSE:
            return least_error(histogram, grid)
        case Calibrator.AUTO:
            raise AssertionError("auto is no estimator")
        case _:
            assert_never(calibrator)


def mean_extremes(histogram: Histogram) -> Range:
    """The mean over the images of each image's extremes: one outlying image moves it little."""
    return histogram.low_sum / histogram.images, histogram.high_sum / histogram.images


def percentiles(histogram: Histogram, grid: Grid, percentile: float) -> Range:
    """The range that covers `percentile` per cent of the values; the rest is cut evenly from the tails.

    On a symmetric grid that is the percentile of the absolute values. A tensor with values on one side of
    zero has one tail. Within a bin values are taken as evenly spread, so the error is below a bin's width.
    """
    low, high = histogram.low, histogram.high
    cut = 1.0 - percentile / 100.0
    if grid.symmetric:
        extent = _quantile(_folded(histogram), 1.0 - cut) * histogram.width
        return max(low, -extent), min(high, extent)
    tails = (low < 0.0) + (high > 0.0)
    share = cut / max(tails, 1)
    if high > 0.0:
        top = (_quantile(histogram.counts, 1.0 - share) - HALF) * histogram.width
        high = float(np.clip(top, max(0.0, histogram.low), high))
    if low < 0.0:
        bottom = (HALF - _quantile(histogram.counts[::-1], 1.0 - share)) * histogram.width
        low = float(np.clip(bottom, low, min(0.0, histogram.high)))
    return low, high


def least_divergence(histogram: Histogram, grid: Grid) -> Range:
    """The threshold on absolute values whose quantized distribution diverges least from the clipped one.

    Migacz 2017, "8-bit Inference with TensorRT" (GTC), as TensorRT 8's entropy calibrator: P is the histogram
    up to the threshold with the outliers in its last bin, Q the same histogram poured into the grid's levels
    and spread over the non-empty bins again; KL(P || Q) is least. As there, the first bin is given its
    neighbour's count, since exact zeros cost nothing. Of the thresholds, 256 are tried.
    """
    counts = _folded(histogram).astype(np.float64)
    counts[0] = counts[1]
    # A one-sided tensor on an unsigned or shifted grid has all 256 levels on its side.
    one_sided = not grid.symmetric and (histogram.low >= 0.0 or histogram.high <= 0.0)
    levels = 256 if one_sided else 128
    filled = np.flatnonzero(counts)
    if not filled.size or filled[-1] < levels:
        return histogram.low, histogram.high
    top = int(filled[-1]) + 1
    candidates = np.unique(np.linspace(levels, top, _ENTROPY_CANDIDATES).round().astype(int))
    best = float(candidates[int(np.argmin(_divergences(counts, candidates, levels)))]) * histogram.width
    return max(histogram.low, -best), min(histogram.high, best)


def least_error(histogram: Histogram, grid: Grid) -> Range:
    """The range with the least mean squared error of quantize-dequantize, over shrunken observed ranges.

    Both ends are shrunk together first, then each by itself. A bin's values stand at its centre.
    """
    filled = np.flatnonzero(histogram.counts)
    weights = histogram.counts[filled].astype(np.float64)
    values = ((filled - HALF + 0.5) * histogram.width).clip(histogram.low, histogram.high)

    def error(span: Range) -> float:
        affine = from_range(*span, grid)
        scale, zero = float(affine.scale), float(affine.zero_point)
        integers = np.clip(np.rint(values / scale) + zero, grid.lowest, grid.highest)
        return float((weights * ((integers - zero) * scale - values) ** 2).sum())

    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    low, high = min(((low * s, high * s) for s in _SHRINKS), key=error)
    if not grid.symmetric and low < 0.0 < high:
        fine = _SHRINKS[::2]
        low, high = min(((low, high * s) for s in fine), key=error)
        low, high = min(((low * s, high) for s in fine), key=error)
    return low, high


def _folded(histogram: Histogram) -> NDArray[np.int64]:
    """(HALF,) counts of absolute values."""
    return histogram.counts[HALF:] + histogram.counts[:HALF][::-1]


def _quantile(counts: NDArray[np.int64], share: float) -> float:
    """The position, in bins, below which `share` of the counts lie."""
    cumulative = np.cumsum(counts)
    wanted = share * float(cumulative[-1])
    at = int(np.searchsorted(cumulative, wanted))
    at = min(at, len(counts) - 1)
    inside = (wanted - float(cumulative[at] - counts[at])) / float(counts[at]) if counts[at] else 1.0
    return at + min(max(inside, 0.0), 1.0)


def _divergences(
    counts: NDArray[np.float64], candidates: NDArray[np.int64], levels: int
) -> NDArray[np.float64]:
    """KL(P || Q) for the threshold after each of `candidates` bins; infinite where Q has nothing and P something.

    With T the sum of P's counts and S that of Q's, KL = (sum p log p - sum over levels of P's counts there times
    the log of Q's mean there) / T + log(S / T): running sums give all of it without a pass for each threshold.
    """
    sums, filled = _running(counts), _running(counts > 0.0)
    informed = _running(counts * np.log(counts, out=np.zeros_like(counts), where=counts > 0.0))
    total, inside, last = sums[-1], sums[candidates], counts[candidates - 1]
    outliers = total - inside
    # The last bin takes the outliers, and then counts as filled even where it was empty before.
    informed_p = informed[candidates - 1] + _times_log(last + outliers, last + outliers)
    edges = np.arange(levels + 1) * candidates[:, None] // levels
    poured, bins = np.diff(sums[edges], axis=1), np.diff(filled[edges], axis=1)
    bins[:, -1] += (last == 0.0) & (outliers > 0.0)
    p = poured.copy()
    p[:, -1] += outliers
    means = np.divide(poured, bins, out=np.zeros_like(poured), where=bins > 0.0)
    share = np.log(inside / total, out=np.full_like(inside, -np.inf), where=inside > 0.0)
    found: NDArray[np.float64] = (informed_p - _times_log(p, means).sum(axis=1)) / total + share
    found[((p > 0.0) & (means == 0.0)).any(axis=1)] = np.inf
    return found


def _running(values: NDArray[Any]) -> NDArray[np.float64]:
    """(K + 1,) sums of the first 0, 1, ... K values."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _times_log(weights: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """weights * log(values), 0 where a value is 0."""
    return weights * np.log(values, out=np.zeros_like(values), where=values > 0.0)
