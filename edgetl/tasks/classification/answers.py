"""What a classifier answers for one image."""

from __future__ import annotations

from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One class's probability (softmax of the logits), in 0..1."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The best class of an image, and the `top` best, best first."""

    label: str
    index: int
    score: float
    top: tuple[Candidate, ...]

    @property
    def text(self) -> str:
        """The class and its probability."""
        return f"{self.label} {self.score:.1%}"
