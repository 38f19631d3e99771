"""Image sets by name: `digits` (no download) and `cifar10` (through torchvision, needs a network)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgetl.errors import DataError
from edgetl.files import cache_dir, storage_errors
from edgetl.packages import missing
from edgetl.progress import Progress

NAMES = ("digits", "cifar10")


def folder(name: str, *, progress: Progress) -> Path | None:
    """The folder of the built-in set `name`, written to the cache on first use; None for other names.

    A folder in the working directory that has the same name goes first.

    Raises:
        DataError: the set cannot be downloaded; the message names the remedy.
        MissingDependencyError: scikit-learn or torchvision is not installed.
        StorageError: the cache cannot be written.
    """
    if name not in NAMES or Path(name).is_dir():
        return None
    target = cache_dir() / name
    if not target.is_dir():
        progress.message(f"Writing the built-in set {name} to {target}.")
        _write_folder(target, _digits if name == "digits" else _cifar10)
    return target


def _write_folder(target: Path, images: Callable[[Path], Iterator[tuple[str, Image.Image]]]) -> None:
    """Write images under their relative names to a folder that appears complete or not at all."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
            work = Path(name)
            for relative, image in images(work / "download"):
                path = work / "images" / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                # Uncompressed: the bytes, and with them hashes and splits, are the same with every zlib.
                image.save(path, compress_level=0)
            try:
                (work / "images").rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster, and wrote the same
                    raise


def _digits(_: Path) -> Iterator[tuple[str, Image.Image]]:
    """1,797 handwritten digits, 8x8 grey (UCI Optical Recognition of Handwritten Digits)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise missing("sklearn") from None
    digits: Any = load_digits()
    pixels = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)
    for number, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        yield f"{label}/{number:04d}.png", Image.fromarray(image)


def _cifar10(download: Path) -> Iterator[tuple[str, Image.Image]]:
    """60,000 colour images of ten classes, 32x32 (Krizhevsky 2009), in the original train and test split."""
    try:
        from torchvision.datasets import CIFAR10
    except ImportError:
        raise missing("torchvision") from None
    for split, train in (("train", True), ("test", False)):
        try:
            images: Any = CIFAR10(str(download), train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"CIFAR-10 cannot be downloaded ({error}). Where there is no network, unpack it as "
                "train/CLASS/* and test/CLASS/* and point data.source at that folder."
            ) from error
        for number, (image, label) in enumerate(images):
            yield f"{split}/{images.classes[label]}/{number:05d}.png", image
