"""The splits as decoded pixels, ready for the loop."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.data.pixels import open_pixels
from edgetl.errors import TensorError
from edgetl.files import sha256_bytes
from edgetl.inputs.image import PreprocessSpec, Resize
from edgetl.progress import SILENT, Progress
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.base import TrainingTask

if TYPE_CHECKING:
    from edgetl.data.index import DataIndex, Sample

MARGIN = 1.125
"""Training pixels are so much larger a side than the input, so that random crops have room."""


BESIDE = 0.5
"""Of the images that recovery in pruning and quantization-aware training see, those of another domain, where there are
some."""
_HASHED = 64


@dataclass(frozen=True)
class PixelSet:
    """Decoded images with their targets.

    Attributes:
        pixels: (N, S, S, 3) uint8, may be memory-mapped. S is `spec.size`, or more where there is a margin.
        targets: (N, ...), as the training task makes them.
        spec: the preprocessing of evaluation.
        domains: (N,) int64, where each image comes from; all from one place where None.
        weights: (N,), how often each image is drawn in terms of the others; all once an epoch where None.

    Raises:
        TensorError: wrong shapes or dtypes.
    """

    pixels: NDArray[np.uint8]
    targets: NDArray[Any]
    spec: PreprocessSpec
    domains: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        shape, size = self.pixels.shape, self.spec.size
        if self.pixels.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise TensorError(f"pixels: got {shape} {self.pixels.dtype}, expected (N, S, S, 3) uint8.")
        if shape[1] < size:
            raise TensorError(f"pixels: got a side of {shape[1]}, expected at least the input's {size}.")
        if self.targets.shape[:1] != shape[:1]:
            raise TensorError(
                f"targets: got {self.targets.shape}, expected a row for each of {shape[0]} images."
            )

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def view_fraction(self) -> float:
        """The share of the pixels' side that evaluation sees; 1 where there is no margin."""
        if self.pixels.shape[1] == self.spec.size or self.spec.resize is not Resize.CROP:
            return 1.0
        return self.spec.crop_fraction / with_margin(self.spec).crop_fraction

    @cached_property
    def identity(self) -> str:
        """Distinguishes sets by their pixels, targets and preprocessing, domains and weights."""
        further = [sha256_bytes(own.tobytes()) for own in (self.domains, self.weights) if own is not None]
        images = f"{self.pixels.shape} {_sha256(self.pixels)}"
        return " ".join([f"{images} {sha256_bytes(self.targets.tobytes())} {self.spec}", *further])


def _sha256(pixels: NDArray[np.uint8]) -> str:
    """Of all values, some images at a time: they may be more than fit into memory."""
    found = hashlib.sha256()
    for start in range(0, len(pixels), _HASHED):
        found.update(np.ascontiguousarray(pixels[start : start + _HASHED]).data)
    return found.hexdigest()


@dataclass(frozen=True)
class FeatureSet:
    """What a frozen backbone makes of images, with their targets.

    Attributes:
        features: (V, N, ...) float32, V views of each image; may be memory-mapped.
        targets: (N, ...), as in `PixelSet`.
        identity: distinguishes sets.
        weights: as in `PixelSet`.
    """

    features: NDArray[np.float32]
    targets: NDArray[Any]
    identity: str
    weights: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """Images without labels that join every step of a fit.

    Attributes:
        pixels: (N, S, S, 3) uint8, as large a side as the labelled ones; may be memory-mapped.
        share: of a step's images, in (0, 1).
        sha256: distinguishes sets.
        guessed: targets that a network gave them, (N, ...), with which they take part in the loss with the labels.
        target_domain: they are of another domain than the labelled ones.
    """

    pixels: NDArray[np.uint8]
    share: float
    sha256: str
    guessed: NDArray[Any] | None = None
    target_domain: bool = False


def part_of(data: PixelSet | FeatureSet, rows: slice) -> PixelSet | FeatureSet:
    """Some of the images."""
    if isinstance(data, FeatureSet):
        return FeatureSet(data.features[:, rows], data.targets[rows], f"{data.identity} {rows}")
    return PixelSet(data.pixels[rows], data.targets[rows], data.spec)


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The three splits; `train` has a margin for random crops. `test` is None where the data has none."""

    train: PixelSet
    val: PixelSet
    test: PixelSet | None


def with_margin(spec: PreprocessSpec) -> PreprocessSpec:
    """The spec of training pixels: larger by `MARGIN`, seeing more of the image where the crop leaves some.

    Pictures of sounds are not cropped and need none.
    """
    if spec.sound is not None:
        return spec
    return dataclasses.replace(
        spec,
        size=round(spec.size * MARGIN),
        crop_fraction=min(1.0, spec.crop_fraction * MARGIN),
    )


def open_sets(
    index: DataIndex,
    spec: PreprocessSpec,
    folder: Path,
    progress: Progress = SILENT,
    *,
    view_size: int | None = None,
) -> Sets:
    """Open the splits' pixels, decoding them into `folder` where that is not done yet.

    Args:
        index: the images and their splits.
        spec: evaluation's preprocessing.
        folder: of decoded pixels.
        progress: where to report.
        view_size: side of training's views, where it is not `spec.size`.

    Raises:
        ImageError: an image cannot be decoded.
        StorageError: the pixels cannot be written.
    """
    task, test = training_task(index.task), index.split("test")
    seen = spec if view_size is None else dataclasses.replace(spec, size=view_size)
    return Sets(
        train=_open(task, index.split("train"), with_margin(seen), seen, folder, progress),
        val=_open(task, index.split("val"), spec, spec, folder, progress),
        test=_open(task, test, spec, spec, folder, progress) if test else None,
    )


def open_unlabelled(
    index: DataIndex,
    spec: PreprocessSpec,
    folder: Path,
    progress: Progress = SILENT,
    *,
    share: float,
    view_size: int | None = None,
) -> Unlabelled:
    """Open the pixels of images without labels as `open_sets` does those of training.

    Args:
        index: the images, from `edgetl.data.unlabelled`.
        spec: evaluation's preprocessing.
        folder: of decoded pixels.
        progress: where to report.
        share: of a step's images, in (0, 1).
        view_size: side of training's views, where it is not `spec.size`.

    Raises:
        ImageError: an image cannot be decoded.
        StorageError: the pixels cannot be written.
    """
    seen = spec if view_size is None else dataclasses.replace(spec, size=view_size)
    pixels = open_pixels(index.samples, with_margin(seen), folder, progress)
    return Unlabelled(pixels=pixels, share=share, sha256=index.sha256)


def _open(
    task: TrainingTask,
    samples: tuple[Sample, ...],
    stored: PreprocessSpec,
    spec: PreprocessSpec,
    folder: Path,
    progress: Progress,
) -> PixelSet:
    pixels = open_pixels(samples, stored, folder, progress)
    return PixelSet(pixels, task.targets(samples, stored), spec)
