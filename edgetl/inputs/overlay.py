"""A map of strengths laid over a picture in colour. Numpy and Pillow alone."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STRONGEST = 0.65
"""Share of the colour where a map is strongest: what lies under it can still be seen."""
_ROWS = 256
"""Rows at a time: a picture's floats would take twelve times its bytes."""


def overlaid(picture: Image.Image, strength: NDArray[np.float32]) -> Image.Image:
    """A copy of an RGB picture, coloured where a map is strong.

    Args:
        picture: the picture.
        strength: (H, W) of the picture's size, 0 where nothing is shown to 1.
    """
    pixels = np.array(picture)
    for start in range(0, len(pixels), _ROWS):
        rows = pixels[start : start + _ROWS]
        levels = np.clip(np.nan_to_num(strength[start : start + _ROWS]), 0.0, 1.0)
        share = (_STRONGEST * levels)[..., None]
        coloured = colours()[np.rint(levels * 255).astype(np.uint8)]
        rows[:] = np.rint(rows * (1 - share) + coloured * share)
    return Image.fromarray(pixels)


@functools.cache
def colours() -> NDArray[np.float32]:
    """(256, 3) float32 RGB 0..255, weak to strong: from dark violet over red to bright yellow.

    Lightness rises in equal steps, so that the order is seen by everyone and in print. Worked out in OKLab, whose
    distances are as seen: Ottosson, "A perceptual color space for image processing",
    https://bottosson.github.io/posts/oklab.
    """
    place = np.linspace(0.0, 1.0, 256)
    light, chroma = 0.30 + 0.62 * place, 0.12 + 0.06 * np.sin(np.pi * place)
    hue = np.radians(-60.0 + 160.0 * place)
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    cones = np.stack(
        [
            light + 0.3963377774 * a + 0.2158037573 * b,
            light - 0.1055613458 * a - 0.0638541728 * b,
            light - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(to_rgb @ cones**3, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    found: NDArray[np.float32] = (255.0 * encoded.T).astype(np.float32)
    return found
