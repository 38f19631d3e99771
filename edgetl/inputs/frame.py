"""Where a network's input lies in its picture, so that what is found in pixels finds its way back."""

from __future__ import annotations

from edgetl.inputs.spec import PreprocessSpec, Resize
from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How one picture fills the square input, per axis (x, y).

    A point of the upright picture lands at `scale * point + offset` in the input, both in pixels counted from the upper
    left corner of the first pixel.

    Attributes:
        size: width and height of the upright picture in pixels.
        scale: pixels of the input for one of the picture.
        offset: where the picture's corner lies in the input, in its pixels; negative where it is cut off.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    def back(self, x: float, y: float) -> tuple[float, float]:
        """A point of the input as one of the picture, clipped to the picture."""
        found = [
            min(max((value - offset) / scale, 0.0), float(side))
            for value, offset, scale, side in zip((x, y), self.offset, self.scale, self.size, strict=True)
        ]
        return found[0], found[1]


def frame_of(size: tuple[int, int], spec: PreprocessSpec) -> Frame:
    """The frame that a spec gives pictures of one size.

    Args:
        size: width and height in pixels of the upright picture.
        spec: how it is resized.
    """
    scale, offset = [], []
    for side in size:
        if spec.resize is Resize.PAD:
            resized = max(1, round(side * spec.size / max(size)))
            start = -((spec.size - resized) // 2)
        elif spec.resize is Resize.CROP:
            resized = int(spec.resized_side * side / min(size))
            start = round((resized - spec.size) / 2.0)
        else:
            resized, start = spec.size, 0
        scale.append(resized / side)
        offset.append(-float(start))
    return Frame(size=size, scale=(scale[0], scale[1]), offset=(offset[0], offset[1]))
