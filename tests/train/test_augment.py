from __future__ import annotations

import numpy as np
import pytest
import torch

from edgetl.config import Augment
from edgetl.inputs.image import PreprocessSpec, normalise
from edgetl.train.augment import normalise_, placed_view, training_view
from edgetl.train.policies import randaugment, trivial_augment

RANDOM = [a for a in Augment if a is not Augment.NONE]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient(n: int = 4, side: int = 36) -> torch.Tensor:
    """Pixels whose red grows to the right and whose green grows downwards."""
    pixels = np.zeros((n, side, side, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 250, side)[None, None, :]
    pixels[..., 1] = np.linspace(0, 250, side)[None, :, None]
    return torch.from_numpy(pixels)


@pytest.mark.parametrize("policy", list(Augment))
def test_a_view_is_a_function_of_its_generator(policy: Augment) -> None:
    torch.manual_seed(1)
    first = training_view(gradient(), policy, 32, generator=generator(3))
    torch.manual_seed(2)
    assert torch.equal(first, training_view(gradient(), policy, 32, generator=generator(3)))
    assert (first.shape, first.dtype) == ((4, 3, 32, 32), torch.float32)
    assert first.min() >= 0
    assert first.max() <= 255


@pytest.mark.parametrize("policy", RANDOM)
def test_images_of_a_batch_are_treated_differently(policy: Augment) -> None:
    views = training_view(gradient(8), policy, 32, generator=generator())
    assert len({v.numpy().tobytes() for v in views}) == 8


def test_no_augmentation_without_margin_is_evaluations_very_view() -> None:
    spec = PreprocessSpec(size=36)
    view = training_view(gradient(), Augment.NONE, 36, generator=generator())
    assert np.allclose(
        normalise_(view, spec.mean, spec.std).numpy(), normalise(gradient().numpy(), spec), atol=1e-6
    )


def test_no_augmentation_with_a_margin_sees_the_centre() -> None:
    view = training_view(gradient(), Augment.NONE, 18, generator=generator(), view_fraction=0.5)
    red = view[0, 0, 0]
    assert red[0].item() == pytest.approx(250 * 0.25, abs=6)
    assert red[-1].item() == pytest.approx(250 * 0.75, abs=6)


def mirrored(views: torch.Tensor) -> list[bool]:
    return [bool(v[0, :, 0].mean() > v[0, :, -1].mean()) for v in views]


def flipped(views: torch.Tensor) -> list[bool]:
    return [bool(v[1, 0].mean() > v[1, -1].mean()) for v in views]


def test_crop_never_mirrors_basic_mirrors_half_and_photometric_flips_too() -> None:
    pixels = gradient(64)
    crop = training_view(pixels, Augment.CROP, 32, generator=generator())
    assert not any(mirrored(crop) + flipped(crop))
    basic = training_view(pixels, Augment.BASIC, 32, generator=generator())
    assert 20 < sum(mirrored(basic)) < 44
    assert not any(flipped(basic))
    photometric = training_view(pixels, Augment.PHOTOMETRIC, 32, generator=generator())
    assert 20 < sum(mirrored(photometric)) < 44
    assert 20 < sum(flipped(photometric)) < 44


def test_crops_keep_between_six_tenths_and_all_of_the_area() -> None:
    views = training_view(gradient(256), Augment.CROP, 32, generator=generator())
    width = (views[:, 0, :, -1] - views[:, 0, :, 0]).mean(1) / 250 * 36 / 35 * 32 / 31
    height = (views[:, 1, -1] - views[:, 1, 0]).mean(1) / 250 * 36 / 35 * 32 / 31
    area = width * height
    assert 0.5 < area.min() < 0.7
    assert 0.9 < area.max() < 1.1
    assert (width / height).min() < 0.85
    assert (width / height).max() > 1.15


def test_photometric_changes_brightness_but_not_wildly() -> None:
    pixels = torch.full((64, 36, 36, 3), 128, dtype=torch.uint8)
    means = training_view(pixels, Augment.PHOTOMETRIC, 32, generator=generator()).mean((1, 2, 3))
    assert 70 < means.min() < 120
    assert 136 < means.max() < 190


@pytest.mark.parametrize("policy", [trivial_augment, randaugment])
def test_policies_keep_shape_and_type_and_use_every_operation(policy: object) -> None:
    images = torch.randint(0, 256, (120, 3, 12, 12), generator=generator(), dtype=torch.uint8)
    result = policy(images, generator(1))  # type: ignore[operator]
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)
    unchanged = sum(bool(torch.equal(a, b)) for a, b in zip(images, result, strict=True))
    assert unchanged < 60


@pytest.mark.parametrize("policy", [policy for policy in Augment if policy is not Augment.NONE])
def test_views_for_boxes_show_less_than_the_picture_or_more_and_nothing_twice(policy: Augment) -> None:
    pixels = torch.full((200, 32, 32, 3), 255, dtype=torch.uint8)
    views, theta = placed_view(pixels, policy, 32, generator=generator())
    sides = torch.linalg.svdvals(theta[:, :, :2]).prod(dim=1).sqrt()  # of the view, in sides of the picture
    assert 0.3 < (sides > 1).float().mean() < 0.7
    assert sides.min() < 0.95
    assert sides.max() > 1.05
    if policy in (Augment.CROP, Augment.BASIC):
        # a white picture is seen whole in a larger view, and never a second time beyond its edge
        seen = (views.mean(dim=1) > 200).float().mean(dim=(1, 2))
        inside = sides > 1.2
        assert torch.allclose(seen[inside], (1 / sides[inside] ** 2), atol=0.08)


def test_a_sound_is_moved_masked_and_noisy_and_its_channels_stay_alike() -> None:
    pixels = torch.zeros(64, 48, 48, 3, dtype=torch.uint8)
    pixels[:, 20:28, 20:28] = 200
    views = training_view(pixels, Augment.SOUND, 48, generator=generator())
    assert views.shape == (64, 3, 48, 48)
    assert torch.equal(views[:, 0], views[:, 1])
    assert torch.equal(views[:, 0], views[:, 2])
    assert 0.0 <= views.min() <= views.max() <= 255.0
    middle = views[:, 0, 24]
    places = (middle * torch.arange(48.0)).sum(1) / middle.sum(1).clamp(min=1e-6)
    assert places[middle.max(1).values > 150].std() > 1.0
    noisy = (views[:, 0, :8, :8] > 0).float().mean((1, 2)) > 0.5
    assert 10 < noisy.sum() < 54
    silent_columns = (views[:, 0] == 0).all(1).any(1)
    assert silent_columns[noisy].float().mean() > 0.8
