"""How a picture looks to a network, in a few numbers: by them a device notices that the world has changed.

They are taken of the preprocessed pixels, so that files, videos, cameras and arrays are measured alike, and of some
rows and columns only: means over thousands of pixels. Several pictures can be measured at once, which takes less time
for each: at 96 px one takes some 45 microseconds alone and 35 among eight, and thrice as long where the processor's
caches hold something else, as after an image was decoded.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOOKS = ("brightness", "highlights", "contrast", "sharpness", "saturation", "warmth", "tint")
"""The numbers' names, in order."""
PIXELS = "pixels/looks"
"""Under which outputs carry their images' looks, (N, 7) float32, where a score asks for them."""
THUMBNAIL = 16
"""Side of a thumbnail in pixels."""

_LINES = 32
"""About as many rows and columns are looked at."""
_BRIGHTEST = 0.02
_ENOUGH = 8
"""About as many rows and columns of a thumbnail's square are looked at, at least."""
_FAR = 4
"""Pixels between those whose difference says how much there is to see, whatever its sharpness."""


class Sample(NamedTuple):
    """The part of a picture that is looked at: rows (R, S, 3) uint8, and columns (S, R) uint8 of its green."""

    rows: NDArray[np.uint8]
    columns: NDArray[np.uint8]


def sampled(pixels: NDArray[np.uint8]) -> Sample:
    """Copy what is looked at of a picture's pixels (S, S, 3) uint8 RGB."""
    step = max(1, len(pixels) // _LINES)
    return Sample(pixels[::step].copy(), pixels[:, ::step, 1].copy())


def looks(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A picture's looks, (7,) float32 as those of `measured`, from its pixels (S, S, 3) uint8 RGB."""
    return np.asarray(measured([sampled(pixels)])[0])


def measured(samples: Sequence[Sample]) -> NDArray[np.float32]:
    """The looks of some pictures.

    Args:
        samples: of N pictures of one size.

    Returns:
        (N, 7) float32, as `LOOKS` names them. `brightness`: mean luma (ITU-R BT.601), 0..255. `highlights`: the level
        of green, 0..255, that 2% of the pixels reach, which differs less between scenes. `contrast`: standard deviation
        of green, which is most of luma. `sharpness`: the mean difference of neighbours over that of pixels
        four apart, which light and contrast do not change, and blur lowers and noise raises. `saturation`: how far the
        least of the three colours is below the largest, as a share of it. `warmth`: red less blue, `tint`: green less
        the mean of both, as shares of the brightness.
    """
    rows = np.stack([one.rows for one in samples]) if len(samples) > 1 else samples[0].rows[None]
    columns = np.stack([one.columns for one in samples]) if len(samples) > 1 else samples[0].columns[None]
    images, lines, side, _ = rows.shape
    size = lines * side
    # Red, green, blue, the largest of them and the least.
    planes = np.empty((5, images, size), dtype=np.uint8)
    planes[:3] = rows.reshape(images, size, 3).transpose(2, 0, 1)
    np.maximum.reduce(planes[:3], axis=0, out=planes[3])
    np.minimum.reduce(planes[:3], axis=0, out=planes[4])
    sums = np.add.reduce(planes, axis=2, dtype=np.uint32).T.tolist()
    reached = size - math.ceil(_BRIGHTEST * size)
    highlights = np.partition(planes[1], reached, axis=1)[:, reached].tolist()
    green = np.empty((images, lines + columns.shape[2], side), dtype=np.float32)
    green[:, :lines] = planes[1].reshape(images, lines, side)
    green[:, lines:] = columns.transpose(0, 2, 1)
    # Less their mean, so that squares of a bright picture with little contrast keep their digits.
    green[:, :lines] -= np.array([one[1] / size for one in sums], dtype=np.float32)[:, None, None]
    squares = _squares_of(green[:, :lines].reshape(images, size))
    near, far = _difference(green, 1), _difference(green, _FAR)
    # In Python's own numbers: of few images, each operation of numpy would cost more than all of these.
    return np.array(
        [
            _figures([one / size for one in sums[at]], highlights[at], squares[at] / size, near[at], far[at])
            for at in range(images)
        ],
        dtype=np.float32,
    )


def _figures(
    means: Sequence[float], highlights: float, square: float, near: float, far: float
) -> tuple[float, ...]:
    """An image's looks, as `LOOKS` names them.

    Args:
        means: of red, green, blue, the largest of them and the least.
        highlights: the level that the brightest reach.
        square: the mean of green's squares, less its mean.
        near, far: mean differences of neighbours, and of pixels further apart.
    """
    red, green, blue, largest, least = means
    brightness = 0.299 * red + 0.587 * green + 0.114 * blue
    return (
        brightness,
        highlights,
        math.sqrt(square),
        near / (far + 1.0),
        (largest - least) / (largest + 1.0),
        (red - blue) / (brightness + 1.0),
        (green - (red + blue) / 2) / (brightness + 1.0),
    )


def _squares_of(values: NDArray[np.float32]) -> list[float]:
    """Each row's sum of squares."""
    found: list[float] = (values[:, None, :] @ values[:, :, None])[:, 0, 0].tolist()
    return found


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A small grey picture, (16, 16) float32: means of green over the squares of a grid, of a large picture over some
    of their pixels; of a smaller one than that its pixels repeated.

    Args:
        pixels: (S, S, 3) uint8 RGB.
    """
    apart = max(1, len(pixels) // (THUMBNAIL * _ENOUGH))
    green = pixels[::apart, ::apart, 1].astype(np.float32)
    squares = _squares(len(green))
    return np.asarray(squares @ green @ squares.T)


@functools.lru_cache(maxsize=8)
def _squares(side: int) -> NDArray[np.float32]:
    """By which a side's pixels become a thumbnail's, (16, side) float32."""
    step = max(1, side // THUMBNAIL)
    edge = max(0, (side - step * THUMBNAIL) // 2)
    places = np.arange(THUMBNAIL) * min(side, step * THUMBNAIL) // THUMBNAIL + edge
    shares = np.zeros((THUMBNAIL, side), dtype=np.float32)
    for row, place in zip(shares, places, strict=True):
        row[place : place + step] = 1 / step
    shares.setflags(write=False)
    return shares


def _difference(lines: NDArray[np.float32], apart: int) -> list[float]:
    """Twice the mean difference of pixels so far apart on lines (N, L, S), half of them rows; 0 where lines are
    shorter."""
    images, count, side = lines.shape
    if side <= apart:
        return [0.0] * images
    found = lines[..., apart:] - lines[..., :-apart]
    np.abs(found, out=found)
    sums: list[float] = np.add.reduce(found.reshape(images, -1), axis=1).tolist()
    return [2.0 * one / ((side - apart) * count) for one in sums]
