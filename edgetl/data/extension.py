"""The images of a finished run and added ones as one set: known classes keep their places, new ones come after."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path

from edgetl.data import labels as class_names
from edgetl.data.index import DataIndex, Sample, sort_labels
from edgetl.data.sources import SPLITS, listing
from edgetl.data.unlabelled import not_scored
from edgetl.errors import DataError
from edgetl.progress import SILENT, Progress
from edgetl.tasks.base import Classification


def check(known: DataIndex, added: DataIndex, source: str) -> None:
    """What would stop joining, known before a network is asked.

    Args:
        known: of the run before.
        added: of the added images.
        source: names these, for messages.

    Raises:
        DataError: either is labelled for another task than one class per image, an image of the run is gone, all added
            images are in the run, or a class is spelled in two ways.
    """
    for index, whose in ((known, "the run's images"), (added, source)):
        if not isinstance(index.task, Classification):
            raise DataError(
                f"extend.run asks for one class per image, but {whose} are labelled for {index.task.kind}; train anew"
                " on all images instead."
            )
    missing = [sample.path for sample in known.samples if not sample.path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(known.samples)} images of the run are not where they were, e.g. {missing[0]}."
            " Extending replays some and is judged on others: put them back."
        )
    contents = {sample.sha256 for sample in known.samples}
    if all(sample.sha256 in contents for sample in added.samples):
        raise DataError(
            f"{source} holds no new images: all {len(added.samples)} are in the run already. Add images that it has not"
            " seen."
        )
    new = [label for label in added.labels if label not in known.labels]
    groups = class_names.alike((*known.labels, *new))
    if twice := [group for group in groups if set(group) & set(new)]:
        raise DataError(
            f"{source} spells classes in another way than the run, or in two ways:\n"
            f"{listing(' and '.join(repr(label) for label in group) for group in twice)}\n"
            "Rename its folders or labels as the run has them."
        )


def fresh(known: DataIndex, added: DataIndex, progress: Progress = SILENT) -> tuple[Sample, ...]:
    """The added images that the run does not have, nor near-copies of those on which it is judged.

    Args:
        known: of the run before.
        added: of the added images.
        progress: gets a bar.

    Raises:
        DataError: then no image is left to learn a new class from, or none at all.
        ImageError: an image cannot be read any more.
    """
    contents = {sample.sha256 for sample in known.samples}
    others = [sample for sample in added.samples if sample.sha256 not in contents]
    found = not_scored(others, known, progress=progress)
    if not any(sample.split == "train" for sample in found):
        raise DataError(
            "No added image is left to learn from: those of its training split are in the run already, or look like"
            " its validation or test images. Add others."
        )
    taught = {sample.label for sample in found if sample.split == "train"}
    unseen = [
        label for at, label in enumerate(added.labels) if label not in known.labels and at not in taught
    ]
    if unseen:
        raise DataError(
            f"No image of {unseen[0]} is left to learn from: the run has them already under other names, or they look"
            " like its validation or test images. Correct the labels, or add others."
        )
    return found


def join(
    known: DataIndex, added: DataIndex, samples: Collection[Sample], exemplars: Collection[Sample]
) -> DataIndex:
    """One set of both.

    Args:
        known: of the run before; its validation and test images stay as they are.
        added: names the classes of the added images.
        samples: those of the added images that join, in the order of `added`.
        exemplars: the training images of the run that are learned from again.
    """
    labels = (*known.labels, *sort_labels(label for label in added.labels if label not in known.labels))
    place = {label: at for at, label in enumerate(labels)}
    joined = [sample for sample in known.samples if sample.split != "train"]
    joined += exemplars
    joined += [dataclasses.replace(s, label=place[added.labels[s.label]]) for s in samples]
    joined.sort(key=lambda sample: (SPLITS.index(sample.split), sample.label, sample.path))
    root = Path(os.path.commonpath([known.root, added.root]))
    return DataIndex(root, labels, tuple(joined))
