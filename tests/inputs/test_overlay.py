from __future__ import annotations

import numpy as np
from PIL import Image

from edgetl.inputs.overlay import colours, overlaid


def test_where_a_map_is_weak_the_picture_stays_and_where_it_is_strong_it_can_still_be_seen() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    strength = np.zeros((20, 30), np.float32)
    strength[:, 15:] = 1.0
    strength[0, 0] = np.nan
    found = np.asarray(overlaid(Image.fromarray(pixels), strength))
    np.testing.assert_array_equal(found[:, :15], pixels[:, :15])
    under = pixels[:, 15:].astype(float).reshape(-1)
    assert np.corrcoef(under, found[:, 15:].astype(float).reshape(-1))[0, 1] > 0.5
    assert not np.allclose(found[:, 15:], pixels[:, 15:], atol=20)


def test_colours_rise_in_lightness() -> None:
    light = (colours() / 255.0) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(light) > 0).all()
    assert light[0] < 0.05
    assert light[-1] > 0.6
