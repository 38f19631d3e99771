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


@dataclass(frozen=True, kw_only=True)
class BoxDetail:
    """Scores class by class and by size. `threshold` is the score with the best F1 on these images, `f1` that F1."""

    kind: Literal["detection"] = "detection"
    classes: tuple[ClassPrecision, ...]
    sizes: tuple[SizePrecision, ...]
    mistakes: Mistakes
    threshold: float
    f1: float
