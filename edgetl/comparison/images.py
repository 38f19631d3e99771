"""The images that two runs have in common, by content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgetl.comparison.record import ComparedImages
from edgetl.errors import DataError
from edgetl.progress import SILENT, Progress
from edgetl.tasks.base import Detection, MultiHead, TaskSpec

if TYPE_CHECKING:
    from edgetl.comparison.sides import Side
    from edgetl.data.index import DataIndex, Sample
    from edgetl.runtime.evaluate import ImageSet

Split = Literal["val", "test"]
_WORDS = {"val": "validation", "test": "test"}


def common_images(first: Side, second: Side, split: Split) -> tuple[ImageSet, ComparedImages]:
    """The images that are in the split of both runs, as the SHA-256 of their files says.

    They are read where the first run has them, or the second where the first's folder has gone. Copies of an image
    count once.

    Raises:
        DataError: there are none, or they are no longer where either run has them.
    """
    from edgetl.runtime.evaluate import ImageSet, LabelledImage

    indexes = first.index(), second.index()
    by_content = [{s.sha256: s for s in index.split(split)} for index in indexes]
    shared = [sha256 for sha256 in by_content[0] if sha256 in by_content[1]]
    said = [
        {sha256: _truth(index, own[sha256]) for sha256 in shared}
        for index, own in zip(indexes, by_content, strict=True)
    ]
    kept = [sha256 for sha256 in shared if said[0][sha256] == said[1][sha256]]
    if not kept:
        raise DataError(_none_in_common(first, second, split, [len(own) for own in by_content], len(shared)))
    index, samples = _readable(indexes, [[own[sha256] for sha256 in kept] for own in by_content])
    labelled = tuple(LabelledImage(s.path, plain_label(index, s)) for s in samples)
    lost, new = (len(own) - len(shared) for own in by_content)
    about = ComparedImages(
        split=split,
        source=str(index.root),
        root=str(index.root),
        images=len(labelled),
        only_first=lost,
        only_second=new,
        relabelled=len(shared) - len(kept),
    )
    return ImageSet(root=index.root, samples=labelled), about


def _none_in_common(first: Side, second: Side, split: Split, counts: Sequence[int], shared: int) -> str:
    if shared:
        return (
            f"The {shared} {_WORDS[split]} images that {first.path} and {second.path} share are all labelled"
            " differently; nothing is left to compare them on. Compare both on one labelled set with --data."
        )
    return (
        f"{first.path} ({counts[0]} {_WORDS[split]} images) and {second.path} ({counts[1]}) have no {_WORDS[split]}"
        " image in common. Compare both on one labelled set that neither learned from, with --data."
    )


def _readable(
    indexes: Sequence[DataIndex], samples: Sequence[Sequence[Sample]]
) -> tuple[DataIndex, Sequence[Sample]]:
    for index, own in zip(indexes, samples, strict=True):
        if all(sample.path.is_file() for sample in own):
            return index, own
    gone = next(sample.path for sample in samples[0] if not sample.path.is_file())
    raise DataError(
        f"{gone} is no longer there, and the other run's copy is not either. Bring the images back, or compare both on"
        " another labelled set with --data."
    )


def _truth(index: DataIndex, sample: Sample) -> Any:
    """What is right for an image, without the order of the classes."""
    if sample.marked is not None:
        return sorted((o.label, o.box, o.crowd) for o in sample.marked.objects)
    return _words(index.task, sample.label)


def _words(task: TaskSpec, label: Any) -> Any:
    if isinstance(task, MultiHead):
        return [
            (name, None if own is None else _words(head, own))
            for (name, head), own in zip(task.heads.items(), label, strict=True)
        ]
    positions = label if isinstance(label, tuple) else (label,)
    return sorted(task.labels[at] for at in positions)


def plain_label(index: DataIndex, sample: Sample) -> Any:
    """What is right for an image, as `Task.plain` has it."""
    if isinstance(index.task, Detection):
        from edgetl.data.boxes.entries import Marked
        from edgetl.data.boxes.truths import truth_of
        from edgetl.tasks.detection.found import plain

        marked = sample.marked or Marked((1, 1), ())
        return plain(truth_of(sample.path, marked, index.task.labels))
    from edgetl.tasks.all import task_of, truths_of

    [label] = task_of(index.task).plain(truths_of(index.task, [sample.label]))
    return label


def named_images(
    data: Path, sides: Sequence[Side], *, progress: Progress = SILENT
) -> tuple[ImageSet, ComparedImages]:
    """The images of a labelled set, less those that either of the two learned from.

    Raises:
        DataError: it cannot be used.
    """
    from edgetl.runtime.evaluate import choose_images

    images = choose_images(data, [side.bundle for side in sides], progress=progress)
    about = ComparedImages(split="", source=str(data), root=str(images.root), images=len(images.samples))
    return images, about
