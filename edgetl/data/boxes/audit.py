"""What is wrong with boxes: over the picture's edge, marked twice, classes that a split lacks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetl.data.boxes.entries import Marked
from edgetl.data.sources import SPLITS
from edgetl.tasks.detection.boxes import overlaps

if TYPE_CHECKING:
    from edgetl.data.index import DataIndex

BEYOND = 2.0
"""Boxes reach so many pixels over the edge by rounding; more is a mistake."""
SAME = 0.95
"""Two boxes of one class that overlap by so much (intersection over union) mark one object twice."""
MOST = 100
"""Boxes of a class in a picture that COCO's scores look at."""


@dataclass(frozen=True, kw_only=True)
class BoxFindings:
    """Of boxes, what an audit found. Places are `path: class at (x1, y1, x2, y2)`, in pixels, or counts.

    Attributes:
        images: pictures by split.
        empty: pictures without boxes by split; they are allowed, and teach what is background.
        beyond: boxes that reach more than `BEYOND` pixels over the edge of their picture.
        twice: boxes that mark an object that another one of the same class marks.
        crowded: pictures with more than `MOST` boxes of a class.
        absent: (class, split) where a split has no box of a class that train has.
        single: classes with one box in all.
    """

    images: dict[str, int]
    empty: dict[str, int]
    beyond: tuple[str, ...]
    twice: tuple[str, ...]
    crowded: tuple[str, ...]
    absent: tuple[tuple[str, str], ...]
    single: tuple[str, ...]

    def problems(self) -> tuple[str, ...]:
        """One sentence for each kind of problem, with what to do."""
        absent = ", ".join(f"{label} ({split})" for label, split in self.absent[:5])
        found = (
            (
                self.beyond,
                f"{len(self.beyond)} boxes reach over the edge of their pictures, where they are cut off: are they in"
                " pixels of these very pictures?",
            ),
            (self.twice, f"{len(self.twice)} boxes mark an object a second time; remove them."),
            (
                self.crowded,
                f"{len(self.crowded)} pictures have more than {MOST} boxes of one class, of which scores look at the"
                f" best {MOST} answers only.",
            ),
            (
                self.absent,
                f"{len(self.absent)} times, a split lacks a class: {absent}; nothing can be said of it there.",
            ),
            (
                self.single,
                f"{len(self.single)} classes have one box ({', '.join(self.single[:5])}): typing errors? Else add"
                " pictures of them.",
            ),
        )
        return tuple(sentence for holds, sentence in found if holds)

    def places(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Titles and what is listed below them."""
        return (
            ("Boxes over the edge", self.beyond),
            ("Boxes that mark an object a second time", self.twice),
            (f"Pictures with more than {MOST} boxes of a class", self.crowded),
        )


def look_at_boxes(index: DataIndex) -> BoxFindings:
    """Look at all boxes of an index; no picture is opened."""
    counts = index.counts()
    beyond, twice, crowded = [], [], []
    images, empty = ({str(split): 0 for split in SPLITS} for _ in range(2))
    for sample in index.samples:
        assert sample.marked is not None
        name = sample.path.relative_to(index.root).as_posix()
        images[sample.split] += 1
        empty[sample.split] += not sample.marked.objects
        beyond += [f"{name}: {text}" for text in _beyond(sample.marked)]
        twice += [f"{name}: {text}" for text in _twice(sample.marked)]
        per_class = Counter(o.label for o in sample.marked.objects)
        crowded += [f"{name}: {count} of {label}" for label, count in per_class.items() if count > MOST]
    used = [split for split in SPLITS if images[split]]
    return BoxFindings(
        images=images,
        empty=empty,
        beyond=tuple(beyond),
        twice=tuple(twice),
        crowded=tuple(crowded),
        absent=tuple((label, split) for split in used for label in index.labels if not counts[split][label]),
        single=tuple(label for label in index.labels if sum(counts[split][label] for split in SPLITS) == 1),
    )


def _place(label: str, box: tuple[float, float, float, float]) -> str:
    return f"{label} at ({', '.join(f'{value:g}' for value in box)})"


def _beyond(marked: Marked) -> list[str]:
    width, height = marked.size
    return [
        f"{_place(o.label, o.box)} in {width}x{height}"
        for o in marked.objects
        if min(o.box[:2]) < -BEYOND or o.box[2] > width + BEYOND or o.box[3] > height + BEYOND
    ]


def _twice(marked: Marked) -> list[str]:
    """The later ones of boxes that mark the same; boxes around crowds are left out."""
    real = [o for o in marked.objects if not o.crowd]
    found = []
    for label in sorted({o.label for o in real}):
        own = [o for o in real if o.label == label]
        boxes = np.array([o.box for o in own], dtype=np.float64)
        again = np.triu(overlaps(boxes, boxes) >= SAME, k=1).any(axis=0)
        found += [_place(label, own[at].box) for at in np.flatnonzero(again)]
    return found
