"""Statistics as pure functions: intervals of proportions, paired comparisons, bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.frozen import dataclass

Z95 = 1.959963984540054
"""97.5% quantile of the standard normal distribution."""


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) for no trials."""
    if trials == 0:
        return (0.0, 1.0)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # At 0 and at all successes the bound is exact; rounding would miss it by 1e-17.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == trials else min(1.0, (centre + half) / scale)
    return (low, high)


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Two classifiers on the same images.

    `only_first` images were right only by the first, `only_second` only by the second. `difference` is the
    second's accuracy less the first's, `interval` its 95% interval, `p_value` of the exact McNemar test.
    """

    images: int
    only_first: int
    only_second: int
    difference: float
    interval: tuple[float, float]
    p_value: float


def compare_paired(first: NDArray[Any], second: NDArray[Any]) -> PairedComparison:
    """Compare two classifiers image by image.

    The p-value is McNemar's (1947) in its exact binomial form; the interval is `paired_interval`.

    Args:
        first: (N,) bool, which images the first classifier got right.
        second: (N,) bool, the same images in the same order.

    Raises:
        TensorError: the lengths differ or are 0.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise TensorError(
            f"first {first.shape} and second {second.shape}: expected (N,) twice, N at least 1."
        )
    images, (lost, won) = len(first), discordant(first, second)
    return PairedComparison(
        images=images,
        only_first=lost,
        only_second=won,
        difference=(won - lost) / images,
        interval=paired_interval(lost, won, images),
        p_value=min(1.0, 2 * binomial_tail(max(lost, won), lost + won)),
    )


def discordant(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int]:
    """How many of the same images only the first was right on, and how many only the second."""
    return int((first & ~second).sum()), int((~first & second).sum())


def paired_interval(lost: float, won: float, images: float, z: float = Z95) -> tuple[float, float]:
    """Score interval of a difference of paired proportions, second less first (Tango 1998).

    It holds its level on small sets and where no image flipped: then its ends are z^2 / (images + z^2) from 0.

    Args:
        lost: images that were right only by the first classifier.
        won: images that were right only by the second.
        images: all images, at least 1.
        z: quantile of the standard normal distribution; 1.96 gives 95%.
    """

    def score(difference: float) -> float:
        # The share of lost images that is likeliest under this difference solves a quadratic equation.
        b = (2 * images - won + lost) * difference - won - lost
        c = -lost * difference * (1 - difference)
        share = (math.sqrt(max(0.0, b * b - 8 * images * c)) - b) / (4 * images)
        variance = images * (2 * share + difference * (1 - difference))
        distance = won - lost - images * difference
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    measured = (won - lost) / images
    return (_root(score, z, -1.0, measured), _root(score, -z, measured, 1.0))


def binomial_tail(successes: int, trials: int, chance: float = 0.5) -> float:
    """P of at least `successes` in `trials` that succeed with `chance` (0..1, exclusive) each, exactly.

    For a fair coin it is McNemar's exact test, one-sided.
    """
    return min(1.0, math.fsum(_binomial(k, trials, chance) for k in range(max(0, successes), trials + 1)))


def most_by_chance(trials: int, chance: float, *, level: float = 0.01) -> int:
    """The most successes of `trials` that chance explains: more happen with a probability below `level`, exactly."""
    tail = 0.0
    for successes in range(trials, 0, -1):
        tail += _binomial(successes, trials, chance)
        if tail >= level:
            return successes
    return 0


def _binomial(successes: int, trials: int, chance: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    return math.exp(ways + successes * math.log(chance) + (trials - successes) * math.log1p(-chance))


def difference_interval(
    first: tuple[float, tuple[float, float]], second: tuple[float, tuple[float, float]]
) -> tuple[float, float]:
    """95% interval of second less first for independent proportions, from their Wilson intervals.

    Newcombe (1998), method 10. Each argument is (proportion, (low, high)).
    """
    (p, (p_low, p_high)), (q, (q_low, q_high)) = first, second
    low = q - p - math.hypot(q - q_low, p_high - p)
    high = q - p + math.hypot(q_high - q, p - p_low)
    return (max(-1.0, low), min(1.0, high))


def _root(falling: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a falling function takes `value`, to 2^-50 of the range; an end where it never does."""
    if falling(low) <= value:
        return low
    if falling(high) >= value:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > value else (low, middle)
    return (low + high) / 2
