"""The preprocessing spec as data, and its last step: what a device needs before its first image, without Pillow."""

from __future__ import annotations

import functools
import math
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.frozen import dataclass


class Resize(StrEnum):
    """How an image of any shape fills the square input.

    `crop`: the shorter side becomes floor(size / crop_fraction), then the centre is cut out, as timm and
    torchvision evaluate. `squash`: both sides become size; shapes are distorted. `pad`: the longer side
    becomes size, the rest is filled with the mean colour, which normalises to about zero.
    """

    CROP = "crop"
    SQUASH = "squash"
    PAD = "pad"


class Interpolation(StrEnum):
    """Resampling filter; all but `nearest` are antialiased."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


@dataclass(frozen=True, kw_only=True)
class PreprocessSpec:
    """What is done to an image; it travels in the bundle's manifest.

    Attributes:
        size: side of the square input in pixels.
        resize: how the image fills the square.
        crop_fraction: for `crop`, the share of the resized shorter side that is kept, in (0, 1].
        interpolation: resampling filter.
        mean: one value per channel (R, G, B) on the 0..1 scale.
        std: one value per channel on the 0..1 scale, above 0.
        window: the numbers (low, high) that become 0 and 255 in images of more than 8 bits per channel, in the files'
            own units; what lies outside is clipped. 8-bit images are taken as they are: they are what a window makes.
            None: 16-bit integers are scaled by their whole range.
        guess_floats: where there is no window, a float image is multiplied by 255 if none of its values is above 1, as
            bundles did before there were windows; their manifests say nothing of it, so that is the default. Off, as
            every run writes since: float images need a window, and are refused without.

    Raises:
        ValueError: a value is out of its range.
    """

    size: int
    resize: Resize = Resize.CROP
    crop_fraction: float = 0.9
    interpolation: Interpolation = Interpolation.BICUBIC
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    window: tuple[float, float] | None = None
    guess_floats: bool = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"PreprocessSpec.size is {self.size}, expected at least 1")
        if not 0.0 < self.crop_fraction <= 1.0:
            raise ValueError(
                f"PreprocessSpec.crop_fraction is {self.crop_fraction}, expected above 0 and at most 1"
            )
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"PreprocessSpec.mean is {self.mean}, expected finite numbers")
        if not all(math.isfinite(value) and value > 0.0 for value in self.std):
            raise ValueError(f"PreprocessSpec.std is {self.std}, expected numbers above 0")
        if self.window is not None and not is_window(self.window):
            raise ValueError(
                f"PreprocessSpec.window is {self.window}, expected two finite numbers, low below high"
            )

    @property
    def resized_side(self) -> int:
        """Pixels that the resize gives the shorter side (`crop`), the longer (`pad`) or both (`squash`)."""
        if self.resize is Resize.CROP:
            # The tiny term keeps an exact quotient (144 / 0.9) from falling below its integer.
            return max(self.size, math.floor(self.size / self.crop_fraction + 1e-6))
        return self.size


def is_window(window: tuple[float, float]) -> bool:
    """Whether numbers can be spread over (low, high): both finite, and low below high."""
    low, high = window
    return math.isfinite(high - low) and low < high


def normalise(
    pixels: NDArray[np.uint8], spec: PreprocessSpec, *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Turn pixels into a network's input: (value / 255 - mean) / std.

    Args:
        pixels: (N, H, W, 3) uint8.
        spec: gives mean and std.
        out: (N, 3, H, W) float32 to write to; a new array where unset.

    Returns:
        (N, 3, H, W) float32, C-contiguous, or `out`.

    Raises:
        TensorError: pixels have another shape or dtype.
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
        raise TensorError(f"pixels is {pixels.shape} {pixels.dtype}, expected (N, H, W, 3) uint8.")
    scale, shift = _affine(spec.mean, spec.std)
    # Planes first, while a value is one byte: strided reads of floats would cost more than the arithmetic.
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    out = np.multiply(planes, scale, out=out, dtype=np.float32)
    out += shift
    return out


@functools.lru_cache(maxsize=16)
def _affine(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and shift, each (3, 1, 1) float32, that turn 8-bit values into normalised ones."""
    means, stds = np.array(mean, dtype=np.float64), np.array(std, dtype=np.float64)
    scale, shift = 1.0 / (255.0 * stds), -means / stds
    return scale.astype(np.float32).reshape(3, 1, 1), shift.astype(np.float32).reshape(3, 1, 1)
