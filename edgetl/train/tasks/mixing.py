"""MixUp and CutMix on batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from edgetl.config import Mix


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed.

    Attributes:
        kind: MixUp, CutMix, or each by turns.
        alpha: the share of an image's partner is drawn from Beta(alpha, alpha), once a batch.
    """

    kind: Mix
    alpha: float


def mix(
    images: Tensor, shares: Tensor, mixing: Mixing, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Blend each image with another one of its batch.

    MixUp adds them by their shares (Zhang et al. 2018); CutMix pastes a rectangle of the partner, and takes its true
    area as the share (Yun et al. 2019).

    Args:
        images: (N, 3, S, S) float32, normalised; not written to.
        shares: (N, D) float32, their targets as shares (`TrainingTask.shares`).
        mixing: how.
        generator: draws the share, the partners and the rectangle.

    Returns:
        The images, and the blended shares (N, D).
    """
    share = float(generator.beta(mixing.alpha, mixing.alpha))
    partners = torch.from_numpy(generator.permutation(len(images))).to(images.device)
    turn, place = generator.random(), generator.random(2)
    match mixing.kind:
        case Mix.NONE:
            share, mixed = 0.0, images
        case Mix.MIXUP:
            mixed = torch.lerp(images, images[partners], share)
        case Mix.CUTMIX:
            mixed, share = _paste(images, partners, share, place)
        case Mix.BOTH:
            if turn < 0.5:
                mixed = torch.lerp(images, images[partners], share)
            else:
                mixed, share = _paste(images, partners, share, place)
        case _:
            assert_never(mixing.kind)
    return mixed, torch.lerp(shares, shares[partners], share)


def _paste(
    images: Tensor, partners: Tensor, share: float, place: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> tuple[Tensor, float]:
    """Paste a rectangle of about `share` of the partner's area, about a point (0..1, 0..1); returns its true share."""
    height, width = images.shape[-2:]
    half_y, half_x = height * share**0.5 / 2, width * share**0.5 / 2
    y, x = place[0] * height, place[1] * width
    top, bottom = max(0, round(y - half_y)), min(height, round(y + half_y))
    left, right = max(0, round(x - half_x)), min(width, round(x + half_x))
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images[partners][..., top:bottom, left:right]
    return mixed, (bottom - top) * (right - left) / (height * width)
