"""How far an image's embedding lies from those of training images: the distance to the k-th nearest.

Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022: embeddings of length 1, Euclidean
distance. They take k = 1,000 of ImageNet's 1.3 million and k = 50 of CIFAR's 50,000 embeddings, about one in a
thousand, and fewer in proportion where only a share of them is kept: so does this.

Distances are right to 1e-3, since products are in float32 and embeddings are kept in half precision; what is shorter
counts as 0.

Legend: N training images, M images, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHARE = 1_000
_PRECISION = 1e-3


class Neighbours:
    """Training images to compare others with.

    Args:
        embeddings: (N, F) float, of training images.
        k: which neighbour counts; by default one in a thousand, and at least the first.
    """

    def __init__(self, embeddings: NDArray[Any], *, k: int | None = None) -> None:
        values = np.asarray(embeddings, dtype=np.float32)
        self._known = np.ascontiguousarray((values / _lengths(values)[:, None]).T)
        self._k = min(len(embeddings), max(1, len(embeddings) // _SHARE) if k is None else k)

    def score(self, embeddings: NDArray[Any]) -> NDArray[np.float64]:
        """(M,) in 0..2 of images with these embeddings, (M, F) float."""
        values = np.asarray(embeddings, dtype=np.float32)
        likeness = values @ self._known
        place = likeness.shape[1] - self._k
        nearest = likeness.max(axis=1) if self._k == 1 else np.partition(likeness, place, axis=1)[:, place]
        squares = 2.0 - 2.0 * (nearest / _lengths(values))
        squares[squares < _PRECISION**2] = 0.0
        return np.asarray(np.sqrt(squares))


def _lengths(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each row's length (N,), above 0."""
    squares = (values[:, None, :] @ values[:, :, None])[:, 0, 0]
    return np.asarray(np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny), dtype=np.float64))
