"""Boxes of one image as arrays: those that are right, and those that were found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.inputs.frame import Frame, frame_of
from edgetl.inputs.spec import PreprocessSpec
from edgetl.records.codec import from_json, to_json
from edgetl.records.frozen import dataclass
from edgetl.tasks.detection.boxes import areas


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The objects of one image.

    `boxes` is (M, 4) float64 in the original picture's pixels, `labels` (M,) int64. `crowd` (M,) bool marks boxes
    around many objects, which are not scored; `area` (M,) float64 in square pixels is the box's where unset. `frame`
    is the picture's, by which boxes found in the network's input find their way back; unset where they did. `file` is
    the picture's where a report shall show it.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_] | None = None
    area: NDArray[np.float64] | None = None
    frame: Frame | None = None
    file: str = ""

    def crowds(self) -> NDArray[np.bool_]:
        """(M,) bool, also where none was named."""
        return np.zeros(len(self.labels), dtype=bool) if self.crowd is None else self.crowd

    def sizes(self) -> NDArray[np.float64]:
        """(M,) float64 areas in square pixels."""
        return areas(self.boxes) if self.area is None else self.area


@dataclass(frozen=True, kw_only=True)
class Found:
    """The boxes found in one image: (K, 4) float in the original picture's pixels, (K,) int labels, (K,) scores."""

    boxes: NDArray[Any]
    labels: NDArray[np.int64]
    scores: NDArray[Any]


def framed(truths: Sequence[Truth], spec: PreprocessSpec) -> list[Truth]:
    """Truths with the frames that a network's inputs made by `spec` have of their pictures."""
    return [
        truth if truth.frame is None else replace(truth, frame=frame_of(truth.frame.size, spec))
        for truth in truths
    ]


def in_pictures(truths: Sequence[Truth], found: Sequence[Found]) -> list[Found]:
    """Boxes in the pixels of their truths' pictures; see `placed`.

    Raises:
        TensorError: the numbers of images differ.
    """
    if len(truths) != len(found):
        raise TensorError(f"truths: {len(truths)} came for {len(found)} images.")
    return [
        one if truth.frame is None else placed(one, truth.frame)
        for truth, one in zip(truths, found, strict=True)
    ]


def placed(found: Found, frame: Frame) -> Found:
    """Boxes of the input as ones of the picture, without those that lie in nothing but its padding."""
    boxes = back(found.boxes, frame)
    seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return Found(boxes=boxes[seen], labels=found.labels[seen], scores=found.scores[seen])


def back(boxes: NDArray[Any], frame: Frame) -> NDArray[np.float64]:
    """(K, 4) boxes of the input as ones of the picture, clipped to it; as `Frame.back`, for many at once."""
    scale, offset, size = (
        np.array(2 * pair, dtype=np.float64) for pair in (frame.scale, frame.offset, frame.size)
    )
    moved: NDArray[np.float64] = np.clip((boxes - offset) / scale, 0.0, size)
    return moved


def plain(answer: Truth | Found) -> dict[str, Any]:
    """As JSON values: boxes to a hundredth of a pixel, scores to four digits."""
    values: dict[str, Any] = {
        "boxes": np.round(answer.boxes.astype(float), 2).tolist(),
        "labels": answer.labels.tolist(),
    }
    if isinstance(answer, Found):
        return {**values, "scores": np.round(answer.scores.astype(float), 4).tolist()}
    if answer.crowds().any():
        values["crowd"] = answer.crowds().tolist()
    if answer.area is not None:
        values["area"] = np.round(answer.area, 2).tolist()
    if answer.frame is not None:
        values["frame"] = to_json(answer.frame)
    if answer.file:
        values["file"] = answer.file
    return values


def read(value: Any) -> Truth | Found:
    """From `plain`'s values: what was found where scores are said, else what is right.

    Raises:
        KeyError, TypeError, ValueError: they are something else.
    """
    boxes = np.array(value["boxes"], dtype=np.float64).reshape(-1, 4)
    labels = np.array(value["labels"], dtype=np.int64).reshape(-1)
    if not np.isfinite(boxes).all():
        raise ValueError("a side is not finite")
    if "scores" in value:
        return Found(
            boxes=boxes, labels=labels, scores=np.array(value["scores"], dtype=np.float64).reshape(-1)
        )
    return Truth(
        boxes=boxes,
        labels=labels,
        crowd=np.array(value["crowd"], dtype=bool).reshape(-1) if "crowd" in value else None,
        area=np.array(value["area"], dtype=np.float64).reshape(-1) if "area" in value else None,
        frame=from_json(Frame, value["frame"]) if "frame" in value else None,
        file=str(value.get("file", "")),
    )
