"""Decoded images on disk: each image is decoded once for a spec, then read through a memory map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from edgetl.data.index import Sample
from edgetl.data.parallel import in_threads
from edgetl.errors import DataError, ImageError
from edgetl.files import atomic_path, sha256_bytes, sha256_json
from edgetl.inputs.image import PreprocessSpec, Resize, load_pixels
from edgetl.progress import SILENT, Progress
from edgetl.records.codec import to_json

_FORMAT = 2
"""Raised whenever the same image and spec give other pixels than before."""


def open_pixels(
    samples: Sequence[Sample], spec: PreprocessSpec, folder: Path, progress: Progress = SILENT
) -> NDArray[np.uint8]:
    """Pixels of `samples`, in their order, decoded in threads on first use and cached in `folder`.

    The file is named by the hash of the images' contents and of what in `spec` decides the pixels, so it is
    shared by all stages that want the same, and is never stale.

    Returns:
        (N, size, size, 3) uint8, memory-mapped, read-only.

    Raises:
        ImageError: an image cannot be read any more.
        DataError: an image was altered since it was indexed.
        StorageError: `folder` cannot be written, or the disk is full.
    """
    shape = (len(samples), spec.size, spec.size, 3)
    path = folder / f"pixels-{_key(samples, spec)[:24]}.npy"
    if not samples:
        return np.zeros(shape, dtype=np.uint8)
    if (pixels := _reopen(path, shape)) is not None:
        return pixels
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        # Written piece by piece and not through a map: on a full disk a map ends the process without a word.
        for decoded in in_threads(
            lambda sample: _decode(sample, spec),
            samples,
            description=f"Decoding {spec.kind.plural}",
            progress=progress,
        ):
            for image in decoded:
                file.write(image.data)
    pixels = _reopen(path, shape)
    assert pixels is not None
    return pixels


def _decode(sample: Sample, spec: PreprocessSpec) -> NDArray[np.uint8]:
    try:
        content = sample.path.read_bytes()
    except OSError as error:
        raise ImageError(f"{sample.path}: cannot be read any more ({error.strerror}).") from error
    if sha256_bytes(content) != sample.sha256:
        raise DataError(f"{sample.path} was altered since it was indexed; run the data stage again.")
    return load_pixels(content, spec, name=str(sample.path))


def _key(samples: Sequence[Sample], spec: PreprocessSpec) -> str:
    geometry = [spec.size, spec.resize, spec.resized_side, spec.interpolation]
    if spec.decoded_side != spec.resized_side:
        geometry.append(spec.decoded_side)
    fill = spec.mean if spec.resize is Resize.PAD else None
    numbers = [spec.window, spec.guess_floats, *([] if spec.sound is None else [to_json(spec.sound)])]
    return sha256_json(
        [_FORMAT, PIL.__version__, geometry, fill, numbers, [sample.sha256 for sample in samples]]
    )


def _reopen(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None
