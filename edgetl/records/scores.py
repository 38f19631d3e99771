"""Scores of a model on a set of images, by name."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import Any

from edgetl.records.codec import OPTIONAL
from edgetl.records.frozen import dataclass


class BadImages(StrEnum):
    """What to do with images that cannot be read: stop with a list of them, or leave them out and say so."""

    REFUSE = "refuse"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class SetUse:
    """What was taken of an image set.

    Attributes:
        images: images that were scored.
        skipped: (path relative to the set, reason) of images that cannot be used.
        trained_on: images of the set that the bundle was trained on; None where it does not say.
        chosen_by: images of the set that it was validated with, so that choices were made by them; None likewise.
        left_out: of these, how many were not scored.
    """

    images: int
    skipped: tuple[tuple[str, str], ...] = ()
    trained_on: int | None = None
    chosen_by: int | None = None
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure, and its 95% interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a model scores on so many images, in figures that do not grow with its classes: what bundles carry.

    `scores` is by a metric's name (`edgetl.tasks.metrics`), without those that the images do not allow.
    """

    images: int
    scores: dict[str, Score]


@dataclass(frozen=True, kw_only=True)
class Evaluation(Scores):
    """Scores, and as plain JSON values what they are made of: the task's own record (see `edgetl.tasks`)."""

    detail: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> Scores:
        """The figures without what they are made of."""
        return Scores(images=self.images, scores=self.scores)


@dataclass(frozen=True, kw_only=True)
class CoverageScore:
    """How often sets of labels held the truth (see `edgetl.tasks.conformal`).

    Attributes:
        output: the tensor that the sets come from: a head's, or the only one.
        asked: how often they should, above 0 and below 1.
        images: labelled images.
        held: the share of them whose set held the truth, with its 95% Wilson interval.
        mean_size: labels in a set, on average.
    """

    output: str
    asked: float
    images: int
    held: Score
    mean_size: float


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well a score tells a set of unknown images from known ones.

    Attributes:
        score: its name (`edgetl.records.unknown.ScoreName`).
        used: whether it is the one that the bundle's variant uses.
        auroc: the chance that an unknown image scores higher than a known one, with its 95% interval (DeLong 1988).
        passing: the share of unknown images that are taken for known where 95% of the known ones are (FPR at 95% TPR),
            with its 95% Wilson interval at that limit.
    """

    score: str
    used: bool
    auroc: Score
    passing: Score


@dataclass(frozen=True, kw_only=True)
class UnknownEvaluation:
    """A folder of unknown images beside a set of known ones.

    Attributes:
        folder: where the unknown images lie.
        images: how many could be read.
        known: images of the set.
        skipped: (path, reason) of those that could not be read.
        made_from: images of the folder that the bundle was made from; None where it does not know.
        in_set: images of the folder that are in the set too.
        scores: of all scores.
        note: why some scores are missing, in a sentence; or nothing.
    """

    folder: str
    images: int
    known: int
    skipped: tuple[tuple[str, str], ...]
    made_from: int | None
    in_set: int
    scores: tuple[Separation, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class SetEvaluation(Evaluation):
    """An evaluation on an image set, what was taken of it, and, where that was asked, how often sets held the truth and
    how well unknown images were detected."""

    image_set: SetUse
    coverage: tuple[CoverageScore, ...] = field(default=(), metadata=OPTIONAL)
    unknown: UnknownEvaluation | None = field(default=None, metadata=OPTIONAL)


def score(scores: Scores, metric: str) -> Score:
    """A score by its name.

    Raises:
        KeyError: there is none; the message says which there are.
    """
    if metric not in scores.scores:
        raise KeyError(f"there is no score {metric!r} among {', '.join(scores.scores) or 'none'}")
    return scores.scores[metric]


def value(scores: Scores, metric: str) -> float:
    """A score's figure by its name; raises as `score`."""
    return score(scores, metric).value
