"""Where and how added classes are compared with known ones: all that `edgetl.runtime.prototypes` writes is made here.

The margin of a class is calibrated on the validation images that a bundle keeps, all of known classes: it is so large
that the stated share of such images would be answered with an added class, all added ones together (Bonferroni). Of a
hundred images quantiles say nothing of one in five hundred, so the gaps of their cosines are taken for a mixture of
normal distributions, one a class, of one deviation; since few images say where these lie, the next image's is Student's
(Geisser, "Predictive inference", 1993). Nor is the margin below what that share of these very images
exceeds, whose tails may be longer than normal. A margin is never below 0, so that an added class must be the nearest.
What trained classes lost on real sets stands in the guide's figures.

Legend: N training images, M validation images, F features, C known classes, K added ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.reference import Reference
from edgetl.errors import BundleError
from edgetl.runtime.prototypes import Added, Space, gaps
from edgetl.tasks.base import LOGITS

FALSE_ALARMS = 0.005
"""The usual share of images of known classes that may be answered with an added class."""
_DAMPED = 32
"""Directions that are damped, at most."""
_ABOVE = 3.0
"""A direction is damped down to so many times the mean variance of images of one class."""
_LEAST = 10
"""Validation images without which nothing is calibrated."""
_SCALES = np.geomspace(1.0, 256.0, 65)


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """What a reference says of the known classes, and of those added before.

    Attributes:
        reference: it.
        count: C.
        means: (C + K, F), the mean embedding of each class.
    """

    reference: Reference
    count: int
    means: NDArray[np.float32]


def known_classes(reference: Reference, count: int, total: int, where: str) -> Known:
    """The means of `total` classes, of which the first `count` are known ones.

    Raises:
        BundleError: it keeps too few images; `where` names the bundle.
    """
    if len(reference.validation) < _LEAST:
        raise BundleError(
            f"{where} keeps {len(reference.validation)} validation images, and {_LEAST} are needed to tell added"
            " classes from known ones; make it again with a larger validation split (data.val_fraction)."
        )
    means = reference.means
    if not len(means):
        rows = [reference.embeddings[reference.classes == at] for at in range(total)]
        if empty := sum(not len(own) for own in rows):
            raise BundleError(
                f"{where} keeps training images of {total - empty} of its {total} classes, too few to compare new ones"
                " with all; add classes on the host with: edgetl extend RUN --add DATA"
            )
        means = np.stack([own.mean(axis=0) for own in rows])
    return Known(reference=reference, count=count, means=np.asarray(means, dtype=np.float32))


def space_of(known: Known) -> Space:
    """The centre of the known classes, and the directions in which their images differ within a class."""
    reference, count = known.reference, known.count
    rows = reference.classes < count
    within = reference.embeddings[rows] - known.means[reference.classes[rows]]
    features = within.shape[1]
    _, sizes, directions = np.linalg.svd(within, full_matrices=False)
    variances = sizes**2 / max(1, len(within))
    usual = float(variances.sum()) / features
    kept = variances[: min(_DAMPED, features - 1)] > _ABOVE * usual
    large = variances[: len(kept)][kept]
    if not len(large):  # a direction of no effect, since the operators need one
        large, kept = np.array([_ABOVE * max(usual, 1e-12)]), np.array([True])
    damping = 1.0 - np.sqrt(_ABOVE * max(usual, 1e-12) / large)
    return Space(
        centre=known.means[:count].mean(axis=0),
        damped=np.ascontiguousarray(directions[: len(kept)][kept].T, dtype=np.float32),
        damping=np.maximum(damping, 0.0).astype(np.float32),
    )


def calibrated(known: Known, temperature: float, false_alarms: float) -> Added:
    """The classes after the first `known.count`, distinguished from these with the stated share of false alarms.

    Args:
        known: the classes.
        temperature: by which the network's logits are divided before they become scores.
        false_alarms: see the module, above 0 and below 1.
    """
    space, count, reference = space_of(known), known.count, known.reference
    prototypes = space.unit(known.means)
    first, added = prototypes[:count], prototypes[count:]
    vectors = space.unit(reference.validation)
    classes = len(added)
    margins = np.zeros(classes, dtype=np.float32)
    if classes:
        found = gaps(vectors, first, added).astype(np.float64)
        own = reference.validation_classes
        least = [margin(column, own, false_alarms / classes) for column in found.T]
        margins = np.maximum(0.0, least).astype(np.float32)
    return Added(
        space=space,
        known=first,
        prototypes=added,
        margins=margins,
        scale=temperature * _scale(vectors @ first.T, reference.validation_classes),
    )


def logits(known: Known, added: Added) -> NDArray[np.float32]:
    """(M, C + K) of the validation images."""
    return added.logits(known.reference.logits[LOGITS][:, : known.count], known.reference.validation)


def leave_one_out_hits(known: Known, added: Added, place: int) -> int | None:
    """How many of an added class's pictures are answered with it where each is left out of its prototype.

    Args:
        known: the classes.
        added: the added ones.
        place: the class, among all.

    Returns:
        None where there is but one picture.
    """
    rows = known.reference.embeddings[known.reference.classes == place]
    if len(rows) < 2:
        return None
    hits, own = 0, place - known.count
    for at in range(len(rows)):
        others = np.delete(rows, at, axis=0).mean(axis=0, keepdims=True)
        prototypes = added.prototypes.copy()
        prototypes[own] = added.space.unit(others)[0]
        beyond = gaps(added.space.unit(rows[at : at + 1]), added.known, prototypes)[0] - added.margins
        hits += int(beyond.argmax() == own and beyond[own] > 0)
    return hits


def like_known(known: Known, added: Added, embeddings: NDArray[np.float32]) -> list[int | None]:
    """For each of some pictures the known class whose own images lie no nearer to it than the picture does; None
    where there is none.

    Args:
        known: the classes.
        added: gives the space.
        embeddings: (n, F).
    """
    reference, vectors = known.reference, added.space.unit(known.reference.validation)
    own = (vectors * added.known[np.clip(reference.validation_classes, 0, None)]).sum(axis=1)
    usual = float(np.median(own))
    cosines = added.space.unit(embeddings) @ added.known.T
    return [int(row.argmax()) if row.max() >= usual else None for row in cosines]


def margin(gaps: NDArray[np.float64], classes: NDArray[np.int32], share: float) -> float:
    """What the stated share of further such gaps exceeds; see the module.

    Args:
        gaps: (M,) of validation images.
        classes: (M,) of these images. Where there are fewer than two images a class on average, all count as one class.
        share: above 0 and below 1.
    """
    names, groups = np.unique(classes, return_inverse=True)
    if len(gaps) < 2 * len(names):
        names, groups = names[:1], np.zeros_like(groups)
    sizes = np.bincount(groups)
    centres = np.bincount(groups, weights=gaps) / sizes
    freedom = len(gaps) - len(names)
    deviation = max(math.sqrt(float(((gaps - centres[groups]) ** 2).sum()) / freedom), 1e-6)
    spreads = deviation * np.sqrt(1 + 1 / sizes)

    def exceeding(value: float) -> float:
        tails = [
            size * _student(float(value - centre) / float(spread), freedom)
            for size, centre, spread in zip(sizes, centres, spreads, strict=True)
        ]
        return float(sum(tails)) / len(gaps)

    low, high = -2.0, float(centres.max()) + 40.0 * deviation
    while exceeding(high) > share:  # two images of one class have tails without end
        high += 2 * (high - low)
    for _ in range(60):  # halved: enough for float64
        middle = (low + high) / 2
        low, high = (middle, high) if exceeding(middle) > share else (low, middle)
    seen = np.sort(gaps)[::-1]
    return max(high, float(seen[max(0, int(share * (len(gaps) + 1)) - 1)]))


def _student(value: float, freedom: int) -> float:
    """The share of Student's distribution above a value, by D. L. Wallace's approximation (Annals of Mathematical
    Statistics 1959), which needs a normal distribution alone. It errs upwards, by 2% of the share at four deviations
    and ten degrees of freedom."""
    normal = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(value**2 / freedom))
    return NormalDist().cdf(-math.copysign(normal, value))


def _scale(cosines: NDArray[np.float32], classes: NDArray[np.int32]) -> float:
    """That of the cosines (M, C) by which they say the classes (M,) best, by cross-entropy: so an added class's score
    means what a known one's does."""
    rows = np.flatnonzero(classes >= 0)
    values = cosines[rows].astype(np.float64)
    right = values[np.arange(len(rows)), classes[rows]]

    def loss(scale: float) -> float:
        top = values.max(axis=1, keepdims=True)
        total = np.log(np.exp(scale * (values - top)).sum(axis=1)) + scale * top[:, 0]
        return float((total - scale * right).mean())

    return float(min(_SCALES, key=loss))
