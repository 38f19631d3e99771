"""Boxes as arrays: overlaps, suppression of duplicates.

Legend: a box is (x1, y1, x2, y2) in pixels, its corners at the top left and the bottom right; M, K: numbers of boxes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def areas(boxes: NDArray[Any]) -> NDArray[Any]:
    """(..., 4) boxes to (...) areas in square pixels; 0 where a corner is on the wrong side."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    product: NDArray[Any] = sides[..., 0] * sides[..., 1]
    return product


def intersections(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """(M, 4) and (K, 4) boxes to (M, K) areas of what each pair shares."""
    # Axis by axis: numpy is twice as fast on whole rows as on pairs.
    (left, top, right, bottom), (x1, y1, x2, y2) = first.T[..., None], second.T[:, None]
    width = np.minimum(right, x2)
    width -= np.maximum(left, x1)
    height = np.minimum(bottom, y2)
    height -= np.maximum(top, y1)
    product: NDArray[Any] = np.maximum(width, 0, out=width)
    product *= np.maximum(height, 0, out=height)
    return product


def overlaps(
    found: NDArray[Any], true: NDArray[Any], crowd: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Intersection over union of every pair.

    Args:
        found: (K, 4) boxes.
        true: (M, 4) boxes.
        crowd: (M,) bool; a box around a crowd counts as overlapped by the share of the found box that lies inside
            it, as in COCO's evaluation.

    Returns:
        (K, M) float64 in 0..1; 0 where both boxes are of no area.
    """
    shared = intersections(np.asarray(found, np.float64), np.asarray(true, np.float64))
    own = areas(np.asarray(found, np.float64))[:, None]
    union = own + areas(np.asarray(true, np.float64))[None] - shared
    if crowd is not None:
        union = np.where(crowd[None], own, union)
    shares: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return shares


def suppress(
    boxes: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any], *, overlap: float, most: int
) -> NDArray[np.int64]:
    """Non-maximum suppression class by class: of boxes that overlap by more than `overlap`, the best remains.

    Args:
        boxes: (K, 4) float.
        scores: (K,) float.
        labels: (K,) int; boxes of different classes do not suppress each other.
        overlap: intersection over union, in 0..1.
        most: how many remain at most.

    Returns:
        (R,) int64 indices of those that remain, best first; of equal scores the earlier comes first.
    """
    order = np.argsort(-scores, kind="stable")
    if len(order) < 2:
        return order[:most].astype(np.int64)
    boxes, labels = boxes[order], labels[order]
    own = areas(boxes)
    shared = intersections(boxes, boxes)
    # Compared as a product: no division, and boxes of no area are nobody's duplicate.
    close = shared > overlap * (own[:, None] + own - shared)
    close &= labels[:, None] == labels
    remains = np.ones(len(order), dtype=bool)
    # Only boxes with a neighbour can send one away, so the loop skips the rest; each is its own.
    suspects = np.flatnonzero(np.count_nonzero(close, axis=1) > 1)
    for i in suspects:
        if remains[i]:
            remains[i + 1 :] &= ~close[i, i + 1 :]
    return order[np.flatnonzero(remains)[:most]].astype(np.int64)
