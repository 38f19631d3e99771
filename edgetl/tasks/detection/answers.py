"""What a detector answers for one image."""

from __future__ import annotations

from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One object. `box` is (x1, y1, x2, y2) in the original picture's pixels; `score` in 0..1."""

    box: tuple[float, float, float, float]
    label: str
    index: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Detections:
    """The objects in one picture of `width` by `height` pixels (upright, as its EXIF says), best first."""

    items: tuple[Detection, ...]
    width: int
    height: int

    @property
    def text(self) -> str:
        """How many objects of each class."""
        counts: dict[str, int] = {}
        for item in self.items:
            counts[item.label] = counts.get(item.label, 0) + 1
        return ", ".join(f"{count} {label}" for label, count in counts.items()) or "nothing"
