"""What a multi-label classifier's scores are made of."""

from __future__ import annotations

from typing import Literal

from edgetl.records.frozen import dataclass
from edgetl.records.scores import Score


@dataclass(frozen=True, kw_only=True)
class TagScore:
    """One class's scores; a ratio with an empty denominator is 0.

    `support` is its number of images, `answered` that of the images where it was answered. Precision and recall have
    95% Wilson intervals.
    """

    label: str
    threshold: float
    support: int
    answered: int
    precision: Score
    recall: Score
    f1: float
    average_precision: float


@dataclass(frozen=True, kw_only=True)
class TagsDetail:
    """Scores class by class."""

    kind: Literal["multilabel"] = "multilabel"
    classes: tuple[TagScore, ...]
