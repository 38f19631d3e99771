"""Strong views, of which two of one image are to be recognised as alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgetl.train.augment import random_crops

_AREA = (0.2, 1.0)
_STRENGTH = 0.4
"""Largest change of brightness, contrast and saturation."""
_HUE = 0.1
"""Largest turn of the hue, in turns."""
_JITTERED, _GREY = 0.8, 0.2
_LUMA = (0.299, 0.587, 0.114)


def strong_view(pixels: Tensor, size: int, *, mirror: bool, generator: torch.Generator) -> Tensor:
    """A random crop of each image with other colours.

    The distortions are those of Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations"
    (ICML 2020), appendix A, at half their strength and without the blur, as there for small images.

    Args:
        pixels: (N, S, S, 3) uint8.
        size: side of the view.
        mirror: half of them mirrored, for pictures whose mirror image means the same.
        generator: on the CPU.

    Returns:
        (N, 3, size, size) float32 in 0..255, on the pixels' device.
    """
    seen = random_crops(pixels, size, area=_AREA, mirror=mirror, generator=generator)
    return _other_colours(seen.div_(255.0), generator).mul_(255.0)


def _other_colours(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation, hue, or none of them; then some in grey. Values in 0..1."""
    n, device = len(images), images.device

    def drawn(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    brightness, contrast, saturation = (drawn(1 - _STRENGTH, 1 + _STRENGTH) for _ in range(3))
    angle = drawn(-_HUE, _HUE) * 2 * math.pi
    plain = torch.rand(n, generator=generator) >= _JITTERED
    grey = torch.rand(n, generator=generator) < _GREY
    brightness[plain], contrast[plain], saturation[plain], angle[plain] = 1.0, 1.0, 1.0, 0.0
    saturation[grey] = 0.0
    matrices = (_saturated(saturation) @ _turned(angle) * brightness.view(n, 1, 1)).to(device)
    changed = torch.einsum("nij,njhw->nihw", matrices, images)
    mean = changed.mean(dim=(1, 2, 3), keepdim=True)
    return (changed - mean).mul_(contrast.to(device).view(n, 1, 1, 1)).add_(mean).clamp_(0.0, 1.0)


def _saturated(share: Tensor) -> Tensor:
    """(N, 3, 3): so much of the colours, the rest of the grey value."""
    grey = torch.tensor(_LUMA).expand(3, 3)
    share = share.view(-1, 1, 1)
    return share * torch.eye(3) + (1 - share) * grey


def _turned(angle: Tensor) -> Tensor:
    """(N, 3, 3): a turn about the axis of greys, in radians (Rodrigues' formula)."""
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return cos * torch.eye(3) + (1 - cos) / 3 * torch.ones(3, 3) + sin * cross
