"""Networks that train with several branches and run with one: RepVGG (Ding et al. 2021), MobileOne, FastViT, RepGhost,
RepViT. Parallel convolutions, their batch norms and a shortcut are linear, so that they add up to one convolution."""

from __future__ import annotations

import copy

import torch
from torch import nn

_TOLERANCE = 1e-4
"""Of a fused network's outputs, relative to the largest of the whole one's, which counts as 1 at least."""
_WHOLE = (
    "The network's branches could not be merged, so that it runs with all of them, slower than it might ({})."
)
_WAYS = ("fuse", "reparameterize", "switch_to_deploy")
"""What timm's modules call the method that merges their branches."""


def fused(network: nn.Module, size: int) -> nn.Module:
    """The network with its branches merged, as its authors run it, by timm's `reparameterize_model`.

    Training and pruning work with the branches, which is what they are for; what is exported or timed is fused. A
    network that has nothing to merge comes back as it is, and so does one that would give other outputs for two images,
    by more than 1e-4 of the largest.

    Args:
        network: images (N, 3, S, S) float32 -> (N, D), in evaluation mode; it stays as it is.
        size: S.

    Returns:
        A copy, or the network itself.
    """
    return merged(network, size)[0]


def merged(network: nn.Module, size: int) -> tuple[nn.Module, str]:
    """What `fused` gives, and a sentence on why it leaves the branches apart; "" where it merges them, or has none."""
    if not any(hasattr(module, way) for module in network.modules() for way in _WAYS):
        return network, ""
    from timm.models import reparameterize_model

    device = next(network.parameters()).device
    probe = torch.linspace(-2, 2, 2 * 3 * size * size, device=device).view(2, 3, size, size)
    with torch.no_grad():
        try:
            whole = reparameterize_model(_with_own_widths(copy.deepcopy(network)), inplace=True).eval()
            found = whole(probe)
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            IndexError,
            RuntimeError,
            ValueError,
        ) as error:
            # A block that was cut in a way that its own method does not allow for.
            return network, _WHOLE.format(f"{type(error).__name__}: {error}")
        wanted = network(probe)
    apart = float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
    if apart <= _TOLERANCE:
        return whole, ""
    return network, _WHOLE.format(f"its outputs would differ by {apart:.1g} of the largest")


def _with_own_widths(network: nn.Module) -> nn.Module:
    """The network, in which blocks say how many channels they have: pruning changes layers, and timm asks the block."""
    for block in network.modules():
        # Squeeze-excite is no branch.
        layers = [
            m for name, m in block.named_modules() if isinstance(m, nn.Conv2d) and name.split(".")[0] != "se"
        ]
        if layers and any(hasattr(block, way) for way in _WAYS):
            own = {
                "in_chs": layers[0].in_channels,
                "out_chs": layers[0].out_channels,
                "groups": layers[0].groups,
            }
            for name, value in own.items():
                if isinstance(getattr(block, name, None), int):
                    setattr(block, name, value)
    return network
