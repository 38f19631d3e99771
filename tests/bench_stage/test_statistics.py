from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.bench.statistics import median_ratio, percentile, summarise
from edgetl.errors import ConfigError

SAMPLES = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60)


def test_summary_on_exact_numbers() -> None:
    latency = summarise(range(1, 101), scenario="single-stream", batch=1, threads=2, warmup=5)
    assert (latency.runs, latency.warmup, latency.threads, latency.batch) == (100, 5, 2, 1)
    assert latency.mean_ms == pytest.approx(50.5)
    assert latency.p50_ms == pytest.approx(50.5)
    assert latency.p90_ms == pytest.approx(90.1)
    assert latency.p99_ms == pytest.approx(99.01)
    assert latency.throughput == pytest.approx(1000 / 50.5)
    assert latency.samples_ms == tuple(float(v) for v in range(1, 101))


def test_outliers_are_kept() -> None:
    latency = summarise([1.0] * 99 + [1000.0], scenario="x", batch=4, threads=1, warmup=0)
    assert max(latency.samples_ms) == 1000.0
    assert latency.mean_ms == pytest.approx(10.99)
    assert latency.p50_ms == 1.0
    assert latency.throughput == pytest.approx(4 * 1000 / 10.99)


@given(SAMPLES)
def test_percentiles_are_ordered_and_inside(samples: list[float]) -> None:
    latency = summarise(samples, scenario="x", batch=1, threads=1, warmup=0)
    slack = 1e-9 * max(samples)
    figures = [min(samples), latency.p50_ms, latency.p90_ms, latency.p99_ms, max(samples)]
    assert all(a <= b + slack for a, b in itertools.pairwise(figures))


@given(SAMPLES, st.floats(0, 100))
def test_percentile_agrees_with_its_definition(samples: list[float], percent: float) -> None:
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    expected = below + (above - below) * (place - math.floor(place))
    assert percentile(samples, percent) == pytest.approx(expected)


def test_ratio_of_equal_samples_is_one() -> None:
    samples = list(np.random.default_rng(0).lognormal(0, 0.1, 100))
    ratio = median_ratio(samples, samples, paired=True)
    assert (ratio.value, ratio.low, ratio.high, ratio.confidence) == (1.0, 1.0, 1.0, 0.95)


def test_a_slowdown_is_found_with_its_interval() -> None:
    base = np.random.default_rng(1).lognormal(0, 0.05, 300)
    other = np.random.default_rng(2).lognormal(0, 0.05, 300) * 1.10
    ratio = median_ratio(base, other, paired=False)
    assert ratio.value == pytest.approx(1.10, abs=0.02)
    assert 1.05 < ratio.low < ratio.value < ratio.high < 1.15
    assert ratio == median_ratio(base, other, paired=False)
    assert ratio != median_ratio(base, other, paired=False, seed=1)


def test_pairing_cancels_what_slows_down_both() -> None:
    generator = np.random.default_rng(3)
    drift = np.repeat(generator.uniform(1, 3, 10), 20)
    base = drift * generator.normal(1, 0.01, 200)
    other = drift * generator.normal(1.05, 0.01, 200)
    paired, apart = median_ratio(base, other, paired=True), median_ratio(base, other, paired=False)
    assert paired.high - paired.low < (apart.high - apart.low) / 2
    assert paired.low < 1.05 < paired.high


def test_the_interval_covers_no_change_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        noise = generator.normal(0, 1, (2, 121))
        # Neighbours are alike, as on a real machine.
        base, other = np.exp(0.05 * (noise[:, 1:] + 0.5 * noise[:, :-1]))
        ratio = median_ratio(base, other, paired=True, resamples=400, seed=seed)
        covered += ratio.low <= 1.0 <= ratio.high
    assert covered / 200 > 0.88


@settings(max_examples=30)
@given(SAMPLES, st.floats(0.1, 10))
def test_scaling_the_current_samples_scales_the_ratio(samples: list[float], factor: float) -> None:
    plain = median_ratio(samples, samples, paired=True, resamples=50)
    scaled = median_ratio(samples, [factor * s for s in samples], paired=True, resamples=50)
    assert scaled.value == pytest.approx(factor * plain.value)
    assert scaled.low == pytest.approx(factor * plain.low)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "samples_ms: no samples came"),
        ([1.0, -0.5], "samples_ms: a sample is negative or not finite; the clock cannot be trusted"),
        ([1.0, math.nan], "samples_ms: a sample is negative or not finite"),
        ([math.inf], "samples_ms: a sample is negative or not finite"),
    ],
)
def test_samples_that_cannot_be_are_refused(samples: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        summarise(samples, scenario="x", batch=1, threads=1, warmup=0)


def test_pairs_must_be_as_many_and_above_zero() -> None:
    with pytest.raises(ConfigError, match="Paired samples must be as many: got 2 and 3"):
        median_ratio([1.0, 2.0], [1.0, 2.0, 3.0], paired=True)
    with pytest.raises(ConfigError, match="median is 0 ms: the clock is too coarse"):
        median_ratio([0.0, 0.0], [1.0, 1.0], paired=True)
