"""Score a session on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgetl.data.sources import closest, find
from edgetl.errors import DataError, ImageError
from edgetl.progress import SILENT, Progress
from edgetl.records.scores import Evaluation
from edgetl.runtime.session import Session
from edgetl.tasks.classification.scores import evaluate as score


class Labelled(Protocol):
    """An image file and the position of its class in the session's labels."""

    @property
    def path(self) -> Path:
        """The image."""

    @property
    def label(self) -> int:
        """Index into the labels."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """See `Labelled`."""

    path: Path
    label: int


def evaluate(session: Session, samples: Sequence[Labelled], *, progress: Progress = SILENT) -> Evaluation:
    """Accuracy, macro-F1, per-class scores and confusion of a session.

    Raises:
        DataError: there are no samples.
        ImageError: an image cannot be used; the message names it.
    """
    logits = predict_logits(session, samples, progress=progress)
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    return score(labels, logits, session.labels)


def predict_logits(
    session: Session, samples: Sequence[Labelled], *, progress: Progress = SILENT
) -> NDArray[np.float32]:
    """Logits (N, C) float32 of images in their order; decodes and runs in the engine's number of threads.

    Raises:
        DataError: there are no samples.
        ImageError: an image cannot be used; the message names it.
    """
    if not samples:
        raise DataError("There are no images to score.")
    logits = np.empty((len(samples), len(session.labels)), dtype=np.float32)
    with progress.task("Scoring", total=len(samples)) as task:
        found = session.logits_of([sample.path for sample in samples])
        for index, (_, row) in enumerate(found):
            if isinstance(row, ImageError):
                raise row
            logits[index] = row
            task.advance()
    return logits


def evaluate_folder(session: Session, data: Path, *, progress: Progress = SILENT) -> Evaluation:
    """As `evaluate`, on a folder CLASS/* or SPLIT/CLASS/*, or a CSV; see `find_samples`.

    Raises:
        DataError: there is nothing to read, or a class that the bundle does not know.
        ImageError: an image cannot be used; the message names it.
    """
    return evaluate(session, find_samples(data, session.labels, progress=progress), progress=progress)


def find_samples(
    data: Path, labels: Sequence[str], *, progress: Progress = SILENT
) -> tuple[LabelledImage, ...]:
    """The labelled images of a folder or CSV: its test split, else its validation split, else all.

    Classes are matched with `labels` by name; classes without images are allowed.

    Raises:
        DataError: there is nothing to read, or a class is not among `labels`; the message names the nearest.
    """
    entries = find(str(data), progress=progress).entries
    splits = {entry.split for entry in entries}
    chosen = next((split for split in ("test", "val") if split in splits), None)
    position = {label: index for index, label in enumerate(labels)}
    kept = [entry for entry in entries if chosen is None or entry.split == chosen]
    for name in sorted({entry.label for entry in kept} - position.keys()):
        near = closest(name, labels, cutoff=0.6)
        hint = f"Did you mean {near!r}?" if near else f"It knows: {', '.join(labels)}."
        raise DataError(f"{data} has the class {name!r}, which the bundle does not know. {hint}")
    return tuple(LabelledImage(entry.path, position[entry.label]) for entry in kept)
