"""What a classifier's scores are made of."""

from __future__ import annotations

from typing import Literal

from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class's scores. `support` is its number of images; a ratio with an empty denominator is 0."""

    label: str
    support: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class ClassDetail:
    """Scores class by class, and the confusion matrix.

    `cells` are those of the matrix that are not zero, row by row: (right class, predicted class, images). So its size
    grows with the classes and the images, not with the square of the classes.
    """

    kind: Literal["classification"] = "classification"
    classes: tuple[ClassScore, ...]
    cells: tuple[tuple[int, int, int], ...]
