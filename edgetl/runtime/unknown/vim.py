"""How much of an image's embedding lies outside what training images span, against what its logits say.

Virtual-logit matching (Wang et al., "ViM: Out-of-distribution with virtual-logit matching", CVPR 2022, section 4). The
origin is where the last layer answers nothing, -W^+ b. The principal space is that of the training embeddings' largest
`dimension` eigenvectors; what of an embedding stands out of it, times alpha, is one more logit, that of no class. Its
probability beside the others grows with alpha ||x_out|| - log sum exp of the logits, which is the score. Instead of the
last term others' energies do for any number of classes and for several heads (`edgetl.runtime.unknown.energy`).

Two things differ, since a bundle keeps but some of the training embeddings. Half as many dimensions are taken as there
are features, as the authors advise for fewer than 768, yet no more than half as many as embeddings: so many span
themselves. And alpha, which gives the new logit the size of the others, is taken on images that the space was not made
from, since those from which it was made stand out of it too little.

Products are in float32; what stands out by less than a thousandth of the embedding's length counts as 0.

Legend: N training images, M images, F features, C classes of all outputs together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PRECISION = 1e-3


class Vim:
    """A principal space and what it takes to score by it.

    Args:
        embeddings: (N, F) float, of training images.
        weights: (C, F) float, of the last layer.
        bias: (C,) float, of the last layer.
        fresh: (M, F) float, the embeddings by which alpha is chosen.
        logits: (M, C) float, of the same images.
        dimension: of the principal space; see the module where unset.
    """

    def __init__(
        self,
        embeddings: NDArray[Any],
        *,
        weights: NDArray[Any],
        bias: NDArray[Any],
        fresh: NDArray[Any],
        logits: NDArray[Any],
        dimension: int | None = None,
    ) -> None:
        count, features = embeddings.shape
        kept = max(1, min(features // 2, count // 2)) if dimension is None else dimension
        origin = np.linalg.lstsq(
            np.asarray(weights, dtype=np.float64), -np.asarray(bias, dtype=np.float64), rcond=None
        )[0]
        centred = np.asarray(embeddings, dtype=np.float64) - origin
        across = np.linalg.svd(centred, full_matrices=False)[2][:kept].T
        # In single precision there is half as much to read for each image.
        self._across = np.ascontiguousarray(across, dtype=np.float32)
        self._shift = np.asarray(origin, dtype=np.float32)
        outside = self._outside(fresh).sum()
        largest = np.asarray(logits, dtype=np.float64).max(axis=1).sum()
        self._alpha = max(0.0, float(largest / outside)) if outside > 0 else 0.0

    def score(self, embeddings: NDArray[Any], energies: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M,) of images with these embeddings, (M, F) float, and energies, (M,)."""
        return self._alpha * self._outside(embeddings) + energies

    def _outside(self, embeddings: NDArray[Any]) -> NDArray[np.float64]:
        """(M,) the length of what stands out of the principal space."""
        centred = np.asarray(np.subtract(embeddings, self._shift, dtype=np.float32), dtype=np.float32)
        within = centred @ self._across
        # By Pythagoras: without it the space would be gone through twice.
        whole = _squares(centred)
        squares = whole - _squares(within)
        squares[squares < _PRECISION**2 * whole] = 0.0
        return np.asarray(np.sqrt(squares, dtype=np.float64))


def _squares(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row's squared length."""
    return np.asarray((rows[:, None, :] @ rows[:, :, None])[:, 0, 0])
