"""The index of a source of boxes: pictures checked, hashed and split as any others, with what is marked in them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgetl.data.boxes.entries import BoxEntry, FoundBoxes, Marked, Object
from edgetl.data.boxes.truths import refuse_outside, root_of
from edgetl.data.index import (
    DataIndex,
    DataSettings,
    refuse_names,
    subset,
    take_splits,
    usable,
    warn_of_duplicates,
)
from edgetl.data.parallel import in_threads
from edgetl.data.sources import NAMED, SPLITS, Entry, listing
from edgetl.errors import DataError
from edgetl.inputs.image import upright_size
from edgetl.progress import SILENT, Progress
from edgetl.tasks.base import Detection


def index_boxes(
    config: DataSettings, found: FoundBoxes, *, seed: int = 0, progress: Progress = SILENT
) -> DataIndex:
    """Check, hash and split the pictures of a source of boxes. Every picture is read and decoded once.

    Splits that the source lacks are taken by content, so that each has pictures of every class where there are enough;
    a picture counts to the rarest of its classes, and those without boxes are spread alike.

    Args:
        config: as for `edgetl.data.index.build_index`.
        found: what `edgetl.data.boxes.sources.find_boxes` found.
        seed: chooses the pictures of `max_train_images`.
        progress: gets a bar and the warnings.

    Raises:
        DataError: boxes lie outside their pictures, a class has none to learn from, there is no validation split, or
            what `usable` raises.
    """
    labels = _with_boxes(config.source, found, progress)
    refuse_names(config.source, labels)
    by_path = {entry.path: entry for entry in found.entries}
    pictures = Counter(label for entry in found.entries for label in {o.label for o in entry.objects})
    entries = [Entry(e.path, _rarest(e.objects, pictures), e.split, e.group) for e in found.entries]
    good, bad = usable(config.source, entries, config.bad_images, progress)
    marked = _marked([by_path[entry.path] for entry, _ in good], progress)
    refuse_outside(config.source, marked)
    task = Detection(labels=labels)
    samples = [replace(sample, marked=marked[sample.path]) for sample in take_splits(good, task, config)]
    warn_of_duplicates(samples, progress)
    if config.max_train_images is not None:
        given = any(entry.split == "val" for entry, _ in good)
        samples = subset(samples, task, config.max_train_images, seed, shrink_val=not given)
    samples.sort(key=lambda s: (SPLITS.index(s.split), s.label, s.path))
    root = root_of(found)
    skipped = tuple((os.path.relpath(path, root), reason) for path, reason in bad.items())
    index = DataIndex(root, labels, tuple(samples), skipped, asked=task)
    _check_splits(config.source, index)
    return index


def _with_boxes(source: str, found: FoundBoxes, progress: Progress) -> tuple[str, ...]:
    """The classes that have boxes; exports often list names of groups, too."""
    there = {o.label for entry in found.entries for o in entry.objects}
    if without := [label for label in found.labels if label not in there]:
        progress.warning(
            f"{source} lists classes that no box has, which are left out: {', '.join(without[:NAMED])}."
        )
    return tuple(label for label in found.labels if label in there)


def _rarest(objects: Sequence[Object], pictures: Mapping[str, int]) -> str:
    """The class of the picture that the fewest pictures show; empty without objects."""
    return min({o.label for o in objects}, key=lambda label: (pictures[label], label), default="")


def _marked(entries: Sequence[BoxEntry], progress: Progress) -> dict[Path, Marked]:
    def look(entry: BoxEntry) -> tuple[Path, Marked]:
        return entry.path, Marked(upright_size(entry.path), entry.objects)

    parts = in_threads(look, entries, description="Reading sizes", progress=progress)
    return dict(pair for part in parts for pair in part)


def _check_splits(source: str, index: DataIndex) -> None:
    counts = index.counts()
    if lacking := [label for label in index.labels if not counts["train"][label]]:
        texts = [
            f"{label}: {sum(counts[split][label] for split in SPLITS)} boxes, none in train"
            for label in lacking
        ]
        raise DataError(
            f"{source} has classes that cannot be learned:\n{listing(texts)}\n"
            "Add boxes of them to train, or take them out of the list of classes."
        )
    if not any(counts["val"].values()):
        raise DataError(
            f"{source} has no boxes in a validation split, none to choose a model by; add pictures, or name some val."
        )
