"""One view for networks of different input sizes: each sees the same picture, shrunk to its own size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetl.errors import ModelError
from edgetl.models.size import network_size


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


def check_takes(network: nn.Module, size: int, name: str) -> None:
    """See whether a network runs on images of `size`.

    Raises:
        ModelError: it does not, as transformers that are built for one size.
    """
    try:
        network_size(network, size)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise ModelError(
            f"{name} does not take images of {size} pixels a side ({reason}). Leave distill.size unset, or name"
            " a convolutional network in distill.student."
        ) from error


class AtSize(nn.Module):
    """A network that sees images of any size at its own: (N, 3, S, S) to the logits (N, C) of `network`."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, images: Tensor) -> Tensor:
        """`network` on `images` at its size."""
        logits: Tensor = self.network(at_size(images, self.size))
        return logits
