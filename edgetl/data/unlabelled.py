"""Images without labels, from which a student learns what its teacher says of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgetl.data.audit import near_copies
from edgetl.data.index import UNLABELLED, DataIndex, Sample, usable
from edgetl.data.sources import SUFFIXES, Entry
from edgetl.errors import DataError
from edgetl.progress import SILENT, Progress
from edgetl.records.train import UnlabelledRecord


@dataclass(frozen=True, kw_only=True)
class UnlabelledInputs:
    """What is needed beside the folder.

    Attributes:
        index: the labelled images, of which those of val and test must not teach.
        bad_images: `refuse` or `skip`, as `data.bad_images`.
    """

    index: DataIndex
    bad_images: str


def find(folder: str) -> tuple[Path, ...]:
    """The images in a folder at any depth, by path. Hidden files and folders, and links to folders, are passed over.

    Raises:
        DataError: there is no such folder, it cannot be read, or it holds no images.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"distill.unlabelled: {root} {what}; give a folder of images.")

    def refuse(error: OSError) -> None:
        raise DataError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error

    found: list[Path] = []
    for parent, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        raise DataError(
            f"distill.unlabelled: {root} holds no images at any depth; expected files that end in .jpg, .png or the"
            " like."
        )
    return tuple(sorted(found))


def run(folder: str, inputs: UnlabelledInputs, *, out: Path, progress: Progress = SILENT) -> UnlabelledRecord:
    """Index the images of a folder and write `index.json` into `out`.

    The index has no classes, and its order follows from the contents alone. Equal files count once; those that are in
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
    root = Path(folder).expanduser().absolute()
    entries = [Entry(path, "", None) for path in find(folder)]
    good, bad = usable(folder, entries, inputs.bad_images, progress)
    if not good:
        raise DataError(f"distill.unlabelled: {folder} holds no usable images.")
    scored = [sample for sample in inputs.index.samples if sample.split != "train"]
    contents = {sample.sha256 for sample in scored}
    kept = {sha256: entry.path for entry, sha256 in reversed(good) if sha256 not in contents}
    further = [Sample(kept[sha256], UNLABELLED, "train", sha256) for sha256 in sorted(kept)]
    parts = [0] * len(scored) + [1] * len(further)
    asked = range(len(scored), len(parts))
    pairs = near_copies([*scored, *further], parts, asked, progress=progress)
    alike = {at - len(scored) for _, at in pairs}
    samples = tuple(sample for at, sample in enumerate(further) if at not in alike)
    held_out = len(alike) + sum(sha256 in contents for _, sha256 in good)
    if held_out:
        progress.message(
            f"unlabelled: {held_out} of {len(good)} images are in the validation or test split, or near-copies of "
            "those, and are left out"
        )
    if not samples:
        raise DataError(
            f"distill.unlabelled: all images in {folder} are in the validation or test split, which must not teach; add"
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
