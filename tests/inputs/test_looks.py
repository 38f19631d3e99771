"""Each look follows what it is named for, and not the others' causes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edgetl.inputs.looks import LOOKS, THUMBNAIL, looks, thumbnail


def scene(seed: int = 0, side: int = 96) -> NDArray[np.uint8]:
    """Smooth colours with fine structure."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(30, 220, (12, 12, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    return (pixels + generator.normal(0, 12, (side, side, 1))).clip(0, 255).astype(np.uint8)


def looked(pixels: NDArray[np.uint8]) -> dict[str, float]:
    found = looks(pixels)
    assert found.shape == (len(LOOKS),)
    assert found.dtype == np.float32
    return dict(zip(LOOKS, found.tolist(), strict=True))


def test_light_moves_brightness_and_leaves_sharpness_and_colour() -> None:
    before, after = looked(scene()), looked((scene() * 0.5).astype(np.uint8))
    assert after["brightness"] == pytest.approx(before["brightness"] / 2, rel=0.02)
    assert after["highlights"] == pytest.approx(before["highlights"] / 2, abs=1.5)
    assert after["contrast"] == pytest.approx(before["contrast"] / 2, rel=0.02)
    for name in ("sharpness", "saturation", "warmth", "tint"):
        assert after[name] == pytest.approx(before[name], abs=0.05), name


def test_blur_moves_sharpness_alone() -> None:
    blurred = np.asarray(Image.fromarray(scene()).filter(ImageFilter.GaussianBlur(1.5)))
    before, after = looked(scene()), looked(blurred)
    assert after["sharpness"] < 0.7 * before["sharpness"]
    assert after["brightness"] == pytest.approx(before["brightness"], abs=1.5)
    assert after["saturation"] == pytest.approx(before["saturation"], abs=0.03)


def test_a_cast_moves_its_colour() -> None:
    before = looked(scene())
    red = looked((scene() * np.array([1.0, 0.9, 0.7])).astype(np.uint8))
    green = looked((scene() * np.array([0.8, 1.0, 0.8])).astype(np.uint8))
    assert red["warmth"] > before["warmth"] + 0.15
    assert green["tint"] > before["tint"] + 0.1
    assert abs(green["warmth"] - before["warmth"]) < 0.05


def test_a_bright_picture_with_little_contrast_keeps_its_digits() -> None:
    pixels = np.full((224, 224, 3), 250, np.uint8)
    pixels[::7, ::2] = 251
    green = pixels[::7, :, 1].astype(np.float64)
    assert looked(pixels)["contrast"] == pytest.approx(green.std(), rel=1e-4)


def test_plain_pictures_have_numbers_too() -> None:
    for level in (0, 255):
        found = looked(np.full((64, 64, 3), level, np.uint8))
        assert found["brightness"] == pytest.approx(level, abs=0.01)
        assert found["highlights"] == level
        assert [found[name] for name in LOOKS[2:]] == pytest.approx([0.0] * 5, abs=1e-3)
    assert np.isfinite(looks(np.zeros((3, 3, 3), np.uint8))).all()


@pytest.mark.parametrize("side", [7, 16, 100])
def test_thumbnails_are_small(side: int) -> None:
    found = thumbnail(scene(side=side))
    assert found.shape == (THUMBNAIL, THUMBNAIL)
    assert found.dtype == np.float32
    assert float(found.mean()) == pytest.approx(float(scene(side=side)[..., 1].mean()), abs=6)
