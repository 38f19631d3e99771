"""What is known of the images that a device kept: one JSON object a line, beside them.

A line may be torn where the power went, or a picture have none: readers leave out what is broken and say how much.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import field

from edgetl.records.codec import OPTIONAL, from_json, to_json
from edgetl.records.frozen import dataclass

LINES = "captured.jsonl"
"""The file's name."""
UNSURE, UNKNOWN, DRIFTED = "unsure", "unknown", "drifted"
"""Why an image is worth labelling."""


@dataclass(frozen=True, kw_only=True)
class CapturedImage:
    """One kept image.

    Attributes:
        file: its name in the folder.
        sha256: of the file, 64 hex digits.
        time: when it was looked at, UTC, as `2026-11-29T06:40:05.123Z`.
        reasons: why it was kept: `unsure`, `unknown`, `drifted`.
        answer: what was answered, in words.
        label: the best class, "" where there was none.
        score: how sure the answer was, in 0..1.
        source: what the image was called, "" where it had no name.
        bundle: name of the bundle.
        variant: which model answered.
        kind: what it was compared by: `features` or `thumbnail`.
        vector: that, of length 1, in whole numbers of 1/127 of its largest, base64 of int8.
    """

    file: str
    sha256: str
    time: str
    reasons: tuple[str, ...]
    answer: str
    label: str
    score: float
    source: str = ""
    bundle: str = ""
    variant: str = ""
    kind: str = field(default="", metadata=OPTIONAL)
    vector: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class CaptureState:
    """What became of the images that were worth keeping.

    Attributes:
        folder: where they are kept.
        kept: images that were written since the session began.
        alike: those left out since one that is alike was kept.
        over_rate: those left out since the hour had its share.
        dropped: those that came faster than they could be written.
        failed: those that could not be written, for what `warning` says.
        size_bytes: of all that is in the folder.
        warning: what went wrong first, in a sentence; empty where all is well.
    """

    folder: str
    kept: int
    alike: int
    over_rate: int
    dropped: int
    failed: int
    size_bytes: int
    warning: str = ""

    @property
    def sentence(self) -> str:
        """It in words."""
        others = [
            f"{count} {what}"
            for count, what in (
                (self.alike, "like one that was kept"),
                (self.over_rate, "over the hour's share"),
                (self.dropped, "dropped, since they came faster than they could be written"),
                (self.failed, "not written"),
            )
            if count
        ]
        beside = f"; left out: {', '.join(others)}" if others else ""
        return f"Kept {self.kept} image{'' if self.kept == 1 else 's'} in {self.folder}{beside}."


def line(image: CapturedImage) -> bytes:
    """An image's line, with its end."""
    return (json.dumps(to_json(image), ensure_ascii=True, allow_nan=False) + "\n").encode()


def read(lines: Iterable[bytes]) -> tuple[list[CapturedImage], int]:
    """The images of a file's lines, and how many lines are none: torn, or another program's."""
    found, broken = list[CapturedImage](), 0
    for content in lines:
        if not content.strip():
            continue
        try:
            found.append(from_json(CapturedImage, json.loads(content)))
        except (ValueError, RecursionError):
            broken += 1
    return found, broken


@dataclass(frozen=True, kw_only=True)
class AddedRecord:
    """What became of a folder of kept images.

    Attributes:
        folder: where they were.
        images: files that were looked at.
        added: those that were taken.
        unreadable: (name, reason) of those that cannot be used.
        copies: (name, other) of those whose file was there already, in the folder or the data set.
        near: (name, other) of those that look like an image of the data set.
        unlabelled: those without a class; only where classes are given.
        classes: number of images added by class; empty where none are given.
        new_classes: those of them that the data set does not have.
        torn: lines about images that are broken.
        before: rows of the data set that the file begins with.
        out: the file or folder that was written.
        kind: what they are, `image` or `sound`.
    """

    folder: str
    images: int
    added: int
    unreadable: tuple[tuple[str, str], ...]
    copies: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str], ...]
    unlabelled: int
    classes: dict[str, int]
    new_classes: tuple[str, ...]
    torn: int
    before: int
    out: str
    kind: str = "image"
