"""The preprocessing spec as data, and its last step: what a device needs before its first image, without Pillow."""

from __future__ import annotations

import functools
import math
from dataclasses import field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.codec import OPTIONAL
from edgetl.records.frozen import dataclass


class InputKind(StrEnum):
    """What is looked at: pictures, or sounds, which become pictures."""

    IMAGE = "image"
    SOUND = "sound"

    @property
    def plural(self) -> str:
        """What its files are called."""
        return self.named(2)

    def named(self, count: int) -> str:
        """What so many of its files are called."""
        what = "image" if self is InputKind.IMAGE else "recording"
        return what if count == 1 else f"{what}s"


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


class Decoding(StrEnum):
    """How small a JPEG may be decoded, which is where the time of a photograph goes.

    `sharp`: both sides stay as long as the resize makes them, so that nothing is enlarged. `fast`: as long as the
    input's side, so that before a crop the resize may enlarge by up to 1 / crop_fraction. It changes pixels where a
    reduction lies between the two, and for `crop` only; other formats are decoded whole either way.
    """

    SHARP = "sharp"
    FAST = "fast"


class Level(StrEnum):
    """What is white in the picture of a sound.

    `loudest`: the loudest place of the window, so that the recording's level does not matter; `full-scale`: a sine of
    the largest amplitude that the file can hold, so that it does.
    """

    LOUDEST = "loudest"
    FULL_SCALE = "full-scale"


@dataclass(frozen=True, kw_only=True)
class SoundSpec:
    """How a sound becomes a picture: a log-mel spectrogram, `frames` wide and `mels` high (`edgetl.inputs.sound`).

    Attributes:
        rate: samples per second to which recordings are resampled.
        seconds: length of the window that is looked at. Of a longer recording its loudest part is taken, a shorter one
            stands in the middle of silence.
        mels: bands, from low at the bottom to high at the top.
        frames: spectra, evenly over the window.
        window_ms: milliseconds of sound that a spectrum is made of.
        low_hz: where the lowest band begins.
        high_hz: where the highest band ends; at most half the rate.
        range_db: decibels from black to white.
        level: what is white.
        channel: the one that is listened to, counted from 1; 0 is the mean of all.

    Raises:
        ValueError: a value is out of its range, or a band is so narrow that no frequency of a spectrum lies in it.
    """

    rate: int
    seconds: float
    high_hz: float
    mels: int = 64
    frames: int = 96
    window_ms: float = 32.0
    low_hz: float = 20.0
    range_db: float = 80.0
    level: Level = Level.LOUDEST
    channel: int = 0

    def __post_init__(self) -> None:
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise ValueError(
                f"SoundSpec.rate is {self.rate}, expected {MIN_RATE} to {MAX_RATE} samples per second"
            )
        if not 0.0 < self.seconds <= MAX_SECONDS:
            raise ValueError(
                f"SoundSpec.seconds is {self.seconds}, expected above 0 and at most {MAX_SECONDS:g}"
            )
        if not 0.0 <= self.low_hz < self.high_hz <= self.rate / 2:
            raise ValueError(
                f"SoundSpec.low_hz and high_hz are {self.low_hz:g} and {self.high_hz:g}, expected 0 <= low < high <= "
                f"{self.rate / 2:g}, half the rate"
            )
        if min(self.mels, self.frames) < 4 or max(self.mels, self.frames) > 1024:
            raise ValueError(
                f"SoundSpec.mels and frames are {self.mels} and {self.frames}, expected 4 to 1024"
            )
        if not 1.0 <= self.window_ms <= 1000.0 * self.seconds:
            raise ValueError(
                f"SoundSpec.window_ms is {self.window_ms:g}, expected at least 1 and at most the window's length"
            )
        if not 10.0 <= self.range_db <= 200.0:
            raise ValueError(f"SoundSpec.range_db is {self.range_db:g}, expected 10 to 200 decibels")
        if self.channel < 0:
            raise ValueError(f"SoundSpec.channel is {self.channel}, expected 0, or a channel counted from 1")
        first, _, third, *_ = self.edges
        if third - first <= self.rate / self.spectrum:
            raise ValueError(
                f"SoundSpec.mels is {self.mels}, so that the lowest band is {third - first:.1f} Hz wide, and a spectrum"
                f" of {self.window_ms:g} ms tells {self.rate / self.spectrum:.1f} Hz apart; take fewer bands, or a"
                " longer window_ms"
            )

    @property
    def samples(self) -> int:
        """Of a window."""
        return round(self.rate * self.seconds)

    @property
    def frame_samples(self) -> int:
        """That a spectrum is made of."""
        return max(2, round(self.rate * self.window_ms / 1000.0))

    @property
    def spectrum(self) -> int:
        """Length of the Fourier transform: the power of two from twice the samples of a frame on, the rest zeros."""
        return 1 << (2 * self.frame_samples - 1).bit_length()

    @property
    def edges(self) -> tuple[float, ...]:
        """Where bands begin, have their middle and end, in Hz: band i is from edge i to i + 2.

        Evenly on the scale of O'Shaughnessy, "Speech Communication: Human and Machine", 1987: 2595 log10(1 + f / 700).
        """
        low, high = (math.log1p(hz / 700.0) for hz in (self.low_hz, self.high_hz))
        steps = self.mels + 1
        return tuple(700.0 * math.expm1(low + (high - low) * at / steps) for at in range(steps + 1))


MIN_RATE, MAX_RATE = 1_000, 384_000
"""Samples per second; what a file says beyond these is taken for a broken header."""
MAX_SECONDS = 60.0


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
        decoding: how small a JPEG may be decoded.
        sound: how a sound becomes the picture that the rest is done to, where sounds are looked at; images where None.

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
    decoding: Decoding = field(default=Decoding.SHARP, metadata=OPTIONAL)
    sound: SoundSpec | None = field(default=None, metadata=OPTIONAL)

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
    def kind(self) -> InputKind:
        """What is looked at."""
        return InputKind.IMAGE if self.sound is None else InputKind.SOUND

    @property
    def resized_side(self) -> int:
        """Pixels that the resize gives the shorter side (`crop`), the longer (`pad`) or both (`squash`)."""
        if self.resize is Resize.CROP:
            # The tiny term keeps an exact quotient (144 / 0.9) from falling below its integer.
            return max(self.size, math.floor(self.size / self.crop_fraction + 1e-6))
        return self.size

    @property
    def decoded_side(self) -> int:
        """Pixels that both sides of a JPEG keep where it is decoded at a reduced size."""
        return self.size if self.decoding is Decoding.FAST else self.resized_side


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
