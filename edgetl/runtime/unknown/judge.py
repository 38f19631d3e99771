"""Whether an image is unknown: how many validation images scored as high as it.

The validation images were not trained on and show what is normal. Of n of them and an image, all drawn alike, the
image's score is as likely to take any place among them as any other. So the share (1 + those that score at least as
high) / (n + 1) is at most r with probability r at most (a conformal p-value: Vovk, Gammerman and Shafer, "Algorithmic
learning in a random world", 2005), and calling an image unknown where its share is at most r errs on known images that
often: the false alarm rate. It is that of images like the validation images, on average; these also chose epochs,
variant and score, so that it holds to an approximation. How many unknown images are found is another matter:
`edgetl eval --unknown`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle import unknown
from edgetl.bundle.archive import Bundle
from edgetl.bundle.manifest import Variant
from edgetl.errors import ConfigError
from edgetl.runtime.features import PooledHead
from edgetl.runtime.known import known_images
from edgetl.runtime.stream import Seen
from edgetl.runtime.unknown.looks import with_looks
from edgetl.runtime.unknown.scores import Features, Scorer, scorer
from edgetl.tasks.all import Prediction
from edgetl.tasks.base import Detection, Outputs
from edgetl.tasks.conformal import Conformity, conformity
from edgetl.tasks.detection.answers import Detections

FALSE_ALARMS = 0.05
"""The share of known images called unknown for which a run states what comes of it."""
_ROUNDING = 1e-9


def normal(scores: NDArray[np.float64]) -> Conformity:
    """What is kept of the validation images' scores, (N,): they are negated, so that the most normal comes first."""
    return conformity(-scores)


def usual(kept: Conformity, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) of images with these scores the share of validation images at least as strange, above 0 and at most 1."""
    rising = kept.ranked[::-1].tolist()
    return np.array([_usual(rising, kept.images, score) for score in np.asarray(scores).tolist()])


def _usual(rising: list[float], images: int, score: float) -> float:
    """As `usual` of one image; `rising` is what is kept of the validation images, the strangest first."""
    above = len(rising) - bisect_right(rising, -score)
    # Where not all are kept, each stands for the ranks up to its own.
    calmer = math.ceil(above * images / max(1, len(rising)) - _ROUNDING)
    return (1.0 + images - calmer) / (1.0 + images)


def check(rate: float, images: int, what: str) -> None:
    """Whether so many validation images allow a false alarm rate.

    Args:
        rate: above 0 and below 1.
        images: of validation.
        what: whose they are, for the error: a bundle's path.

    Raises:
        ConfigError: the rate is out of range, or too low.
    """
    if not 0.0 < rate < 1.0:
        raise ConfigError(
            f"unknown: got {rate:g}, expected a share above 0 and below 1, as 0.05: how often an image like the"
            " validation images may be called unknown."
        )
    if rate * (images + 1) < 1 - _ROUNDING:
        needed = math.ceil(1 / rate - _ROUNDING) - 1
        raise ConfigError(
            f"unknown: a false alarm rate of {rate:g} needs {needed:,} validation images, and {what} was made with"
            f" {images:,}, which allow {math.ceil(1e4 / (images + 1)) / 1e4:g} and more; ask for more, or train with a"
            " larger validation split."
        )


class Judge:
    """Tells a variant's unknown images.

    Args:
        bundle: the bundle.
        variant: one of its variants.
        head: the end of its network, where its outputs have the feature map.

    Raises:
        BundleError: it was made before bundles could tell unknown images.
        BundleIntegrityError: a file was altered.
    """

    def __init__(self, bundle: Bundle, variant: Variant, head: PooledHead | None) -> None:
        self._normal, score = unknown.normal(bundle, variant), unknown.described(bundle, variant).score
        self._by_looks, features = score.by_looks, None
        if score.by_features:
            assert head is not None
            features = Features(reference=known_images(bundle, variant, "unknown"), weights=head.weights)
        spec = bundle.manifest.task
        assert not isinstance(spec, Detection)
        self._score: Scorer = scorer(score, spec, features)
        self._rising = self._normal.ranked[::-1].tolist()

    def usual(self, outputs: Outputs) -> NDArray[np.float64]:
        """(N,) of images with these outputs, as the function of this name."""
        return usual(self._normal, self._score(outputs))

    def judged(self, seen: Seen, found: Prediction, rate: float) -> Prediction:
        """One image's prediction, with whether it is unknown at a false alarm rate."""
        outputs = with_looks(seen) if self._by_looks else seen.outputs
        share = _usual(self._rising, self._normal.images, float(self._score(outputs)[0]))
        assert not isinstance(found, Detections)
        return cast("Prediction", replace(found, unknown=share <= rate + _ROUNDING, usual=share))


def check_asked(bundle: Bundle, variant: Variant, rate: float) -> None:
    """Whether a variant can tell unknown images at a false alarm rate.

    Raises:
        BundleError: it was made before bundles could.
        ConfigError: the rate is out of range or too low, or the task's answers are boxes.
    """
    if isinstance(bundle.manifest.task, Detection):
        raise ConfigError(
            "unknown: the bundle is of the task detection, which answers what it finds and nothing else; leave unknown"
            " out."
        )
    known = unknown.described(bundle, variant)
    check(rate, known.images, str(bundle.path))
