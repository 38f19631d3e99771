"""Images without labels: those that join distillation, and those on which a backbone is pretrained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.data.audit import near_copies
from edgetl.data.index import UNLABELLED, DataIndex, Sample, usable
from edgetl.data.sources import Entry
from edgetl.data.walk import counted, images_below, lookalikes, place
from edgetl.errors import DataError
from edgetl.inputs.spec import InputKind
from edgetl.progress import SILENT, Progress
from edgetl.records.train import UnlabelledRecord

SETTING = "distill.unlabelled"


@dataclass(frozen=True, kw_only=True)
class UnlabelledInputs:
    """What is needed besides the folder.

    Attributes:
        index: the labelled images, of which those of val and test must not teach.
        bad_images: `refuse` or `skip`, as `data.bad_images`.
        setting: the recipe's that names the folder, for messages.
        transductive: images of val and test teach too, without their labels.
    """

    index: DataIndex
    bad_images: str
    setting: str = SETTING
    transductive: bool = False


def find(
    folder: str,
    *,
    setting: str = SETTING,
    kind: InputKind = InputKind.IMAGE,
    progress: Progress = SILENT,
) -> tuple[Path, ...]:
    """The images, or recordings, in a folder at any depth, by path, as `edgetl.data.walk` finds them.

    Raises:
        DataError: there is no such folder, it cannot be read, or it holds none.
    """
    root = place(folder).absolute()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{setting}: {root} {what}; give a folder of {kind.plural}.")
    found, others = images_below(root, kind)
    if not found:
        beside = f" It holds {counted(others)}." if others else ""
        raise DataError(
            f"{setting}: {root} holds no {kind.plural} at any depth; expected files that end in"
            f" {'.jpg, .png' if kind is InputKind.IMAGE else '.wav, .flac'} or the like.{beside}"
        )
    if missed := lookalikes(others, kind):
        progress.warning(f"{setting}: besides the {kind.plural}, {counted(missed)} in {root} are not read.")
    return found


def run(folder: str, inputs: UnlabelledInputs, *, out: Path, progress: Progress = SILENT) -> UnlabelledRecord:
    """Index the images of a folder and write `index.json` into `out`.

    The index has no classes, and its order follows only from the contents. Equal files count once; those that are in
    val or test, or near-copies of what is (see `edgetl.data.audit`), are left out.

    Args:
        folder: of images, at any depth.
        inputs: the labelled images and what to do about bad ones.
        out: where to write.
        progress: gets a bar, and the number that is left out.

    Raises:
        DataError: there is nothing usable, or a bad image where `bad_images` is `refuse`.
        StorageError: the index cannot be written.
    """
    root = place(folder).absolute()
    entries = [Entry(path, "", None) for path in find(folder, setting=inputs.setting, progress=progress)]
    good, bad = usable(folder, entries, inputs.bad_images, progress)
    contents = set() if inputs.transductive else {sample.sha256 for sample in scored(inputs.index)}
    kept = {sha256: entry.path for entry, sha256 in reversed(good) if sha256 not in contents}
    further = [Sample(kept[sha256], UNLABELLED, "train", sha256) for sha256 in sorted(kept)]
    samples = tuple(further) if inputs.transductive else not_scored(further, inputs.index, progress=progress)
    held_out = len(further) - len(samples) + sum(sha256 in contents for _, sha256 in good)
    if held_out:
        progress.message(
            f"unlabelled: {held_out} of {len(good)} images are in the validation or test split, or near-copies of "
            "those, and are left out"
        )
    if not samples:
        raise DataError(
            f"{inputs.setting}: all images in {folder} are in the validation or test split, which must not teach; add"
            " others."
        )
    skipped = tuple((path.relative_to(root).as_posix(), reason) for path, reason in bad.items())
    index = DataIndex(root, (), samples, skipped)
    index.save(out / "index.json")
    return UnlabelledRecord(
        index=f"{out.name}/index.json",
        images=len(samples),
        held_out=held_out,
        skipped=skipped,
        sha256=index.sha256,
    )


def together(first: DataIndex, second: DataIndex) -> DataIndex:
    """Two folders' images as one; equal files count once."""
    contents = {sample.sha256: sample for sample in (*second.samples, *first.samples)}
    root = Path(os.path.commonpath([first.root, second.root]))
    return DataIndex(root, (), tuple(contents[sha256] for sha256 in sorted(contents)))


def scored(index: DataIndex) -> tuple[Sample, ...]:
    """The images that must not teach: those of validation and test."""
    return tuple(sample for sample in index.samples if sample.split != "train")


def not_scored(
    samples: Sequence[Sample], index: DataIndex, *, progress: Progress = SILENT
) -> tuple[Sample, ...]:
    """Those of some images that are neither in the validation or test split of `index` nor near-copies of what is.

    Args:
        samples: the images, in the order in which they come back.
        index: the labelled images.
        progress: gets a bar.

    Raises:
        ImageError: an image cannot be read any more.
    """
    held = scored(index)
    contents = {sample.sha256 for sample in held}
    others = [sample for sample in samples if sample.sha256 not in contents]
    parts = [0] * len(held) + [1] * len(others)
    if index.sound is not None:  # pictures of short sounds are alike without being copies
        return tuple(others)
    pairs = near_copies([*held, *others], parts, range(len(held), len(parts)), progress=progress)
    alike = {at - len(held) for _, at in pairs}
    return tuple(sample for at, sample in enumerate(others) if at not in alike)
