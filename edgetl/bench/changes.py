"""Where the level of a series changes: binary segmentation (Scott and Knott 1974) with a rank test at every split.

The statistic is the largest standardised rank sum over all splits (Pettitt 1979 takes the largest plain one, which is
blind near the ends). Ranks make it robust: one outlier, however far out, counts as one rank. How large the statistic
gets by chance depends only on the number of values, so its critical value is found by shuffling ranks. Whether there
is a change is so decided; it lies where the two medians leave the least absolute deviation.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EDGE = 3
"""The shortest stretch that counts as a level."""

_SHUFFLES = 4000
_BLOCKS = 40
# Beyond this length the critical value hardly grows, and the series is cut to its blocks' medians before.
_LONGEST = 400


@dataclass(frozen=True, kw_only=True)
class ChangePoint:
    """The level moves at `index`, the first value of the new level; `before` and `after` are medians."""

    index: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """New level over old; infinite after a level of 0."""
        return self.after / self.before if self.before else float("inf")


def change_points(
    values: Sequence[float] | NDArray[np.float64], *, level: float = 0.01, least: float = 0.02
) -> tuple[ChangePoint, ...]:
    """Changes of level, in order.

    Args:
        values: (n,) positive values in order of time, e.g. latencies; at most 400.
        level: the chance of finding a change in a stretch that has none.
        least: changes of the median by less than this share are left out: two levels that a user would call equal.

    Raises:
        ValueError: more than 400 values came.
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) > _LONGEST:
        raise ValueError(f"{len(series)} values came, expected at most {_LONGEST}: take medians of blocks")
    if not len(series):
        return ()
    splits = sorted(_segment(series, 0, len(series), level))
    while True:
        edges = [0, *splits, len(series)]
        medians = [float(np.median(series[a:b])) for a, b in itertools.pairwise(edges)]
        found = [
            ChangePoint(index=at, before=before, after=after)
            for at, (before, after) in zip(splits, itertools.pairwise(medians), strict=True)
        ]
        small = [c for c in found if abs(c.ratio - 1) < least]
        if not small:
            return tuple(found)
        splits.remove(min(small, key=lambda c: abs(c.ratio - 1)).index)


def level_shifts(
    samples: Sequence[float], *, level: float = 0.01, least: float = 0.05
) -> tuple[ChangePoint, ...]:
    """Changes of level in raw samples of one run; `index` counts samples.

    Neighbouring samples are alike, which a test for independent values takes for change: so medians of about forty
    blocks are tested, not the samples.
    """
    parts = np.array_split(np.asarray(samples, dtype=np.float64), max(1, min(_BLOCKS, len(samples))))
    starts = np.cumsum([0, *(len(part) for part in parts)])
    found = change_points([float(np.median(part)) for part in parts], level=level, least=least)
    return tuple(
        ChangePoint(index=int(starts[change.index]), before=change.before, after=change.after)
        for change in found
    )


def largest_score(values: NDArray[np.float64]) -> float:
    """The largest standardised rank sum over all splits; 0 where there is no split, or all values are equal."""
    if len(values) < 2 * EDGE:
        return 0.0
    ranks = _ranks(values)
    variance = float(ranks.var(ddof=1))
    return float(np.abs(_standardised(ranks[None], variance)).max()) if variance else 0.0


def _standardised(ranks: NDArray[np.float64], variance: float) -> NDArray[np.float64]:
    """(k, n) rows of ranks to (k, n - 2 EDGE + 1) rank sums of the first t, less their mean, over their deviation."""
    count = ranks.shape[1]
    t = np.arange(EDGE, count - EDGE + 1)
    sums = ranks.cumsum(axis=1)[:, EDGE - 1 : count - EDGE]
    standardised: NDArray[np.float64] = (sums - t * (count + 1) / 2) / np.sqrt(
        variance * t * (count - t) / count
    )
    return standardised


@functools.lru_cache(maxsize=512)
def critical(count: int, level: float) -> float:
    """What `largest_score` of `count` exchangeable values exceeds with probability `level` at most."""
    generator = np.random.default_rng(count)
    ranks = np.tile(np.arange(1.0, count + 1), (_SHUFFLES, 1))
    largest = np.abs(_standardised(generator.permuted(ranks, axis=1), float(ranks[0].var(ddof=1)))).max(
        axis=1
    )
    return float(np.quantile(largest, 1 - level, method="higher"))


def _segment(series: NDArray[np.float64], start: int, end: int, level: float) -> list[int]:
    part = series[start:end]
    if len(part) < 2 * EDGE or largest_score(part) <= critical(len(part), level):
        return []
    splits = range(EDGE, len(part) - EDGE + 1)
    middle = start + min(splits, key=lambda at: _deviation(part[:at]) + _deviation(part[at:]))
    return [*_segment(series, start, middle, level), middle, *_segment(series, middle, end, level)]


def _deviation(part: NDArray[np.float64]) -> float:
    return float(np.abs(part - np.median(part)).sum())


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks
