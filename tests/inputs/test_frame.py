from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgetl.inputs.frame import frame_of
from edgetl.inputs.image import to_pixels
from edgetl.inputs.spec import PreprocessSpec, Resize


@pytest.mark.parametrize("resize", list(Resize))
@pytest.mark.parametrize("size", [(96, 64), (64, 160), (80, 80)])
def test_a_mark_in_the_picture_is_found_again(resize: Resize, size: tuple[int, int]) -> None:
    spec = PreprocessSpec(size=48, resize=resize, crop_fraction=0.8)
    left, top = size[0] // 2 + 3, size[1] // 2 - 9
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    picture[top : top + 8, left : left + 8] = 255
    pixels = to_pixels(Image.fromarray(picture), spec)[..., 0].astype(float)
    fill = np.median(pixels)
    weight = np.where(pixels > max(fill, 128.0), pixels, 0.0)
    rows, columns = np.indices(weight.shape)
    x, y = (float((weight * (axis + 0.5)).sum() / weight.sum()) for axis in (columns, rows))
    found = frame_of(size, spec).back(x, y)
    assert found == pytest.approx((left + 4, top + 4), abs=1.5)


def test_points_outside_are_clipped_to_the_picture() -> None:
    frame = frame_of((100, 50), PreprocessSpec(size=50, resize=Resize.PAD))
    assert frame.back(0, 0) == (0.0, 0.0)
    assert frame.back(50, 50) == (100.0, 50.0)
