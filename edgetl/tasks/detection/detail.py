"""What a detector's scores are made of."""

from __future__ import annotations

from typing import Literal

from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class ClassPrecision:
    """One class. `objects` is how many there are; `precision` reads the precision at 101 recalls, at an overlap of 0.5.

    `ap`, `ap50` and `recall` are None where the images hold no object of it.
    """

    label: str
    objects: int
    ap: float | None
    ap50: float | None
    recall: float | None
    precision: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SizePrecision:
    """Objects of one range of sizes, `small`, `medium` or `large` as in COCO; None where there are none."""

    size: str
    objects: int
    ap: float | None
    recall: float | None


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """Boxes above the threshold that are wrong, and objects that none found, by kind (Bolya et al. 2020).

    Attributes:
        right: boxes that hit.
        place: the right class, but an overlap of 0.1 to 0.5.
        label: another class's object, at an overlap of 0.5 or more.
        both: another class's object, at 0.1 to 0.5.
        duplicate: a better box had hit the object before.
        background: no object overlaps by 0.1.
        missed: objects that no box hit.
    """

    right: int = 0
    place: int = 0
    label: int = 0
    both: int = 0
    duplicate: int = 0
    background: int = 0
    missed: int = 0

    @property
    def wrong(self) -> int:
        """All but the right ones."""
        return self.place + self.label + self.both + self.duplicate + self.background + self.missed


@dataclass(frozen=True, kw_only=True)
class SideRecall:
    """Objects whose side (square root of the area) is at least `side` pixels and below the next one's; `found` were
    hit."""

    side: float
    objects: int
    found: int


@dataclass(frozen=True, kw_only=True)
class JudgedBox:
    """A box of a picture, in its pixels: `true` for an object that was found, else a field's name of `Mistakes`.

    `missed` is an object, too; all others are found boxes with their `score`. `label` is the class's position.
    """

    box: tuple[float, float, float, float]
    label: int
    kind: str
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class WorstImage:
    """One of the images with most mistakes: its place among those scored, its file where that is known, its pixels."""

    image: int
    file: str
    width: int
    height: int
    mistakes: Mistakes
    boxes: tuple[JudgedBox, ...]


@dataclass(frozen=True, kw_only=True)
class BoxDetail:
    """Scores class by class, by size, and what went wrong.

    Attributes:
        classes, sizes: see there.
        mistakes, sides, worst: of the boxes that score `asked` or more, at an overlap of 0.5.
        threshold: the score with the best F1 on these images.
        f1: that F1.
        asked: the least score that counts: the task's, or `threshold`.
    """

    kind: Literal["detection"] = "detection"
    classes: tuple[ClassPrecision, ...]
    sizes: tuple[SizePrecision, ...]
    mistakes: Mistakes
    threshold: float
    f1: float
    asked: float
    sides: tuple[SideRecall, ...] = ()
    worst: tuple[WorstImage, ...] = ()
