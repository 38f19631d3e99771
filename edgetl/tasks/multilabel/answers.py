"""What a multi-label classifier answers for one image."""

from __future__ import annotations

from dataclasses import field

from edgetl.records.codec import OPTIONAL
from edgetl.records.frozen import dataclass
from edgetl.tasks.classification.answers import Candidate, listed, nearest


@dataclass(frozen=True, kw_only=True)
class TagsPrediction:
    """The classes that reach their thresholds, and the `top` most probable ones whether or not they do.

    Both are ordered by probability (sigmoid of the logit by its temperature), best first. Thresholds are of the
    probability without a temperature, so that the answers are those that gates and evaluations count.

    `possible` is the set that holds every class of the image as often as asked, the most probable first and perhaps
    empty; None where no coverage was asked for. For `unknown` and `usual` see
    `edgetl.tasks.classification.answers.Prediction`.
    """

    tags: tuple[Candidate, ...]
    top: tuple[Candidate, ...]
    possible: tuple[Candidate, ...] | None = field(default=None, metadata=OPTIONAL)
    unknown: bool | None = field(default=None, metadata=OPTIONAL)
    usual: float | None = field(default=None, metadata=OPTIONAL)

    @property
    def text(self) -> str:
        """The classes with their probabilities, or `none`, and the set where one was asked for; behind `unknown` where
        the image is."""
        found = ", ".join(f"{tag.label} {tag.score:.1%}" for tag in self.tags) or "none"
        found = found if self.possible is None else f"{found}; within {listed(self.possible)}"
        return nearest(found) if self.unknown else found
