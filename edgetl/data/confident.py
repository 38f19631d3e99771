"""Confident learning: which labels are wrong, by probabilities of models that have not learned from them.

After Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70, 2021). A
class's threshold is the mean probability that images labelled with it have for it. An image counts for the most
probable of the classes whose thresholds it reaches; where that is not its label, the label is doubtful.

Legend: N images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError


@dataclass(frozen=True, kw_only=True)
class Doubts:
    """What confident learning says of N labels.

    Attributes:
        places: of the doubtful ones, the surest first: by the suspected class's probability less that of the label.
        suspected: (M,) int64 classes, in the same order.
        share: the estimated share of wrong labels, in 0..1.
    """

    places: NDArray[np.int64]
    suspected: NDArray[np.int64]
    share: float


def doubts(labels: NDArray[np.int64], probabilities: NDArray[np.floating]) -> Doubts:
    """Find labels that are probably wrong.

    Args:
        labels: (N,) int classes as given.
        probabilities: (N, C) float, each row of a model that has not learned from this image.

    Raises:
        TensorError: wrong shapes, labels out of range, or probabilities that are none.
    """
    given, scores = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if given.ndim != 1 or scores.ndim != 2 or len(given) != len(scores):
        raise TensorError(f"labels {given.shape} and probabilities {scores.shape}: expected (N,) and (N, C).")
    if len(given) and not (given.min() >= 0 and given.max() < scores.shape[1]):
        raise TensorError(
            f"labels: values {given.min()}..{given.max()} came, expected 0..{scores.shape[1] - 1}."
        )
    if not ((scores >= 0).all() and (scores <= 1 + 1e-6).all()):
        raise TensorError("probabilities: expected values in 0..1.")
    images, classes = scores.shape
    support = np.bincount(given, minlength=classes)
    thresholds = np.full(classes, np.inf)  # of a class that nothing is labelled with nothing can be said
    for at in np.flatnonzero(support):
        thresholds[at] = scores[given == at, at].mean()
    reached = np.where(scores >= thresholds, scores, -1.0)
    counted, found = reached.max(axis=1) >= 0, reached.argmax(axis=1)
    joint = np.zeros((classes, classes))
    np.add.at(joint, (given[counted], found[counted]), 1.0)
    doubtful = np.flatnonzero(counted & (found != given))
    sureness = scores[doubtful, found[doubtful]] - scores[doubtful, given[doubtful]]
    doubtful = doubtful[np.lexsort((doubtful, -sureness))]
    return Doubts(
        places=doubtful.astype(np.int64),
        suspected=found[doubtful].astype(np.int64),
        share=_share(joint, support, images),
    )


def _share(joint: NDArray[np.float64], support: NDArray[np.int64], images: int) -> float:
    """Off the diagonal of the joint distribution of given and true labels: each row in proportion to its class."""
    if not images:
        return 0.0
    rows = joint.sum(axis=1)
    wrong = np.divide(rows - joint.diagonal(), rows, out=np.zeros_like(rows), where=rows > 0)
    return float((wrong * support).sum() / images)
