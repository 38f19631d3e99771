"""The training images that stand for a class when it is learned no more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def herd(features: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Choose images whose mean feature is near the class's, one after the other.

    Each next image is the one that brings the mean of those chosen nearest to the mean of all. So any first part of the
    choice stands for the class, too. Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning" (CVPR
    2017), algorithm 4, on features of unit length.

    Args:
        features: (N, D) of one class's images.
        count: how many to choose; all where there are fewer.

    Returns:
        (min(N, count),) int64, the rows in the order in which they were chosen.
    """
    rows = features.reshape(len(features), -1).astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    mean, total = rows.mean(axis=0), np.zeros(rows.shape[1])
    chosen: list[int] = []
    left = np.ones(len(rows), dtype=bool)
    for number in range(1, min(len(rows), count) + 1):
        # |mean - (total + row) / number|^2 without what all rows share; rows are of unit length, or zero.
        gain = rows @ (total - number * mean) * 2 + (rows**2).sum(axis=1)
        best = int(np.where(left, gain, np.inf).argmin())
        chosen.append(best)
        left[best] = False
        total += rows[best]
    return np.array(chosen, dtype=np.int64)
