"""The memory format in which networks train: channels last, but for layers that torch cannot train in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_FEWEST = 16
"""From so many input channels on, the kernels in question are sound."""


def channels_last(model: nn.Module) -> nn.Module:
    """Lay out a network's weights with the channels last, in place, but for what `kept_contiguous` is about."""
    return kept_contiguous(model.to(memory_format=torch.channels_last))


def kept_contiguous(model: nn.Module) -> nn.Module:
    """Give convolutions of `needs_contiguous` contiguous weights and, from now on, a contiguous input, in place.

    Args:
        model: images (N, 3, H, W) in any memory format -> any output.

    Returns:
        `model`.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if needs_contiguous(module.in_channels // module.groups, module.kernel_size, module.stride):
            module.weight.data = contiguous(module.weight.data)
            if _contiguous_input not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_contiguous_input)
    return model


def needs_contiguous(inputs: int, kernel: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether a convolution's backward pass must not see channels last.

    torch 2.15 on CPUs with AVX-512: 1x1 convolutions with a stride and 1 to 15 input channels write outside their
    memory there, from about 32 pixels per side on (as the shortcut in the stem of RepVGG and MobileOne does).

    Args:
        inputs: input channels of a group.
        kernel: its two sides.
        stride: along both.
    """
    return inputs < _FEWEST and tuple(kernel) == (1, 1) and max(stride) > 1


def contiguous(tensor: Tensor) -> Tensor:
    """A copy (N, C, H, W) with plain strides. `Tensor.contiguous` leaves those of sides of 1 as they are, by which
    torch recognises the memory format."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _contiguous_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (contiguous(args[0]), *args[1:])
