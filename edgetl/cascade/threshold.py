"""The margin from which a small model's answer is taken, and whether the cascade is worse than was asked.

The margin is what lies between the two best logits. Unlike the best probability it does not end at 1, where very sure
answers are all alike.

Legend: N images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.records.cascade import Cascade
from edgetl.statistics import binomial_tail

LEVEL = 0.05
"""How often, at most, a cascade is called worse although it is not."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What `choose` found.

    Attributes:
        value: images of this margin or more are answered by the small model; None where no threshold reaches what is
            asked.
        handed_on: the share of the images below it.
        best: the most images that any threshold gets right.
    """

    value: float | None
    handed_on: float
    best: int


def choose(
    margins: NDArray[Any], small: NDArray[np.bool_], large: NDArray[np.bool_], floor: float | None
) -> Threshold:
    """The lowest threshold with which as many images are answered right as is asked.

    Args:
        margins: (N,) the small model's.
        small: (N,) which images it answers right.
        large: (N,) likewise of the larger model.
        floor: the share of the images that is to be right; as many as the larger model has where None.
    """
    order = np.argsort(-margins, kind="stable")
    falling, images = margins[order].astype(np.float64), len(margins)
    gained = np.cumsum(small[order].astype(np.int64) - large[order])
    right = int(large.sum()) + np.concatenate([[0], gained])  # by how many images the small model answers
    # Images of one margin are all answered by the same model.
    apart = np.concatenate([[True], falling[1:] < falling[:-1], [True]])
    needed = int(large.sum()) if floor is None else math.ceil(floor * images - 1e-9)
    possible = np.flatnonzero(apart & (right >= needed))
    best = int(right[apart].max())
    if not len(possible):
        return Threshold(value=None, handed_on=1.0, best=best)
    kept = int(possible[-1])
    # Between two margins, so that the last bit of neither decides.
    value = float(falling[max(0, kept - 1) : kept + 1].mean())
    return Threshold(value=value, handed_on=1 - kept / images, best=best)


def is_worse(found: Cascade) -> bool:
    """Whether a cascade surely has fewer right answers than was asked.

    Against the larger model McNemar's exact test decides, against a floor the exact binomial one.
    """
    if found.floor is None:
        return found.lost > found.won and found.p_value < LEVEL
    wrong = round((1 - found.top1.value) * found.judged_on)
    return wrong > 0 and (found.floor == 1 or binomial_tail(wrong, found.judged_on, 1 - found.floor) < LEVEL)
