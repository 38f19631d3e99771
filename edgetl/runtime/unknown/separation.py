"""How well a score tells unknown images from known ones.

Legend: K known images, U unknown ones; higher scores are less known.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.statistics import Z95, wilson_interval

ACCEPTED = 0.95
"""The share of known images that are to be taken as known where false positives are counted."""


def components(known: NDArray[Any], unknown: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each known image the share of unknown ones that score higher, (K,), and for each unknown image the share of
    known ones that score lower, (U,); a tie counts half. The mean of either is the AUROC."""
    lower, higher = np.sort(np.asarray(known)), np.sort(np.asarray(unknown))
    above = (
        len(higher) - (np.searchsorted(higher, known, "left") + np.searchsorted(higher, known, "right")) / 2
    )
    below = (np.searchsorted(lower, unknown, "left") + np.searchsorted(lower, unknown, "right")) / 2
    return above / len(higher), below / len(lower)


def auroc(known: NDArray[Any], unknown: NDArray[Any]) -> tuple[float, float, float]:
    """The chance that an unknown image scores higher than a known one, and its 95% interval.

    The interval is by the variance of DeLong, DeLong and Clarke-Pearson (Biometrics 1988), on the log-odds, so that it
    stays within 0..1; of a perfect or hopeless score it is the Wilson interval of as many images as the fewer.
    """
    above, below = components(known, unknown)
    found = float(below.mean())
    variance = sum(float(part.var(ddof=1)) / len(part) for part in (above, below) if len(part) > 1)
    if not 0.0 < found < 1.0 or not variance:
        few = min(len(above), len(below))
        return (found, *wilson_interval(round(found * few), few))
    middle, spread = math.log(found / (1 - found)), Z95 * math.sqrt(variance) / (found * (1 - found))
    low, high = (1 / (1 + math.exp(-(middle + side * spread))) for side in (-1, 1))
    return found, low, high


def taken_as_known(known: NDArray[Any], unknown: NDArray[Any], share: float = ACCEPTED) -> tuple[int, float]:
    """How many unknown images pass where so large a share of the known ones does, and the score up to which they do.

    Of 0.95 the share of unknown images is the false positive rate at 95% true positives.
    """
    ordered = np.sort(np.asarray(known))
    limit = float(ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)])
    return int((np.asarray(unknown) <= limit).sum()), limit
