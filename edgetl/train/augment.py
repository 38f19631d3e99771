"""Training views of uint8 pixels: geometry in one resampling per batch, colours on whole batches.

Random numbers come from a generator on the CPU that the caller seeds per batch, so a view depends on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from edgetl.config import Augment
from edgetl.inputs.spec import SoundSpec
from edgetl.train.policies import randaugment, trivial_augment

_AREA = (0.6, 1.0)
_NEARLY_WHOLE = (0.9, 1.0)
"""Share of the picture that is seen where a mark at its edge may decide the class."""
_LOG_RATIO = math.log(4 / 3)
_ZOOM, _NEARLY_SAME = (0.65, 1.4), (0.9, 1.15)
"""Width and height of a view in those of the picture, where boxes are asked for: objects look as often smaller as
larger than in evaluation, since smaller ones are the harder to find. The second where a mark may not be cut off."""
_LOG_STRETCH = math.log(1.15)
_BEYOND = (124.0, 116.0, 104.0)
"""What a view shows beyond the picture: the mean colour of photographs, as where pictures are padded."""
_ROTATION = math.radians(10.0)


_SILENCE = (0.0, 0.0, 0.0)
_LOG_SPEED, _LOG_VOICE, _MOVE = 0.15, 0.06, 0.15
"""Of views of sounds: the largest change of the speed and of the scale of the bands, as logarithms, and of the place,
in shares of the window."""
_NOISE_DB, _TILT_DB = (-60.0, -15.0), 12.0
"""Level of noise against white, and how far it rises or falls from the lowest band to the highest, at most."""
_DECIBELS = SoundSpec.range_db
"""From black to white, as pictures of sounds usually are; where they are not, noise is louder or softer."""
_STRIPES, _STRIPE = 2, 0.15
"""Stripes of time and as many of bands that are masked, and the largest share of the side that one takes."""


@dataclass(frozen=True)
class BatchPart:
    """Images that are the ones from `start` on of a batch of `total`."""

    start: int
    total: int


def training_view(
    pixels: Tensor,
    policy: Augment,
    size: int,
    *,
    generator: torch.Generator,
    view_fraction: float = 1.0,
    part: BatchPart | None = None,
) -> Tensor:
    """Make one augmented view of each image.

    Args:
        pixels: (N, S, S, 3) uint8.
        policy: what is done.
        size: side of the view.
        generator: on the CPU.
        view_fraction: for `none`, the share of S that is seen, about the centre.
        part: where the images are a part of a larger batch; they get the views that they have in it.

    Returns:
        (N, 3, size, size) float32 in 0..255, on the pixels' device, channels last in memory.
    """
    part = part or BatchPart(0, len(pixels))
    theta = _geometry(policy, part.total, view_fraction, generator, _random_crop)
    beyond = _SILENCE if policy is Augment.SOUND else None
    return _view(pixels, policy, size, theta, generator, part, beyond=beyond)[0]


def placed_view(
    pixels: Tensor,
    policy: Augment,
    size: int,
    *,
    generator: torch.Generator,
    view_fraction: float = 1.0,
    part: BatchPart | None = None,
) -> tuple[Tensor, Tensor]:
    """As `training_view`, and where each view lies in its picture; it may reach beyond it.

    Returns:
        The views, and (N, 2, 3) float32 on the CPU: affine maps from the view's coordinates to the picture's, both in
        -1..1 with -1 and 1 at the outer edges.
    """
    part = part or BatchPart(0, len(pixels))
    theta = _geometry(policy, part.total, view_fraction, generator, _random_zoom)
    return _view(pixels, policy, size, theta, generator, part, beyond=_BEYOND)


def random_crops(
    pixels: Tensor, size: int, *, area: tuple[float, float], mirror: bool, generator: torch.Generator
) -> Tensor:
    """A random resized crop of each image, without changes of colour.

    Args:
        pixels: (N, S, S, 3) uint8.
        size: side of the crops.
        area: least and largest share of the picture that is seen.
        mirror: half of them mirrored.
        generator: on the CPU.

    Returns:
        (N, 3, size, size) float32 in 0..255, on the pixels' device.
    """
    theta = _random_crop(len(pixels), generator, area=area, mirror=mirror)
    return _resample(pixels.permute(0, 3, 1, 2), size, theta, None)


def _view(
    pixels: Tensor,
    policy: Augment,
    size: int,
    theta: Tensor,
    generator: torch.Generator,
    part: BatchPart,
    beyond: tuple[float, float, float] | None,
) -> tuple[Tensor, Tensor]:
    """The views at `theta`, which is of the whole batch, and the part's own `theta`."""
    images = pixels.permute(0, 3, 1, 2)
    own, n = slice(part.start, part.start + len(images)), part.total
    if policy is Augment.NONE and images.shape[-1] == size:
        return images.float(), _affine(torch.ones(n, 2), torch.zeros(n, 2))[own]
    seen, theta = _resample(images, size, theta[own], beyond), theta[own]
    match policy:
        case Augment.NONE | Augment.CROP | Augment.BASIC:
            return seen, theta
        case Augment.PHOTOMETRIC:
            return _photometric(seen, generator, n, own), theta
        case Augment.TRIVIAL:
            return trivial_augment(_to_uint8(seen), generator, first=part.start).float(), theta
        case Augment.RANDAUGMENT:
            return randaugment(_to_uint8(seen), generator, first=part.start).float(), theta
        case Augment.SOUND:
            return _masked(_noisy(seen, generator, n, own), generator, n, own), theta
        case _:
            assert_never(policy)


def _geometry(
    policy: Augment, n: int, view_fraction: float, generator: torch.Generator, draw: Callable[..., Tensor]
) -> Tensor:
    """Where views lie; those of a random policy by `draw`, `_random_crop` or `_random_zoom`."""
    match policy:
        case Augment.NONE:
            return _affine(torch.full((n, 2), view_fraction), torch.zeros(n, 2))
        case Augment.CROP:
            return draw(n, generator)
        case Augment.BASIC | Augment.TRIVIAL | Augment.RANDAUGMENT:
            return draw(n, generator, mirror=True)
        case Augment.PHOTOMETRIC:
            return draw(n, generator, mild=True, mirror=True, flip=True, rotation=_ROTATION)
        case Augment.SOUND:
            return _moved(n, generator)
        case _:
            assert_never(policy)


def normalise_(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """In place: (value / 255 - mean) / std on (N, 3, H, W) float32 in 0..255, as `edgetl.inputs.spec` normalises."""
    shift = torch.tensor(mean, device=images.device).mul_(255.0).view(1, 3, 1, 1)
    scale = torch.tensor(std, device=images.device).mul_(255.0).reciprocal_().view(1, 3, 1, 1)
    return images.sub_(shift).mul_(scale)


# --- geometry ---------------------------------------------------------------------------------------------------


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator).mul_(high - low).add_(low)


def _signs(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (n,), generator=generator).mul_(2).sub_(1).float()


def _random_crop(
    n: int,
    generator: torch.Generator,
    *,
    mild: bool = False,
    mirror: bool = False,
    flip: bool = False,
    rotation: float = 0.0,
    area: tuple[float, float] = _AREA,
) -> Tensor:
    """Affine maps (N, 2, 3) of a random resized crop (Szegedy et al. 2015), mirrored, flipped, turned."""
    share = _uniform((n,), *(_NEARLY_WHOLE if mild else area), generator)
    ratio = _uniform((n,), -_LOG_RATIO, _LOG_RATIO, generator).exp_()
    extent = torch.stack([(share * ratio).sqrt(), (share / ratio).sqrt()], dim=1).clamp_(max=1.0)
    return _turned(extent, generator, mirror=mirror, flip=flip, rotation=rotation)


def _random_zoom(
    n: int,
    generator: torch.Generator,
    *,
    mild: bool = False,
    mirror: bool = False,
    flip: bool = False,
    rotation: float = 0.0,
) -> Tensor:
    """Affine maps (N, 2, 3) of views that show a part of the picture or more than it, mirrored, flipped, turned."""
    low, high = _NEARLY_SAME if mild else _ZOOM
    side = _uniform((n,), math.log(low), math.log(high), generator).exp_()
    stretch = _uniform((n,), -_LOG_STRETCH, _LOG_STRETCH, generator).exp_()
    extent = torch.stack([side * stretch, side / stretch], dim=1)
    return _turned(extent, generator, mirror=mirror, flip=flip, rotation=rotation)


def _turned(
    extent: Tensor, generator: torch.Generator, *, mirror: bool, flip: bool, rotation: float
) -> Tensor:
    """Views of these sizes (N, 2), each somewhere in its picture, or its picture somewhere in it."""
    n = len(extent)
    centre = _uniform((n, 2), -1.0, 1.0, generator) * (1.0 - extent)
    angle = _uniform((n,), -rotation, rotation, generator) if rotation else torch.zeros(n)
    if mirror:
        extent[:, 0] *= _signs(n, generator)
    if flip:
        extent[:, 1] *= _signs(n, generator)
    return _affine(extent, centre, angle)


def _affine(extent: Tensor, centre: Tensor, angle: Tensor | None = None) -> Tensor:
    """(N, 2, 3) maps from the view's coordinates to the picture's, both in -1..1."""
    n = len(extent)
    cos, sin = (angle.cos(), angle.sin()) if angle is not None else (torch.ones(n), torch.zeros(n))
    rows = [cos * extent[:, 0], -sin * extent[:, 1], centre[:, 0], sin * extent[:, 0], cos * extent[:, 1]]
    return torch.stack([*rows, centre[:, 1]], dim=1).view(n, 2, 3)


def _resample(images: Tensor, size: int, theta: Tensor, beyond: tuple[float, float, float] | None) -> Tensor:
    """Views; beyond the picture lies its mirror image, or the colour `beyond`."""
    grid = F.affine_grid(theta.to(images.device), [len(images), 3, size, size], align_corners=False)
    if beyond is None:
        return F.grid_sample(
            images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )
    colour = torch.tensor(beyond, device=images.device).view(1, 3, 1, 1)
    seen = F.grid_sample(
        images.float().sub_(colour), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return seen.add_(colour)


# --- colours ----------------------------------------------------------------------------------------------------


def _photometric(images: Tensor, generator: torch.Generator, n: int, own: slice) -> Tensor:
    """Brightness, contrast, gamma and sensor noise, as exposure and lighting vary on a line.

    Drawn for the n images of the whole batch, of which these are the `own` ones.
    """
    device = images.device

    def factors(low: float, high: float) -> Tensor:
        return _uniform((n, 1, 1, 1), low, high, generator)[own].to(device)

    images = images.div_(255.0)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = images.sub_(mean).mul_(factors(0.75, 1.25)).add_(mean * factors(0.75, 1.25))
    images = images.clamp_(1e-4, 1.0).pow_(factors(-0.25, 0.25).exp_())
    noise = torch.randn((n, *images.shape[1:]), generator=generator)[own].to(device)
    return images.add_(noise.mul_(factors(0.0, 0.03))).clamp_(0.0, 1.0).mul_(255.0)


def _to_uint8(images: Tensor) -> Tensor:
    return images.round_().clamp_(0, 255).to(torch.uint8)


# --- sounds -----------------------------------------------------------------------------------------------------


def _moved(n: int, generator: torch.Generator) -> Tensor:
    """Affine maps (N, 2, 3) of views at another speed and place in time, and of bands as another voice has them.

    The lowest band stays where it is (after Jaitly, Hinton, "Vocal Tract Length Perturbation", 2013).
    """
    wide = _uniform((n,), -_LOG_SPEED, _LOG_SPEED, generator).exp_()
    high = _uniform((n,), -_LOG_VOICE, _LOG_VOICE, generator).exp_()
    along = _uniform((n,), -2.0 * _MOVE, 2.0 * _MOVE, generator)
    return _affine(torch.stack([wide, high], dim=1), torch.stack([along, 1.0 - high], dim=1))


def _noisy(images: Tensor, generator: torch.Generator, n: int, own: slice) -> Tensor:
    """Steady noise behind half of the sounds: the powers of two sounds that know nothing of each other add up.

    Drawn for the n images of the whole batch, of which these are the `own` ones.
    """
    size, device = images.shape[-1], images.device
    there = torch.rand((n, 1, 1, 1), generator=generator) < 0.5
    level = _uniform((n, 1, 1, 1), *_NOISE_DB, generator)
    tilt = _uniform((n, 1, 1, 1), -_TILT_DB, _TILT_DB, generator) * torch.linspace(0.5, -0.5, size).view(
        1, 1, -1, 1
    )
    # The power of noise in a band has the distribution of an exponential, about its mean.
    power = torch.rand((n, 1, size, size), generator=generator).clamp_(min=1e-6).log_().neg_()
    noise = power * (10.0 ** ((level + tilt) / 10.0)) * there
    steps = _DECIBELS / 255.0
    sound = 10.0 ** ((images[:, :1] - 255.0) * (steps / 10.0))
    both = (sound + noise[own].to(device)).log10_().mul_(10.0 / steps).add_(255.0).clamp_(0.0, 255.0)
    return torch.where(there[own].to(device), both, images[:, :1]).repeat(1, 3, 1, 1)


def _masked(images: Tensor, generator: torch.Generator, n: int, own: slice) -> Tensor:
    """Stripes of time and of bands made silent, in place; drawn as in `_noisy`."""
    size, device = images.shape[-1], images.device
    places = torch.arange(size, device=device)
    for along in (-1, -2):
        for _ in range(_STRIPES):
            width = torch.rand((n, 1), generator=generator).mul_(_STRIPE * size)
            start = torch.rand((n, 1), generator=generator) * (size - width)
            first, last = start[own].to(device), (start + width)[own].to(device)
            hidden = (places >= first) & (places < last)
            shape = (-1, 1, 1, size) if along == -1 else (-1, 1, size, 1)
            images.masked_fill_(hidden.view(shape), 0.0)
    return images
