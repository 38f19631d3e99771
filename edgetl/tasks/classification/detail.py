"""What a classifier's scores are made of."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from edgetl.records.codec import OPTIONAL
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
class WorstAnswer:
    """One of the mistakes that a classifier is most sure of.

    Attributes:
        image: its place among those scored.
        truth, answer: the right class and the one that was answered, by position.
        score: the answer's probability, in 0..1.
    """

    image: int
    truth: int
    answer: int
    score: float


@dataclass(frozen=True, kw_only=True)
class ClassDetail:
    """Scores class by class, and the confusion matrix.

    `cells` are those of the matrix that are not zero, row by row: (right class, predicted class, images). So its size
    grows with the classes and the images, not with the square of the classes. `worst` are the mistakes of the highest
    probabilities, the highest first; none where only the answers are known.
    """

    kind: Literal["classification"] = "classification"
    classes: tuple[ClassScore, ...]
    cells: tuple[tuple[int, int, int], ...]
    worst: tuple[WorstAnswer, ...] = field(default=(), metadata=OPTIONAL)
