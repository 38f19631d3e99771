"""What is marked in a set's pictures as a detector's scores ask for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgetl.data.boxes.entries import FoundBoxes, Marked
from edgetl.data.sources import listing
from edgetl.errors import DataError
from edgetl.inputs.frame import Frame, frame_of
from edgetl.inputs.spec import PreprocessSpec
from edgetl.tasks.detection.boxes import areas
from edgetl.tasks.detection.scores import Truth


def root_of(found: FoundBoxes) -> Path:
    """The folder that holds a source's annotations and all of its pictures."""
    return Path(os.path.commonpath([str(found.root), *{str(entry.path.parent) for entry in found.entries}]))


def refuse_outside(source: str, marked: Mapping[Path, Marked]) -> None:
    """Refuse boxes that no pixel of their pictures lies in; those that reach over the edge are cut off.

    Raises:
        DataError: there are such, of which the message names the first; or all are shares of the pictures' sides.
    """
    faults = []
    for path, one in marked.items():
        width, height = one.size
        for o in one.objects:
            x1, y1, x2, y2 = o.box
            if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
                box = ", ".join(f"{value:g}" for value in o.box)
                faults.append(f"{path}: {o.label} at ({box}) in {width}x{height} pixels")
    if faults:
        raise DataError(
            f"{source} has {len(faults)} boxes that lie outside their pictures:\n{listing(faults)}\n"
            "Are the boxes in another unit than pixels, or of another size or rotation of the pictures?"
        )
    boxes = [o.box for one in marked.values() for o in one.objects if max(one.size) > 1]
    if boxes and max(max(box) for box in boxes) <= 1.0:
        raise DataError(
            f"{source}: all {len(boxes)} boxes lie within the first pixel of their pictures. Are they shares of the"
            " pictures' sides? Give pixels, or YOLO's texts with their YAML."
        )


def truth_of(path: Path, marked: Marked, labels: Sequence[str], spec: PreprocessSpec | None = None) -> Truth:
    """One picture's objects, cut off at its edges, with the frame that a network's input is of it.

    Args:
        path: the picture.
        marked: its objects.
        labels: the task's; every object's class is among them.
        spec: how the network's input is made; where unset, boxes to come are in the picture's own pixels.

    Raises:
        KeyError: a class is not among `labels`.
    """
    position = {label: at for at, label in enumerate(labels)}
    limits = np.array(2 * marked.size, dtype=np.float64)
    boxes = np.array([o.box for o in marked.objects], dtype=np.float64).reshape(-1, 4).clip(0, limits)
    return Truth(
        boxes=boxes,
        labels=np.array([position[o.label] for o in marked.objects], dtype=np.int64),
        crowd=np.array([o.crowd for o in marked.objects], dtype=bool),
        area=np.array(
            [o.area or own for o, own in zip(marked.objects, areas(boxes), strict=True)], dtype=np.float64
        ),
        frame=Frame(size=marked.size, scale=(1.0, 1.0), offset=(0.0, 0.0))
        if spec is None
        else frame_of(marked.size, spec),
        file=str(path),
    )
