"""Scores of a model on a set of images."""

from __future__ import annotations

import dataclasses
from enum import StrEnum

from edgetl.records.frozen import dataclass

TITLES = {"top1": "top-1", "macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy"}
"""How a score's name is written within a sentence."""


class BadImages(StrEnum):
    """What to do with images that cannot be read: stop with a list of them, or leave them out and say so."""

    REFUSE = "refuse"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class's scores. `support` is its number of images; a ratio with an empty denominator is 0."""

    label: str
    support: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracy of a classifier on a set of images, in figures that do not grow with its classes: what bundles carry.

    All ratios are in 0..1. `top1_interval` is a 95% Wilson score interval; those of macro-F1 and balanced accuracy are
    95% percentile bootstrap intervals over the images. `top5` stands where there are more than five classes,
    `calibration_error` (expected calibration error of the top class, 15 bins) where scores are at hand.
    """

    images: int
    top1: float
    top1_interval: tuple[float, float]
    macro_f1: float
    balanced_accuracy: float
    top5: float | None = None
    calibration_error: float | None = None
    macro_f1_interval: tuple[float, float] | None = None
    balanced_accuracy_interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class SetUse:
    """What was taken of an image set.

    Attributes:
        images: images that were scored.
        skipped: (path relative to the set, reason) of images that cannot be used.
        trained_on: images of the set that the bundle was trained on; None where it does not tell.
        chosen_by: images of the set that it was validated with, so that choices were made by them; None likewise.
        left_out: of these, how many were not scored.
    """

    images: int
    skipped: tuple[tuple[str, str], ...] = ()
    trained_on: int | None = None
    chosen_by: int | None = None
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class Evaluation(Scores):
    """Scores, and what they are made of.

    `cells` are those of the confusion matrix that are not zero, row by row: (right class, predicted class, images). So
    its size grows with the classes and the images, not with the square of the classes.
    """

    classes: tuple[ClassScore, ...]
    cells: tuple[tuple[int, int, int], ...]

    def scores(self) -> Scores:
        """The figures alone, without classes and confusion."""
        return Scores(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Scores)})


@dataclass(frozen=True, kw_only=True)
class SetEvaluation(Evaluation):
    """An evaluation on an image set, and what was taken of it."""

    image_set: SetUse


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure of an evaluation, and where it has one its 95% interval."""

    value: float
    low: float | None = None
    high: float | None = None


def value(evaluation: Scores, metric: str) -> float:
    """A score by its name.

    Raises:
        KeyError: the evaluation has no such score.
    """
    found = getattr(evaluation, metric, None)
    if not isinstance(found, float):
        raise KeyError(metric)
    return found
