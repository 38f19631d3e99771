"""Pictures that show nothing known, made of validation images: by them scores of unknown images are compared.

After the made-up sets by which Hendrycks, Mazeika and Dietterich choose settings where no unknown images are at hand
("Deep anomaly detection with outlier exposure", ICLR 2019): noise, averages of two images, mosaics and inverted
colours.

Legend: N pictures of side S.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.train.seeds import numpy_generator

KINDS = ("noise", "colours", "blend", "mosaic", "inverted")
_PATCHES = 4
_COARSE = 5


def far(pixels: NDArray[np.uint8], classes: NDArray[np.int32], seed: int) -> dict[str, NDArray[np.uint8]]:
    """Pictures of each kind.

    Args:
        pixels: (N, S, S, 3), validation images.
        classes: (N,), of each; only images of two classes are averaged.
        seed: equal seeds give equal pictures.

    Returns:
        Each kind's (N, S, S, 3); picture i of a kind is made of image i, if of any.
    """
    generator = numpy_generator(seed, "far")
    count, side = pixels.shape[:2]
    noise = generator.integers(0, 256, pixels.shape, dtype=np.uint8)
    coarse = generator.integers(0, 256, (count, _COARSE, _COARSE, 3), dtype=np.uint8)
    smooth = [
        np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in coarse
    ]
    others = [_other(classes, at, generator) for at in range(count)]
    blend = (pixels.astype(np.uint16) + pixels[others]) // 2
    return {
        "noise": noise,
        "colours": np.stack(smooth),
        "blend": blend.astype(np.uint8),
        "mosaic": np.stack([_mosaic(one, generator) for one in pixels]),
        "inverted": 255 - pixels,
    }


def _other(classes: NDArray[np.int32], at: int, generator: np.random.Generator) -> int:
    """An image of another class, or any other one where there is none."""
    choices = np.flatnonzero(classes != classes[at])
    return int(generator.choice(choices)) if len(choices) else (at + 1) % len(classes)


def _mosaic(pixels: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Its patches in another order; what is left over at the right and below stays."""
    width = pixels.shape[0] // _PATCHES
    found = pixels.copy()
    places = [(row, column) for row in range(_PATCHES) for column in range(_PATCHES)]
    for (row, column), source in zip(places, generator.permutation(len(places)), strict=True):
        top, left = (width * at for at in places[source])
        found[row * width : (row + 1) * width, column * width : (column + 1) * width] = pixels[
            top : top + width, left : left + width
        ]
    return found
