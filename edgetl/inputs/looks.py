"""How a picture looks to a network, in a few numbers: by them a device notices that the world has changed.

They are taken of the preprocessed pixels, so that files, videos, cameras and arrays are measured alike, and of some
rows and columns only: means over thousands of pixels, in some 50 microseconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOOKS = ("brightness", "highlights", "contrast", "sharpness", "saturation", "warmth", "tint")
"""The numbers' names, in order."""
THUMBNAIL = 16
"""Side of a thumbnail in pixels."""

_LINES = 32
"""About as many rows and columns are looked at."""
_BRIGHTEST = 0.02
_FAR = 4
"""Pixels between those whose difference says how much there is to see, whatever its sharpness."""


def looks(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A picture's looks.

    Args:
        pixels: (S, S, 3) uint8 RGB.

    Returns:
        (7,) float32, as `LOOKS` names them. `brightness`: mean luma (ITU-R BT.601), 0..255. `highlights`: the level of
        green, 0..255, that 2% of the pixels reach, which differs less between scenes. `contrast`: standard deviation
        of green, which is most of luma. `sharpness`: the mean difference of neighbours over that of pixels
        four apart, which light and contrast do not change, and blur lowers and noise raises. `saturation`: how far the
        least of the three colours is below the largest, as a share of it. `warmth`: red less blue, `tint`: green less
        the mean of both, as shares of the brightness.
    """
    step = max(1, len(pixels) // _LINES)
    lines = pixels[::step]
    red, green, blue = (np.ascontiguousarray(lines[..., at]) for at in range(3))
    means = [_mean(plane) for plane in (red, green, blue)]
    largest = _mean(np.maximum(np.maximum(red, green), blue))
    least = _mean(np.minimum(np.minimum(red, green), blue))
    around = green.astype(np.float32)
    around -= np.float32(means[1])
    near = far = 0.0
    for plane in (green, np.ascontiguousarray(pixels[:, ::step, 1].T)):
        wide = plane.astype(np.int16)
        near += _difference(wide, 1)
        far += _difference(wide, _FAR)
    brightness = 0.299 * means[0] + 0.587 * means[1] + 0.114 * means[2]
    found = (
        brightness,
        _level(green.reshape(-1), _BRIGHTEST),
        float(np.sqrt(np.vdot(around, around) / around.size)),
        near / (far + 1.0),
        (largest - least) / (largest + 1.0),
        (means[0] - means[2]) / (brightness + 1.0),
        (means[1] - (means[0] + means[2]) / 2) / (brightness + 1.0),
    )
    return np.array(found, dtype=np.float32)


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A small grey picture, (16, 16) uint8: means of green over the squares of a grid; of a smaller picture its pixels
    repeated.

    Args:
        pixels: (S, S, 3) uint8 RGB.
    """
    side = len(pixels)
    if side < THUMBNAIL:
        places = np.arange(THUMBNAIL) * side // THUMBNAIL
        return np.ascontiguousarray(pixels[places][:, places, 1])
    step = side // THUMBNAIL
    edge = (side - step * THUMBNAIL) // 2
    inner = pixels[edge : edge + step * THUMBNAIL, edge : edge + step * THUMBNAIL, 1]
    rows = inner.reshape(THUMBNAIL, step, -1).sum(axis=1, dtype=np.uint32)
    return np.asarray(rows.reshape(THUMBNAIL, THUMBNAIL, step).sum(axis=2) // step**2, dtype=np.uint8)


def _mean(values: NDArray[np.uint8]) -> float:
    return float(np.add.reduce(values, axis=None, dtype=np.uint32)) / values.size


def _level(values: NDArray[np.uint8], share: float) -> float:
    """The largest level that at least this share of the values reach."""
    reached = np.cumsum(np.bincount(values, minlength=256)[::-1])
    return 255.0 - float(np.searchsorted(reached, share * values.size))


def _difference(lines: NDArray[np.int16], apart: int) -> float:
    """The mean difference of pixels so far apart on lines (N, S); 0 where lines are shorter."""
    if lines.shape[1] <= apart:
        return 0.0
    found = lines[:, apart:] - lines[:, :-apart]
    np.abs(found, out=found)
    return float(np.add.reduce(found, axis=None, dtype=np.int32)) / found.size
