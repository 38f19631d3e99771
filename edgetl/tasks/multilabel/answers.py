"""What a multi-label classifier answers for one image."""

from __future__ import annotations

from edgetl.records.frozen import dataclass
from edgetl.tasks.classification.answers import Candidate


@dataclass(frozen=True, kw_only=True)
class TagsPrediction:
    """The classes that reach their thresholds, and the `top` most probable ones whether or not they do.

    Both are ordered by probability (sigmoid of the logit), best first.
    """

    tags: tuple[Candidate, ...]
    top: tuple[Candidate, ...]

    @property
    def text(self) -> str:
        """The classes with their probabilities, or `none`."""
        return ", ".join(f"{tag.label} {tag.score:.1%}" for tag in self.tags) or "none"
