"""Images at several sizes, each decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.data.index import Sample
from edgetl.data.parallel import in_threads
from edgetl.files import storage_errors
from edgetl.inputs.image import MIN_SIDE, decode, to_pixels
from edgetl.inputs.spec import PreprocessSpec
from edgetl.progress import SILENT, Progress


def open_sizes(
    samples: Sequence[Sample], specs: Sequence[PreprocessSpec], folder: Path, progress: Progress = SILENT
) -> list[NDArray[np.uint8]]:
    """Decode every image once and fit it to each spec; the pixels lie in `folder`.

    A JPEG is decoded no larger than the largest spec needs, so that its pixels for smaller ones may differ by a
    rounding from those that are decoded for them alone.

    Args:
        samples: the images.
        specs: their preprocessing, alike but for the size.
        folder: an empty one, for files that the arrays are mapped to.
        progress: shows the images.

    Returns:
        (N, size, size, 3) uint8 for each spec, read-only.

    Raises:
        ImageError: an image cannot be read any more.
        StorageError: the pixels cannot be written.
    """
    hint = max(MIN_SIDE, *(spec.decoded_side for spec in specs))
    paths = [folder / f"{at}-{spec.size}.npy" for at, spec in enumerate(specs)]

    def fitted(sample: Sample) -> list[NDArray[np.uint8]]:
        image = decode(sample.path, hint, spec=specs[0])
        return [to_pixels(image, replace(spec, sound=None)) for spec in specs]

    with storage_errors(folder), ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for file, spec in zip(files, specs, strict=True):
            shape = (len(samples), spec.size, spec.size, 3)
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
        for chunk in in_threads(fitted, samples, description="Decoding images", progress=progress):
            for image in chunk:
                for file, pixels in zip(files, image, strict=True):
                    file.write(pixels.data)
    return [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
