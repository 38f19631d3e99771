"""LogME: how well a frozen network's features explain labels, without training and without a split to score on.

You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning" (ICML 2021). Labels are taken for
a linear function of the features with a Gaussian prior on its weights, and Gaussian noise; the score is the logarithm
of the evidence, the probability of the labels with the weights integrated out, at the variances that make it largest.
It is given per image and is a mean over the classes. Higher is better; only scores of the same images compare.

Legend: N images, F features, C classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError

_TINY = 1e-12
"""Directions in which the features vary by less than this share of the largest variance are rounding errors."""
_GRID = np.logspace(-12, 6, 73)
"""Ratios of the noise's to the weights' variance that are tried, in units of the features' largest variance."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_REFINEMENTS = 30


def logme(features: NDArray[Any], labels: NDArray[Any]) -> float:
    """The score of features for labels.

    Args:
        features: (N, F) float, as the last layer gets them.
        labels: (N, C) float, 1 where the image is of the class, else 0. Classes without an image are left out.

    Raises:
        TensorError: the shapes do not fit, nothing is left to explain, or a feature is not finite.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not x.size:
        raise TensorError(f"features and labels: got {x.shape} and {y.shape}, expected (N, F) and (N, C).")
    if not np.isfinite(x).all():
        raise TensorError("features: a value is not finite.")
    y = y[:, y.any(axis=0)]
    if not y.size or not x.any():
        raise TensorError("LogME needs features that are not all 0 and a class that has an image.")
    variances, along, outside = _spectrum(x, y)
    return float(_largest_evidence(variances, along, outside, len(x)).mean() / len(x))


def _spectrum(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The features' variances (R,) along their principal directions, the squared parts (C, R) of the labels along
    these, and what of the labels (C,) lies outside."""
    wide = len(x) <= x.shape[1]
    variances, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = variances > _TINY * variances[-1]
    variances, vectors = variances[kept], vectors[:, kept]
    along = vectors.T @ y if wide else (vectors.T @ (x.T @ y)) / np.sqrt(variances)[:, None]
    squares = along.T**2
    return variances, squares, np.maximum((y**2).sum(axis=0) - squares.sum(axis=1), 0.0)


def _largest_evidence(
    variances: NDArray[np.float64], along: NDArray[np.float64], outside: NDArray[np.float64], images: int
) -> NDArray[np.float64]:
    """(C,): the logarithm of the evidence at its largest.

    With r the ratio of the noise's variance to the weights', the labels have the covariance s (1 + x x' / r); the
    best s stands in closed form, so that one number is left to look for: on a grid, then by golden section.
    """

    def evidence(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
        """At a ratio for each class, (C,) or (1,)."""
        spread = 1.0 + variances / ratios[:, None]
        noise = ((along / spread).sum(axis=1) + outside) / images
        determinant = np.log(spread).sum(axis=1)
        found: NDArray[np.float64] = -0.5 * (
            images * (math.log(2 * math.pi) + np.log(noise) + 1.0) + determinant
        )
        return found

    grid = _GRID * variances[-1]
    tried = np.stack([evidence(ratio[None]) for ratio in grid])
    best = tried.argmax(axis=0)
    low, high = (np.log(grid[np.clip(best + step, 0, len(grid) - 1)]) for step in (-1, 1))
    for _ in range(_REFINEMENTS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        rises = evidence(np.exp(left)) < evidence(np.exp(right))
        low, high = np.where(rises, left, low), np.where(rises, high, right)
    refined: NDArray[np.float64] = np.maximum(evidence(np.exp((low + high) / 2)), tried.max(axis=0))
    return refined
