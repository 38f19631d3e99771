"""Calibration sets: a few images of the training split from which a quantizer learns the activations' ranges.

A set travels as a JSON manifest with each image's path, hash and label; see the `calibration` folder at the
top of the repository for the format and an example.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from edgetl.data.index import DataIndex
from edgetl.data.splits import draw_evenly
from edgetl.data.targets import order
from edgetl.errors import DataError
from edgetl.files import sha256_file, storage_errors, write_bytes, write_text
from edgetl.inputs.image import PreprocessSpec, load_batch
from edgetl.progress import SILENT, Progress
from edgetl.records.codec import from_json, to_json

FORMAT = "edgetl-calibration"
VERSION = 1
METHOD = "evenly from the classes of the train split, by SHA-256 of seed and content"


@dataclass(frozen=True, kw_only=True)
class CalibrationImage:
    """One image: an absolute path, the SHA-256 of the file, its label's name (several are parted by `|`)."""

    path: Path
    sha256: str
    label: str


@dataclass(frozen=True, kw_only=True)
class CalibrationSet:
    """Calibration images and how they were drawn.

    Attributes:
        samples: the images, by label and path; no content twice.
        seed: the seed of the draw.
        requested: how many images were asked for; there may be fewer.
        index_sha256: the hash of the index that they were drawn from.
    """

    samples: tuple[CalibrationImage, ...]
    seed: int
    requested: int
    index_sha256: str


@dataclass(frozen=True, kw_only=True)
class _ManifestImage:
    path: str
    sha256: str
    label: str


@dataclass(frozen=True, kw_only=True)
class _Manifest:
    format: str
    version: int
    method: str
    seed: int
    requested: int
    index_sha256: str
    images: tuple[_ManifestImage, ...]


def draw(
    index: DataIndex,
    images: int,
    seed: int,
    *,
    unlabelled: DataIndex | None = None,
    progress: Progress = SILENT,
) -> CalibrationSet:
    """Draw a set from the training split, as evenly from the classes as they allow.

    The same index, number and seed give the same set on every machine. Where there are fewer different images than
    asked for, there is a warning.

    Args:
        index: the labelled images.
        images: how many.
        seed: decides which.
        unlabelled: images of another domain, of which half of the set is drawn, those of the training split apart.
        progress: gets the warning.

    Raises:
        DataError: the training split is empty, or `images` is below 1.
    """
    if images < 1:
        raise DataError(f"A calibration set of {images} images was asked for; it needs at least one.")
    unique = {sample.sha256: sample for sample in reversed(index.split("train"))}
    train = sorted(unique.values(), key=lambda sample: (order(sample.label), sample.path))
    if not train:
        raise DataError(f"{index.root} has no training images to calibrate on.")
    items = [(s.sha256, group) for s, group in zip(train, index.strata(train), strict=True)]
    salt = f"calibration-{seed}"
    others = [s for s in (() if unlabelled is None else unlabelled.samples) if s.sha256 not in unique]
    further = draw_evenly([(s.sha256, s.label) for s in others], images // 2, salt)
    chosen = draw_evenly(items, images - len(further), salt)
    if len(chosen) + len(further) < images:
        beside = f" and {len(further)} of the {len(others)} of adapt.images" if others else ""
        progress.warning(
            f"Calibrating on all {len(chosen)} training images{beside}; {images} were asked for."
        )
    samples = (
        *(
            CalibrationImage(path=s.path, sha256=s.sha256, label=index.named(s))
            for s in (train[at] for at in chosen)
        ),
        *(CalibrationImage(path=s.path, sha256=s.sha256, label="") for s in (others[at] for at in further)),
    )
    return CalibrationSet(samples=samples, seed=seed, requested=images, index_sha256=index.sha256)


def batches(
    calibration: CalibrationSet, spec: PreprocessSpec, batch_size: int, *, threads: int = 1
) -> Iterator[NDArray[np.float32]]:
    """Yield the set as network inputs (n, 3, size, size) float32, n = `batch_size` but for the last.

    One batch is in memory at a time.

    Raises:
        DataError: the set is empty.
        ImageError: an image cannot be read.
    """
    paths = [sample.path for sample in calibration.samples]
    if not paths:
        raise DataError("The calibration set is empty.")
    for start in range(0, len(paths), batch_size):
        yield load_batch(paths[start : start + batch_size], spec, threads=threads)


def save(calibration: CalibrationSet, path: Path, *, root: Path | None = None) -> None:
    """Write the manifest with paths relative to `root` (the manifest's folder, where unset).

    Raises:
        DataError: an image is not under `root`.
        StorageError: the file cannot be written.
    """
    root = (root or path.parent).absolute()
    images = []
    for sample in calibration.samples:
        if not sample.path.is_relative_to(root):
            raise DataError(f"{sample.path} is not under {root}; the manifest cannot name it.")
        name = sample.path.relative_to(root).as_posix()
        images.append(_ManifestImage(path=name, sha256=sample.sha256, label=sample.label))
    manifest = _Manifest(
        format=FORMAT,
        version=VERSION,
        method=METHOD
        if all(image.label for image in images)
        else f"{METHOD}; those without a label likewise",
        seed=calibration.seed,
        requested=calibration.requested,
        index_sha256=calibration.index_sha256,
        images=tuple(images),
    )
    head = to_json(manifest)
    lines = ",\n".join(f"  {json.dumps(image, ensure_ascii=False)}" for image in head.pop("images"))
    text = json.dumps(head, indent=1, ensure_ascii=False)[:-2] + f',\n "images": [\n{lines}\n ]\n}}\n'
    write_text(path, text)


def save_portable(calibration: CalibrationSet, path: Path) -> CalibrationSet:
    """Write the manifest and, next to it, a folder of its name with copies of the images (LABEL_FILENAME).

    Returns:
        The set of the copies.

    Raises:
        DataError: an image was altered.
        StorageError: something cannot be written.
    """
    from edgetl.locks import turn

    # One after the other: the copies of two sets may have the same names.
    with turn(path.with_name(f".{path.name}.lock")):
        portable = _copied(calibration, path.absolute().with_suffix(""))
        _verify(portable)
        save(portable, path)
    return portable


def _copied(calibration: CalibrationSet, folder: Path) -> CalibrationSet:
    copies: list[CalibrationImage] = []
    taken: set[str] = set()
    for sample in calibration.samples:
        target = folder / _copy_name(sample, taken)
        taken.add(target.name.casefold())
        with storage_errors(target):
            folder.mkdir(parents=True, exist_ok=True)
        write_bytes(target, sample.path.read_bytes())
        copies.append(replace(sample, path=target))
    return replace(calibration, samples=tuple(copies))


def _copy_name(sample: CalibrationImage, taken: Set[str]) -> str:
    """LABEL_FILENAME, within one folder whatever the label holds; with a part of the hash where that name is taken.

    Names that differ only in case would be one file on some systems.
    """
    label = re.sub(r'[\\/:*?"<>|\x00-\x1f]', "-", sample.label)
    name = f"{label[:60]}_{sample.path.stem[:80]}"
    for candidate in (f"{name}{sample.path.suffix}", f"{name}_{sample.sha256[:16]}{sample.path.suffix}"):
        if candidate.casefold() not in taken:
            return candidate
    return f"{name}_{sample.sha256}{sample.path.suffix}"


def load(path: Path, *, root: Path | None = None) -> CalibrationSet:
    """Read a manifest and check that every image is there, unaltered.

    Args:
        path: the manifest.
        root: what its paths are relative to; its own folder, where unset.

    Raises:
        DataError: it is not such a manifest, is empty, of a newer version, names a path outside `root`, or an
            image is missing or altered.
    """
    try:
        manifest = from_json(_Manifest, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a calibration manifest that can be read: {error}.") from error
    if manifest.format != FORMAT or manifest.version > VERSION:
        raise DataError(
            f"{path} is {manifest.format!r} version {manifest.version}; "
            f"this edgetl reads {FORMAT!r} up to version {VERSION}."
        )
    if not manifest.images:
        raise DataError(f"{path} lists no images.")
    root = (root or path.parent).absolute()
    samples = tuple(
        CalibrationImage(path=_inside(root, image.path, path), sha256=image.sha256, label=image.label)
        for image in manifest.images
    )
    calibration = CalibrationSet(
        samples=samples,
        seed=manifest.seed,
        requested=manifest.requested,
        index_sha256=manifest.index_sha256,
    )
    _verify(calibration)
    return calibration


def _inside(root: Path, name: str, manifest: Path) -> Path:
    relative = PurePosixPath(name)
    unsafe = (
        relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name or not relative.parts
    )
    if unsafe:
        raise DataError(f"{manifest} names {name!r}, which is not a path inside {root}.")
    return root / relative


def _verify(calibration: CalibrationSet) -> None:
    for sample in calibration.samples:
        try:
            digest = sha256_file(sample.path)
        except OSError as error:
            raise DataError(
                f"The calibration image {sample.path} cannot be read: {error.strerror}."
            ) from error
        if digest != sample.sha256:
            raise DataError(
                f"The calibration image {sample.path} was altered: its SHA-256 is not the manifest's."
            )
