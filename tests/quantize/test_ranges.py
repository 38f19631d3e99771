from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgetl.config import Calibrator
from edgetl.quantize.affine import INT8_SYMMETRIC, UINT8, Grid, from_range
from edgetl.quantize.observers import HALF, Histogram
from edgetl.quantize.ranges import estimate, least_divergence, least_error, percentiles

SEEDS = st.integers(0, 1000)
ESTIMATORS = [c for c in Calibrator if c is not Calibrator.AUTO]


def _values(seed: int, *, relu: bool = False, images: int = 8) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = generator.standard_t(4, size=(images, 1500)) * generator.uniform(0.01, 100.0)
    values = values + generator.normal() if not relu else np.maximum(values, 0.0)
    return values.astype(np.float32)


def _histogram(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.observe(values)
    return histogram


@pytest.mark.parametrize("calibrator", ESTIMATORS)
@pytest.mark.parametrize("grid", [UINT8, INT8_SYMMETRIC])
def test_ranges_stay_within_what_was_observed(calibrator: Calibrator, grid: Grid) -> None:
    for seed in range(4):
        values = _values(seed, relu=seed % 2 == 0)
        low, high = estimate(_histogram(values), calibrator, grid, percentile=99.9)
        assert values.min() <= low <= high <= values.max()


@pytest.mark.parametrize("calibrator", ESTIMATORS)
def test_constant_activations_have_a_range_that_holds_them(calibrator: Calibrator) -> None:
    for constant in (0.0, 3.0, -3.0):
        histogram = _histogram(np.full((4, 300), constant, np.float32))
        affine = from_range(*estimate(histogram, calibrator, UINT8, percentile=99.9), UINT8)
        value = affine.dequantize(affine.quantize(np.array([constant], np.float32)))
        assert value[0] == pytest.approx(constant, rel=0.01)


def test_an_empty_histogram_has_no_range() -> None:
    with pytest.raises(ValueError, match="the histogram is empty"):
        estimate(Histogram(), Calibrator.MINMAX, UINT8, percentile=99.9)


def test_the_moving_average_is_the_mean_of_the_images_extremes() -> None:
    values = _values(3)
    low, high = estimate(_histogram(values), Calibrator.MOVING_AVERAGE, UINT8, percentile=99.9)
    assert low == pytest.approx(values.min(1).mean(), rel=1e-5)
    assert high == pytest.approx(values.max(1).mean(), rel=1e-5)


@given(SEEDS, st.sampled_from([99.0, 99.9, 99.99, 100.0]))
@settings(max_examples=25, deadline=None)
def test_percentiles_agree_with_numpy(seed: int, percentile: float) -> None:
    values = _values(seed)
    assume(values.min() < 0.0 < values.max())  # else there is one tail
    histogram = _histogram(values)
    cut = (100.0 - percentile) / 2
    low, high = percentiles(histogram, UINT8, percentile)
    # One more bin, since numpy's percentile lies between two values and ours within a bin.
    slack = 2 * histogram.width + 1e-9
    below, above = (float(np.percentile(values, p, method="lower")) for p in (cut, 100 - cut))
    next_below, next_above = (float(np.percentile(values, p, method="higher")) for p in (cut, 100 - cut))
    # The range always holds zero.
    assert min(below, 0.0) - slack <= low <= min(next_below, 0.0) + slack
    assert max(above, 0.0) - slack <= high <= max(next_above, 0.0) + slack


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_one_sided_values_lose_one_tail(seed: int) -> None:
    values = _values(seed, relu=True)
    histogram = _histogram(values)
    low, high = percentiles(histogram, UINT8, 99.0)
    assert low == 0.0
    assert (values > high + histogram.width).mean() <= 0.01
    assert (values > high - histogram.width).mean() >= 0.009


def test_symmetric_grids_take_the_percentile_of_absolute_values() -> None:
    values = _values(1)
    histogram = _histogram(values)
    low, high = percentiles(histogram, INT8_SYMMETRIC, 99.0)
    extent = float(np.percentile(np.abs(values), 99.0))
    assert max(-low, high) == pytest.approx(extent, abs=2 * histogram.width)


def _plain_divergence(values: np.ndarray, width: float, levels: int, candidates: np.ndarray) -> list[float]:
    """The published algorithm, bin by bin, on the stored values."""
    counts = np.zeros(HALF)
    for index in (np.abs(values.astype(np.float64)) // width).astype(int).ravel():
        counts[index] += 1
    counts[0] = counts[1]
    divergences = []
    for bins in candidates:
        reference = counts[:bins].copy()
        reference[-1] += counts[bins:].sum()
        quantized = np.zeros(bins)
        edges = [level * bins // levels for level in range(levels)] + [bins]
        for start, end in itertools.pairwise(edges):
            filled = reference[start:end] > 0
            if filled.any():
                quantized[start:end][filled] = counts[start:end].sum() / filled.sum()
        p, q = reference / reference.sum(), quantized / quantized.sum()
        terms = [a * np.log(a / b) if b > 0 else np.inf for a, b in zip(p, q, strict=True) if a > 0]
        divergences.append(float(sum(terms)))
    return divergences


@given(SEEDS, st.booleans())
@settings(max_examples=4, deadline=None)
def test_the_entropy_threshold_is_the_plain_algorithms(seed: int, relu: bool) -> None:
    values = _values(seed, relu=relu, images=40)
    histogram = _histogram(values)
    levels = 256 if relu else 128
    low, high = least_divergence(histogram, UINT8)
    bins = math.ceil(max(-low, high) / histogram.width)
    top = int(np.abs(values).max() / histogram.width) + 1
    # Some of the 256 thresholds that are tried: between them a better one may lie.
    tried = np.unique(np.linspace(levels, top, 256).round().astype(int))[::23]
    ours, *others = _plain_divergence(values, histogram.width, levels, np.array([bins, *tried]))
    assert np.isfinite(ours)
    assert np.isfinite(others).any()
    assert ours <= min(others) + 1e-9


def test_entropy_cuts_an_outlier() -> None:
    values = np.random.default_rng(0).normal(size=(1, 200_000)).astype(np.float32)
    values[0, 0] = 50.0
    _, high = least_divergence(_histogram(values), INT8_SYMMETRIC)
    assert high < 10.0


@given(SEEDS, st.sampled_from([UINT8, INT8_SYMMETRIC]), st.booleans())
@settings(max_examples=15, deadline=None)
def test_mse_is_no_worse_than_the_extremes(seed: int, grid: Grid, relu: bool) -> None:
    values = _values(seed, relu=relu)

    def error(span: tuple[float, float]) -> float:
        affine = from_range(*span, grid)
        return float(((affine.dequantize(affine.quantize(values)) - values) ** 2).mean())

    histogram = _histogram(values)
    # A bin's values stand at its centre, hence the small slack.
    assert error(least_error(histogram, grid)) <= 1.02 * error((histogram.low, histogram.high))
