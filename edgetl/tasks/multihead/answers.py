"""What several heads answer for one image."""

from __future__ import annotations

from edgetl.records.frozen import dataclass
from edgetl.tasks.classification.answers import Prediction as ClassPrediction
from edgetl.tasks.multilabel.answers import TagsPrediction

HeadPrediction = ClassPrediction | TagsPrediction


@dataclass(frozen=True, kw_only=True)
class HeadsPrediction:
    """Each head's answer, by its name."""

    heads: dict[str, HeadPrediction]

    @property
    def text(self) -> str:
        """Each head's answer in a few words."""
        return "; ".join(f"{name}: {found.text}" for name, found in self.heads.items())
