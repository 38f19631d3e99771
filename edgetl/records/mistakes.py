"""The mistakes that a shipped classifier is most sure of, and what it looked at."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from edgetl.records.codec import OPTIONAL
from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One image that the shipped variant answers wrong.

    Attributes:
        file: the image.
        size: width and height of the upright picture in pixels.
        side: of the network's input in pixels.
        scale, offset: where the picture lies in it, as in `edgetl.inputs.frame.Frame`.
        truth: the right class.
        answer: the shipped variant's class, and `score` its probability in 0..1.
        teacher: the teacher's class, and `teacher_score` its probability.
        map: what speaks for the answer, place by place (`edgetl.runtime.explain.ActivationMap.values`), row by row;
            empty where the network has no such map.
    """

    file: str
    size: tuple[int, int]
    side: int
    scale: tuple[float, float]
    offset: tuple[float, float]
    truth: str
    answer: str
    score: float
    teacher: str
    teacher_score: float
    map: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class MistakesRecord:
    """The worst mistakes on a split, the surest first. `no_maps` says why there are no maps; empty where there are.

    `sound` says how recordings become pictures, where these were looked at (`edgetl.inputs.spec.SoundSpec` as JSON).
    """

    variant: str
    split: str
    mistakes: tuple[Mistake, ...] = ()
    no_maps: str = ""
    sound: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
