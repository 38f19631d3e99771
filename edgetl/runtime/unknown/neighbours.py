"""How far an image's embedding lies from those of training images: the distance to the k-th nearest.

Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022: embeddings of length 1, Euclidean
distance. They take k = 1,000 of ImageNet's 1.3 million and k = 50 of CIFAR's 50,000 embeddings, about one in a
thousand, and fewer in proportion where only a share of them is kept: so does this.

Legend: N training images, M images, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHARE = 1_000


class Neighbours:
    """Training images to compare others with.

    Args:
        embeddings: (N, F) float, of training images.
        k: which neighbour counts; by default one in a thousand, and at least the first.
    """

    def __init__(self, embeddings: NDArray[Any], *, k: int | None = None) -> None:
        self._known = _unit(embeddings)
        self._k = min(len(embeddings), max(1, len(embeddings) // _SHARE) if k is None else k)

    def score(self, embeddings: NDArray[Any]) -> NDArray[np.float64]:
        """(M,) in 0..2 of images with these embeddings, (M, F) float."""
        likeness = _unit(embeddings) @ self._known.T
        nearest = -np.partition(-likeness, self._k - 1, axis=1)[:, self._k - 1]
        return np.sqrt(np.maximum(2.0 - 2.0 * nearest.astype(np.float64), 0.0))


def _unit(embeddings: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of length 1; in float32, of which the distances are right to 1e-3."""
    values = np.asarray(embeddings, dtype=np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(lengths, np.finfo(np.float64).tiny), dtype=np.float32)
