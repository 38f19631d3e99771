"""Blocks that were taken out of a network: what stands in their place hands its input on."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class Removed(nn.Identity):
    """In the place of a residual block: what its own shortcut carried. All other layers keep their names."""


def remove_(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Take blocks out of a network, in place.

    Args:
        model: the network.
        names: the blocks' modules.

    Raises:
        AttributeError: it has no such module.
    """
    for name in names:
        model.get_submodule(name)
        model.set_submodule(name, Removed())
    return model


def removed(model: nn.Module) -> tuple[str, ...]:
    """Names of the blocks that were taken out, in the network's order."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, Removed))
