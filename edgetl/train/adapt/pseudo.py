"""Labels for target images from the network's own answers, and from how the images lie to one another."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_PASSES = 2
_TEMPERATURE = 0.1
"""Of cosines: near 1 among images of one class, they differ by a few tenths."""


def pseudo_labels(
    features: NDArray[np.float32], probabilities: NDArray[np.float32], share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The most confident images of each class, with that class.

    A class's prototype is the mean of all features, weighted by the class's probabilities. Each image gets the class
    of the prototype that is nearest by cosine; the probabilities that follow give better prototypes, twice. So an
    image's label follows from its neighbours as well as from the classifier. Liang, Hu, Feng, "Do We Really Need to
    Access the Source Data? Source Hypothesis Transfer for Unsupervised Domain Adaptation" (ICML 2020), equations 4-6.

    Args:
        features: (N, D) of the target images.
        probabilities: (N, C) of the network, rows summing to 1.
        share: of each class's images that are taken, the most confident first, at least one; in (0, 1].

    Returns:
        (n,) rows that are taken, ascending, and (n,) their classes.
    """
    directions = _normed(features.astype(np.float64))
    found = probabilities.astype(np.float64)
    for _ in range(_PASSES):
        prototypes = _normed(found.T @ directions / (found.sum(0)[:, None] + 1e-12))
        found = _softmax(directions @ prototypes.T / _TEMPERATURE)
    labels, confidence = found.argmax(1), found.max(1)
    taken: list[int] = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        best = own[np.argsort(-confidence[own], kind="stable")]
        taken += best[: max(1, math.ceil(share * len(own)))].tolist()
    rows = np.sort(np.array(taken, dtype=np.int64))
    return rows, labels[rows].astype(np.int64)


def confident(
    probabilities: NDArray[np.float32], share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images of which a network is surest, whatever their class, with its answers.

    Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method" (ICML 2013 workshops). Prototypes help
    where classes look otherwise in the target; where its pictures differ by the camera alone, features of the rarer
    classes lie near the prototypes of others, and the answers are better labels.

    Args:
        probabilities: (N, C) of the network, rows summing to 1.
        share: of the images that are taken, at least one; in (0, 1].

    Returns:
        (n,) rows that are taken, ascending, and (n,) their classes.
    """
    count = max(1, math.ceil(share * len(probabilities)))
    rows = np.sort(np.argsort(-probabilities.max(1), kind="stable")[:count])
    return rows, probabilities[rows].argmax(1).astype(np.int64)


def _normed(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))
