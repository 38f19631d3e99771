"""One view for networks of different input sizes: each sees the same picture, shrunk to its own size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def at_size(images: Tensor, size: int) -> Tensor:
    """The same images at another size, by antialiased bicubic resampling; `images` itself where they have it already.

    Args:
        images: (N, 3, S, S) float.
        size: the side that is wanted.

    Returns:
        (N, 3, size, size), channels last in memory.
    """
    if images.shape[-2:] == (size, size):
        return images
    resized = F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return resized.contiguous(memory_format=torch.channels_last)


class AtSize(nn.Module):
    """A network that sees images of any size at its own: (N, 3, S, S) to the logits (N, C) of `network`."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, images: Tensor) -> Tensor:
        """`network` on `images` at its size."""
        logits: Tensor = self.network(at_size(images, self.size))
        return logits
