"""What several heads answer for one image."""

from __future__ import annotations

from dataclasses import field

from edgetl.records.codec import OPTIONAL
from edgetl.records.frozen import dataclass
from edgetl.tasks.classification.answers import Prediction as ClassPrediction
from edgetl.tasks.classification.answers import nearest
from edgetl.tasks.multilabel.answers import TagsPrediction

HeadPrediction = ClassPrediction | TagsPrediction


@dataclass(frozen=True, kw_only=True)
class HeadsPrediction:
    """Each head's answer, by its name.

    For `unknown` and `usual`, which are of the image as a whole, see `edgetl.tasks.classification.answers.Prediction`.
    """

    heads: dict[str, HeadPrediction]
    unknown: bool | None = field(default=None, metadata=OPTIONAL)
    usual: float | None = field(default=None, metadata=OPTIONAL)

    @property
    def text(self) -> str:
        """Each head's answer in a few words, behind `unknown` where the image is."""
        found = "; ".join(f"{name}: {found.text}" for name, found in self.heads.items())
        return nearest(found) if self.unknown else found
