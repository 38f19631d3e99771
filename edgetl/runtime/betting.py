"""Bets that images are no longer those of a reference: a sequential test that may be looked at after every image.

Each bet multiplies its stake by what it pays for an image, and would on average win nothing while the images are like
the reference's. Then the whole capital, begun with 1, ever reaches 1/a with a chance of at most a (Ville 1939; Vovk,
Nouretdinov and Gammerman, "Testing exchangeability on-line", ICML 2003; Shafer 2021). Of two kinds:

- on a number (brightness, ...): by its rank u among the m reference images, in (0, 1), a bet that it rises pays
  p u^(p-1), one that it falls p (1-u)^(p-1), for some powers p: large ones win by large changes, small ones by small.
- on a class: by whether it was answered, the ratio of the likelihoods of other odds and of the reference's odds.

A stake is set on each image as the moment of the change: half of the capital on the first one, the other half on all
later ones, w_j ~ 1/(j log^2 j), so that a change after a million images is found almost as fast as one after ten. That
needs one number a bet, since bets that started earlier and later are paid alike (Shiryaev-Roberts).

The reference is a sample. Against a fixed one, ranks are not quite uniform, and a test without end would find that out:
alarms on images that are the same as ever. So each bet is paid less, by a factor such that it does not win on average,
given the reference, whichever continuous distribution the images come from. Given the reference an image falls between
two of its values with shares that are Dirichlet(1, ..., 1) over the m+1 gaps, whose weighted mean has a Chernoff bound.
With the class rates it is the bound on a binomial's share by relative entropy. One half of the stated rate is spent on
these bounds, the other on the capital. Such bets do not win by changes that are too small to be distinguished from the
reference's own error: about half of a standard deviation with 200 images.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

POWERS = (1.4, 2.0, 4.0, 8.0)
"""Of the bets on a number."""
ODDS = (3.0, 10.0)
"""By how much a class's odds rise, or fall, in the bets on it."""

MOST = 1e250
"""Of a bet's capital, which is counted no further; an alarm was long before."""

AT_ONCE = 8
"""Images that bets are paid for at once, at most: the product of so many of the least payments is still a number."""

_FIRST = 0.5
"""Share of the capital that is set on the first image."""
_SOFTENED = 50.0
"""Added to an image's number, so that the stakes of the first ones are not much larger than later ones."""
_STEPS = 40
_GRID = np.linspace(0.002, 0.998, 80)


@functools.lru_cache(maxsize=8)
def payoffs(images: int, level: float) -> NDArray[np.float64]:
    """What bets on a number pay, by rank.

    Args:
        images: of the reference, m.
        level: chance, of each bet, that it would win on average although nothing changed.

    Returns:
        (2 P, m+1) float64, logarithms: for each of the P powers that it rises, then that it falls; for an image between
        the j-th and the next of the ranked reference.
    """
    ranks = (np.arange(images + 1) + 0.5) / (images + 1)
    found = []
    for power in POWERS:
        rising = power * ranks ** (power - 1)
        rising = np.log(rising / largest_mean(rising, level))
        found += [rising, rising[::-1]]
    table = np.array(found)
    table.setflags(write=False)
    return table


def largest_mean(values: NDArray[np.float64], level: float) -> float:
    """A bound that the mean of values with Dirichlet(1, ..., 1) weights exceeds with a chance of at most `level`.

    Such weights are independent exponential numbers over their sum, so the mean exceeds c where the sum of
    E_j (v_j - c) is above 0, the chance of which is at most the product of 1 / (1 - t (v_j - c)) for any t that is
    small enough; the best of some t is taken, and the least such c.
    """
    low, high = float(values.mean()), float(values.max())
    for _ in range(_STEPS):
        middle = (low + high) / 2
        away = values - middle
        top = float(away.max())
        if top <= 0:
            break
        chances = -np.log1p(-np.outer(_GRID / top, away)).sum(axis=1)
        if float(chances.min()) <= math.log(level):
            high = middle
        else:
            low = middle
    return high


def class_payoffs(counts: NDArray[np.int64], images: int, level: float) -> NDArray[np.float64]:
    """What bets on classes pay.

    Args:
        counts: (C,) of the reference's images, those with the class in their answer.
        images: of the reference.
        level: as in `payoffs`.

    Returns:
        (2, 2 O, C) float64, logarithms: of an answer without the class, and with it; for each of the O odds that it
        comes more often, then that it comes less often.
    """
    found = np.zeros((2, 2 * len(ODDS), len(counts)))
    for place, count in enumerate(counts.tolist()):
        for at, (rate, factors) in enumerate(
            (
                (largest_share(count, images, level), ODDS),
                (1.0 - largest_share(images - count, images, level), tuple(1 / odds for odds in ODDS)),
            )
        ):
            if not 0.0 < rate < 1.0:
                continue  # Nothing can be more often than always, or less often than never.
            for row, factor in enumerate(factors):
                other = factor * rate / (1.0 - rate + factor * rate)
                found[0, 2 * row + at, place] = math.log((1.0 - other) / (1.0 - rate))
                found[1, 2 * row + at, place] = math.log(other / rate)
    return found


def largest_share(count: int, images: int, level: float) -> float:
    """The largest true share of which so few were found with a chance of at least `level`, by relative entropy."""
    if count >= images:
        return 1.0
    share, most = count / images, -math.log(level) / images
    low, high = share, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        distance = (share * math.log(share / middle) if share else 0.0) + (1 - share) * math.log(
            (1 - share) / (1 - middle)
        )
        low, high = (middle, high) if distance < most else (low, middle)
    return high


def stake(number: int) -> float:
    """The logarithm of the share of a bet's capital that is set on a change at image `number`, from 1 on."""
    softened = number + _SOFTENED
    later = (1.0 - _FIRST) * math.log(_SOFTENED) / (softened * math.log(softened) ** 2)
    return math.log(later + _FIRST * (number == 1))


class Capital:
    """The capital of some bets that are paid image by image; bounded memory.

    Attributes:
        values: each bet's capital, without what it has not set yet; at most `MOST`.
        since: the image of each bet's best stake: where the change most likely began.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.values = np.zeros(shape)
        self.since = np.ones(shape, dtype=np.int64)
        self._best = np.zeros(shape)

    def pay(self, gains: NDArray[np.float64], first: int) -> NDArray[np.float64]:
        """Take some images, the first of which has this number; a few at once cost hardly more than one.

        Args:
            gains: (N, *shape) above 0, how many times its stake each bet is paid for each image; N at most `AT_ONCE`.
            first: from 1 on.

        Returns:
            (N, *shape) each bet's capital after each image.
        """
        new = np.array([math.exp(stake(first + at)) for at in range(len(gains))])
        new = new.reshape(-1, *(1,) * self.values.ndim)
        grown = np.cumprod(gains, axis=0)
        staked = new * (gains / grown)  # As if all of it had been set before the first image.
        paid = (np.cumsum(staked, axis=0) + self.values) * grown
        best = staked.argmax(axis=0)
        top = staked.max(axis=0)
        later = self._best < top
        self.since[later] = first + best[later]
        for held, now in ((self._best, np.maximum(self._best, top) * grown[-1]), (self.values, paid[-1])):
            np.minimum(now, MOST, out=held)
        return paid

    @property
    def logs(self) -> NDArray[np.float64]:
        """The logarithms of `values`."""
        return logarithms(self.values)


def logarithms(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of numbers from 0 on."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def images_needed(images: int, level: float, threshold: float, shift: float) -> float:
    """How many images a change takes on average to be found that lasts from the first one on.

    Args:
        images, level: as in `payoffs`.
        threshold: the logarithm of what the capital of a number's bets must reach.
        shift: by how many standard deviations a normally distributed number moves.

    Returns:
        Infinite where that is too little to be distinguished from the reference's own error.
    """
    from statistics import NormalDist

    normal = NormalDist()
    points = [normal.inv_cdf((at + 0.5) / 400) for at in range(400)]
    cells = [min(images, int(normal.cdf(point + shift) * (images + 1))) for point in points]
    growth = payoffs(images, level)[:, cells].mean(axis=1)
    best = float(growth.max())
    needed = threshold + math.log(len(growth)) - stake(1)
    return math.inf if best <= 0 else needed / best
