"""What is marked in a picture as a detector's scores ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgetl.data.boxes.entries import Marked
from edgetl.inputs.frame import frame_of
from edgetl.inputs.spec import PreprocessSpec
from edgetl.tasks.detection.boxes import areas
from edgetl.tasks.detection.scores import Truth


def truth_of(path: Path, marked: Marked, labels: Sequence[str], spec: PreprocessSpec) -> Truth:
    """One picture's objects, cut off at its edges, with the frame that a network's input is of it.

    Args:
        path: the picture.
        marked: its objects.
        labels: the task's; every object's class is among them.
        spec: how the network's input is made.

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
        frame=frame_of(marked.size, spec),
        file=str(path),
    )
