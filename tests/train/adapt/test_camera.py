"""Another camera is found by the spectra of its pictures, and source images are taken as it takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from edgetl.train.adapt.camera import Camera, explained, measured, retake

SIDE = 40


def scenes(count: int, seed: int) -> np.ndarray:
    """Smooth random pictures with some detail, (N, S, S, 3)."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        pixels = np.zeros((SIDE, SIDE, 3))
        for squares, share in ((6, 0.6), (20, 0.4)):
            drawn = Image.fromarray(rng.integers(0, 256, (squares, squares, 3), dtype=np.uint8))
            pixels += share * np.asarray(drawn.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
        found.append((pixels + rng.normal(0, 2, pixels.shape)).clip(0, 255).astype(np.uint8))
    return np.stack(found)


def other_camera(pixels: np.ndarray, seed: int, noise: float = 8.0, blur: float = 1.0) -> np.ndarray:
    """Darker and warmer, out of focus, noisy."""
    rng, found = np.random.default_rng(seed), []
    for one in pixels:
        blurred = np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(blur)), np.float32)
        seen = blurred * np.array([0.8, 0.6, 0.5]) + rng.normal(0, noise, one.shape)
        found.append(seen.clip(0, 255).astype(np.uint8))
    return np.stack(found)


def test_gain_blur_and_noise_are_found() -> None:
    camera = measured(scenes(60, 0), other_camera(scenes(60, 1), 2))
    np.testing.assert_allclose(camera.gain, [0.8, 0.6, 0.5], rtol=0.05)
    assert (np.diff(camera.transfer, axis=1) <= 1e-6).all()
    for channel, contrast in enumerate((0.8, 0.6, 0.5)):
        assert camera.transfer[channel, 1] == pytest.approx(contrast, rel=0.15)
        assert camera.transfer[channel, 12] < 0.6 * contrast
        assert np.median(camera.noise[channel, 12:]) == pytest.approx(8.0, rel=0.1)


def test_noise_of_pictures_that_were_made_larger_is_no_longer_white() -> None:
    def larger(images: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(Image.fromarray(one).resize((2 * SIDE, 2 * SIDE))) for one in images])

    target = larger(other_camera(scenes(60, 1), 2))
    camera = measured(larger(scenes(60, 0)), target)
    assert (camera.noise[:, 12:16].mean(1) > 12).all()
    assert (camera.noise[:, 30:].max(1) < 6).all()
    taken = np.stack(
        [camera.retaken(one, np.random.default_rng(at)) for at, one in enumerate(larger(scenes(60, 0)))]
    )
    assert taken.std() == pytest.approx(target.std(), rel=0.05)


def test_the_same_camera_changes_nothing() -> None:
    images = scenes(20, 0)
    camera = measured(images, images)
    taken = camera.retaken(images[0], np.random.default_rng(0))
    assert np.abs(taken.astype(int) - images[0]).max() <= 1


def test_retaken_images_look_as_the_camera_s_own_do(tmp_path: Path) -> None:
    before, target = scenes(60, 0), other_camera(scenes(60, 1), 2)
    camera, every = measured(before, target), np.ones(60, np.bool_)
    found = retake(camera, before, every, tmp_path / "a.npy", seed=3)
    assert (found.shape, found.dtype) == (before.shape, np.uint8)
    np.testing.assert_allclose(found.mean(axis=(0, 1, 2)), target.mean(axis=(0, 1, 2)), rtol=0.03)
    true = other_camera(before, 9, noise=0.0).astype(float)
    assert np.abs(found - true).mean() < 0.35 * np.abs(before - true).mean()
    assert (retake(camera, before, every, tmp_path / "b.npy", seed=3) == found).all()
    some = retake(camera, before, np.arange(60) < 5, tmp_path / "c.npy", seed=3)
    assert (some[:5] == found[:5]).all()
    assert (some[5:] == before[5:]).all()


def test_rows_say_which_images_are_the_source_s() -> None:
    mixed = np.concatenate([scenes(30, 0), other_camera(scenes(30, 1), 2)])
    target = other_camera(scenes(30, 4), 5)
    own, all_ = measured(mixed, target, np.arange(30)), measured(mixed, target)
    assert isinstance(own, Camera)
    np.testing.assert_allclose(own.gain, [0.8, 0.6, 0.5], rtol=0.05)
    assert (all_.gain > own.gain).all()


def test_what_a_camera_explains_is_how_much_nearer_the_features_come() -> None:
    rng = np.random.default_rng(0)
    own, other = (rng.normal(0, 1, (60, 8)).astype(np.float32) for _ in range(2))
    target = other + np.float32(3)
    assert explained(own, own, target) == 0
    assert 0.3 < explained(own, own + np.float32(1.5), target) < 0.9
    assert explained(own, own + np.float32(3), target) > 0.9
    assert explained(own, own - np.float32(3), target) < 0
