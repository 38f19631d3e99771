"""Statistics over raw samples; pure functions. Outliers stay in: a late frame is a late frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ConfigError
from edgetl.records.measured import Latency

EQUAL = 1.02
"""Up to here a ratio of medians counts as equal: less than a machine differs from itself."""

# Resamples drawn at a time: bounds the memory for many samples.
_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Current over baseline, of medians, with a bootstrap interval; above 1 is slower."""

    value: float
    low: float
    high: float
    confidence: float


def percentile(samples: Sequence[float], percent: float) -> float:
    """Percentile with linear interpolation between samples (type 7 of Hyndman and Fan 1996)."""
    return float(np.percentile(_checked(samples, "samples"), percent))


def summarise(
    samples_ms: Sequence[float],
    *,
    scenario: str,
    batch: int,
    threads: int,
    warmup: int,
    throughput: float | None = None,
) -> Latency:
    """Summarise the samples of one call's wall time; the raw samples stay in the record.

    Args:
        samples_ms: milliseconds per call.
        scenario: what was measured, e.g. `single-stream`.
        batch: images per call.
        threads: threads of the engine.
        warmup: calls that came before the first sample.
        throughput: images per second where it was measured by itself; else batch over the mean time.

    Raises:
        ConfigError: no samples, or a sample that is negative or not finite.
    """
    values = _checked(samples_ms, "samples_ms")
    p50, p90, p99 = (float(v) for v in np.percentile(values, [50, 90, 99]))
    mean = float(values.mean())
    if throughput is None:
        throughput = batch * 1000.0 / mean if mean > 0 else 0.0
    return Latency(
        scenario=scenario,
        batch=batch,
        threads=threads,
        warmup=warmup,
        runs=len(values),
        mean_ms=mean,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        throughput=throughput,
        samples_ms=tuple(float(v) for v in values),
    )


def median_ratio(
    baseline_ms: Sequence[float],
    current_ms: Sequence[float],
    *,
    paired: bool,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Ratio:
    """Ratio of medians, current over baseline, with a percentile bootstrap interval.

    Neighbouring samples are alike, so whole blocks of n^(1/3) samples are drawn (circular block bootstrap,
    Politis and Romano 1992). Paired samples (interleaved, sample i of both from one round) are drawn
    together, so that what slows down both cancels out.

    Args:
        baseline_ms: (n,) samples.
        current_ms: (m,) samples; m equals n where paired.
        paired: whether the samples were taken interleaved.
        confidence: share of the resamples that the interval covers.
        resamples: number of bootstrap draws.
        seed: of the draws.

    Raises:
        ConfigError: no samples, or paired samples of different number.
    """
    first, second = _checked(baseline_ms, "baseline_ms"), _checked(current_ms, "current_ms")
    if paired and len(first) != len(second):
        raise ConfigError(f"Paired samples must be as many: got {len(first)} and {len(second)}.")
    if np.median(first) <= 0:
        raise ConfigError("The baseline's median is 0 ms: the clock is too coarse for this call.")
    generator = np.random.default_rng(seed)
    ratios = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        index = _blocks(generator, len(first), count)
        other = index if paired else _blocks(generator, len(second), count)
        ratios.append(np.median(second[other], axis=1) / np.median(first[index], axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(ratios), [tail, 1 - tail])
    value = float(np.median(second) / np.median(first))
    return Ratio(value=value, low=float(low), high=float(high), confidence=confidence)


def _blocks(generator: np.random.Generator, length: int, draws: int) -> NDArray[np.int64]:
    """(draws, length) indices made of runs of neighbours, wrapped around at the end."""
    size = max(1, round(length ** (1 / 3)))
    starts = generator.integers(0, length, (draws, -(-length // size)))
    index = (starts[:, :, None] + np.arange(size)) % length
    return index.reshape(draws, -1)[:, :length]


def _checked(samples: Sequence[float], name: str) -> NDArray[np.float64]:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ConfigError(f"{name}: no samples came.")
    if not np.isfinite(values).all() or (values < 0).any():
        raise ConfigError(f"{name}: a sample is negative or not finite; the clock cannot be trusted.")
    return values
