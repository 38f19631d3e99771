"""How strange an image is to the network, and beyond that how unlike known ones its picture itself looks.

A network of few classes maps what it never met onto what it knows, so that a picture of another world can have quite
usual features; its brightness, sharpness and colours (`edgetl.inputs.looks`) often give it away. Their distance from
those of training images is Mahalanobis's (as of features in Lee et al., "A simple unified framework for detecting
out-of-distribution samples", NeurIPS 2018). Looks say nothing about what is shown, so they count only where they are
stranger than of 95% of validation images: within, the network's own score stands alone.

Both are measured from the median of validation images, in units of the way from there to the 95% quantile, and added.

Legend: N training images, V validation images, M images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.inputs.looks import PIXELS, looks
from edgetl.tasks.base import Outputs

if TYPE_CHECKING:
    from edgetl.runtime.stream import Seen

_USUAL = 0.95
_LEAST = np.array((1.0, 1.0, 1.0, 0.005, 0.005, 0.005, 0.005))
"""The least deviation of each of the looks: what rounding moves them by, where all known images have the same."""
_RIDGE = 1e-3


class Looks:
    """What it takes to add looks to a score.

    Args:
        known: (N, 7) float, looks of training images.
        fresh: (V, 7) float, of validation images.
        strange: (V,) float, the validation images by the network's score.
    """

    def __init__(self, known: NDArray[Any], fresh: NDArray[Any], strange: NDArray[np.float64]) -> None:
        values = np.asarray(known, dtype=np.float64)
        self._centre = values.mean(axis=0)
        scale = np.maximum(values.std(axis=0), _LEAST)
        centred = (values - self._centre) / scale
        spread = centred.T @ centred / len(values)
        # Looks that never moved are given the least deviation, and those that always moved together are kept apart.
        np.fill_diagonal(spread, 1.0 + _RIDGE)
        self._whiten = np.linalg.cholesky(np.linalg.inv(spread)) / scale[:, None]
        self._usual = _usual(self._distance(fresh))
        self._usual_strange = _usual(np.asarray(strange, dtype=np.float64))

    def score(self, seen: NDArray[Any], strange: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M,) of images with these looks, (M, 7) float, and these scores by the network, (M,)."""
        (median, unit), (own_median, own_unit) = self._usual, self._usual_strange
        beyond = (self._distance(seen) - median) / unit - 1.0
        return np.asarray((strange - own_median) / own_unit + np.maximum(0.0, beyond))

    def _distance(self, seen: NDArray[Any]) -> NDArray[np.float64]:
        whitened = (np.asarray(seen, dtype=np.float64) - self._centre) @ self._whiten
        return np.asarray(np.sqrt((whitened * whitened).sum(axis=1)))


def with_looks(seen: Seen) -> Outputs:
    """An image's outputs with the looks of its pixels."""
    assert seen.pixels is not None
    return {**seen.outputs, PIXELS: looks(seen.pixels)[None]}


def _usual(values: NDArray[np.float64]) -> tuple[float, float]:
    """The median, and how far above it the 95% quantile lies; 1 where that is nothing."""
    median, high = np.quantile(values, (0.5, _USUAL)).tolist()
    return median, high - median if high > median else 1.0
