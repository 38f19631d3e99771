"""How a network's weights came to be; a device reads it with the manifest."""

from __future__ import annotations

from collections.abc import Iterable

from edgetl.records.frozen import dataclass

ENROLLED = "enrol"
"""The kind of a step in which a device added a class by its prototype, to the models of a bundle."""


@dataclass(frozen=True, kw_only=True)
class LineageStep:
    """One step of how a network's weights came to be.

    `kind` is `weights` where they were given: `name` is `pretrained`, `none` or a file's name. Else it is how they were
    learned, `train` for labelled images, `extend` where a finished run went on, `ENROLLED` or a method of pretraining,
    and `name` is what was learned from: the data's name, or the class that was added; on so many training `images` of
    these `classes` (none without labels), whose index has the hash `data`.
    `file` is the SHA-256 of the file in which the weights were handed on; "" where they never left a run.
    """

    kind: str
    name: str
    images: int = 0
    classes: tuple[str, ...] = ()
    data: str = ""
    file: str = ""

    @property
    def words(self) -> str:
        """As a part of a sentence."""
        if self.kind == "weights":
            return {"pretrained": "pretrained weights", "none": "random weights"}.get(self.name, self.name)
        if self.kind == ENROLLED:
            return f"{self.name} added from {self.images:,} {'image' if self.images == 1 else 'images'}"
        by = "" if self.kind in ("train", "source", "extend") else f"{self.kind} on "
        of = f" of {len(self.classes):,} classes" if self.classes else ""
        return f"{by}{self.images:,} images{of} ({self.name})"


def lineage_words(lineage: Iterable[LineageStep]) -> str:
    """A lineage in words, the first step first."""
    return ", then ".join(step.words for step in lineage)
