"""Sets of labels that hold the truth as often as asked, by split conformal prediction.

An image's conformity says how far down the list of labels its truth stands: of one class per image the probability of
the truth and of all labels that are less probable (1 where the truth is the most probable); of any number of classes
the least probability among the classes that it shows (1 where it shows none). A set for coverage c takes every label
whose own conformity is at least the k-th highest of the n validation images, k being (n + 1) c rounded up.

For one class per image this is the deterministic set of Romano, Sesia and Candes, "Classification with Valid and
Adaptive Coverage", NeurIPS 2020, equations 4 and 5: the most probable labels up to the one with which enough
probability is gathered. Their random draw, which makes coverage exact where the classifier is right more often than
asked, is left out: it would answer one image now so, now otherwise, and some images not at all. So the set is never
empty, and where the best class alone is right more often than asked, it holds the truth more often than asked.

The guarantee: new images that come as the validation images did (exchangeable) find their truth in their set with
probability c at least, on average over images and over validation splits (marginal: not for every class, nor for every
kind of image). Validation images also chose epochs, temperature and variant, so that it holds to an approximation.

Legend: N images, C classes. Only numpy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ConfigError
from edgetl.records.frozen import dataclass

MOST = 2048
"""Conformities that a bundle carries of an output, at most: of more images every so many-th, by rank."""
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Conformity:
    """Those of the validation images.

    Attributes:
        images: how many there were, n.
        ranked: (min(n, MOST),) falling; the j-th is that of rank j n / MOST, rounded up, where there are more.
    """

    images: int
    ranked: NDArray[np.float32]

    def least(self, coverage: float, what: str) -> float:
        """The conformity that a label needs to be in a set.

        Args:
            coverage: above 0 and below 1.
            what: whose it is, for the error: a bundle's path.

        Raises:
            ConfigError: there are too few images for so much.
        """
        rank = max(1, math.ceil((self.images + 1) * coverage - _ROUNDING))
        if rank > self.images:
            needed = math.ceil(coverage / (1 - coverage) - _ROUNDING)
            most = f"at most {self.images / (self.images + 1):.3g}" if self.images else "none"
            raise ConfigError(
                f"coverage: {coverage:g} needs {needed:,} labelled validation images, and {what} was made with"
                f" {self.images:,}, which allow {most}; ask for less, or train with a larger validation split."
            )
        place = math.ceil(rank * len(self.ranked) / self.images - _ROUNDING)
        return float(self.ranked[place - 1])


def check_coverage(coverage: float) -> None:
    """Raises ConfigError where it is not above 0 and below 1."""
    if not 0.0 < coverage < 1.0:
        raise ConfigError(
            f"coverage: got {coverage:g}, expected a share above 0 and below 1, as 0.95: how often the set of labels"
            " is to hold the truth."
        )


def conformity(values: NDArray[np.float64]) -> Conformity:
    """What is kept of (N,) conformities in 0..1.

    They are rounded down to float32, so that a set does not lose a label by it.
    """
    falling = np.sort(np.asarray(values, dtype=np.float64))[::-1]
    images, kept = len(falling), min(len(falling), MOST)
    # As `least` asks: whole numbers, so that no rank is missed by a rounding.
    places = -(-np.arange(1, kept + 1, dtype=np.int64) * images // max(1, kept)) - 1
    ranked = falling[places].astype(np.float32)
    over = ranked > falling[places]
    ranked[over] = np.nextafter(ranked[over], np.float32(0))
    return Conformity(images=images, ranked=ranked)


def ranked_one(probabilities: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The classes by falling probability, of equal ones the first first, and each one's conformity.

    Args:
        probabilities: (N, C) float, each row sums to 1.

    Returns:
        (N, C) int64 places, and (N, C) float64 in this order, falling from 1.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    order = np.argsort(-values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    rest = np.cumsum(ordered[:, ::-1], axis=1)[:, ::-1].copy()
    rest[:, 0] = 1.0
    return order.astype(np.int64), rest


def conformities_one(probabilities: NDArray[Any], truths: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) of one class per image; `truths` (N,) int."""
    order, rest = ranked_one(probabilities)
    places = (order == np.asarray(truths)[:, None]).argmax(axis=1)
    return np.asarray(rest[np.arange(len(rest)), places])


def conformities_any(probabilities: NDArray[Any], truths: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) of any number of classes per image; both (N, C)."""
    return np.asarray(np.where(truths, probabilities, 1.0).min(axis=1, initial=1.0))


def sets_one(probabilities: NDArray[Any], least: float) -> NDArray[np.bool_]:
    """(N, C) which classes are in each image's set; one at least."""
    order, rest = ranked_one(probabilities)
    found = np.empty(rest.shape, dtype=bool)
    np.put_along_axis(found, order, rest >= least, axis=1)
    return found


def sets_any(probabilities: NDArray[Any], least: float) -> NDArray[np.bool_]:
    """(N, C) which classes are in each image's set, of any number of classes per image."""
    return np.asarray(np.asarray(probabilities) >= least)
