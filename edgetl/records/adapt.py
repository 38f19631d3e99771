"""What the adaptation stage returns."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.records.scores import Evaluation
from edgetl.records.train import EpochRecord


@dataclass(frozen=True, kw_only=True)
class AdaptTry:
    """One network that was considered: the teacher as it was (`none`), or what a method made of it.

    `val` is its score on the source's validation split, by the metric that chooses; `weighted` the same split's top-1,
    each image counting by how much like the target it is; `density` the neighbourhood density of its answers on the
    target's images, in nats. `note` says why a method made nothing.
    """

    method: str
    val: float | None = None
    weighted: float | None = None
    density: float | None = None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class AdaptRecord:
    """An adapted teacher: its checkpoint, what was tried, what was chosen and how sure that is.

    `method` is the chosen one, `none` where the teacher stays as it is; `sure` the share of resamples that choose it
    too, in 0..1; `images` the target's different images, `held_out` those that were left out because they are in the
    validation or test split, `transductive` whether such were learned from. `val` and `test` are the chosen network's
    scores on the source's splits.
    """

    checkpoint: str
    method: str
    asked: str
    metric: str
    images: int
    held_out: int
    transductive: bool
    sure: float
    tries: tuple[AdaptTry, ...]
    epochs: tuple[EpochRecord, ...]
    val: Evaluation
    test: Evaluation | None
    seconds: float
