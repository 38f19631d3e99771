"""Labels that may be wrong: candidates for a person to look at."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from edgetl.records.codec import OPTIONAL
from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class DoubtfulLabel:
    """One image whose label may be wrong.

    Attributes:
        file: the image.
        split: that it is in.
        given: its label; of any number of classes `no NAME` where it lacks one.
        suspected: what it may be instead.
        given_score, score: their probabilities, out of sample, in 0..1.
    """

    file: str
    split: str
    given: str
    suspected: str
    given_score: float
    score: float


@dataclass(frozen=True, kw_only=True)
class SplitDoubts:
    """What was found in one split.

    Attributes:
        split: its name.
        images: so many were looked at.
        candidates: so many of their labels are doubtful, listed or not.
        share: the estimated share of wrong labels, in 0..1; of any number of classes the mean over the classes.
        agrees: the share of labels that are what the model finds most probable, in 0..1. Of one that errs often most
            candidates are its own mistakes.
        by: where the probabilities come from, as a part of a sentence.
    """

    split: str
    images: int
    candidates: int
    share: float
    agrees: float
    by: str


@dataclass(frozen=True, kw_only=True)
class DoubtsRecord:
    """The surest candidates first, and what was looked at. `notes` say what was not, a sentence each; `sound` is as in
    `edgetl.records.mistakes.MistakesRecord`."""

    labels: tuple[DoubtfulLabel, ...] = ()
    splits: tuple[SplitDoubts, ...] = ()
    notes: tuple[str, ...] = ()
    sound: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
