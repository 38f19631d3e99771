"""How large a network is: multiply-accumulates, parameters, bytes."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgetl.errors import ModelError
from edgetl.models.backbones import reason
from edgetl.records.train import NetworkSize

OWN_SIZE = "Set preprocess.size to one of these"
"""What to do about a teacher that does not take images of its size."""
OTHER_SIZE = "Leave distill.size unset, or name a convolutional network in distill.student"
"""The same of a student."""
_SIZES = (64, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384)
"""Sides that are tried to say which a network takes."""


def network_size(model: nn.Module, input_size: int) -> NetworkSize:
    """Measure a network at (1, 3, input_size, input_size).

    Multiply-accumulates are those of convolutions and matrix products (half of torch's flop count). Bytes are
    those of the state dict's tensors in float32; a checkpoint adds a header of some kilobytes. A copy computes one
    black image, which is faster than a pass on the `meta` device, whose operators are written in Python.
    """
    # The fused attention of evaluation mode is one opaque operator that the counter does not know.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        shadow = copy.deepcopy(model).eval()
        like = next(shadow.parameters())
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            shadow(like.new_zeros(1, 3, input_size, input_size))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    state = model.state_dict().values()
    return NetworkSize(
        macs=counter.get_total_flops() // 2,
        parameters=sum(p.numel() for p in model.parameters()),
        size_bytes=sum(t.numel() * (4 if t.is_floating_point() else t.element_size()) for t in state),
    )


def check_takes(network: nn.Module, size: int, name: str, remedy: str) -> None:
    """See whether a network runs on images of `size`.

    Raises:
        ModelError: it does not, as transformers that are built for one size; says which sizes it takes, and `remedy`.
    """
    if (why := _refusal(network, size)) is None:
        return
    taken = [str(side) for side in _SIZES if _refusal(network, side) is None]
    which = f"Of the usual sizes it takes {', '.join(taken)}" if taken else "It takes none of the usual sizes"
    raise ModelError(
        f"{name} does not take images of {size} pixels per side ({why}). {which}. {remedy}, or take another backbone."
    )


def _refusal(network: nn.Module, size: int) -> str | None:
    try:
        network_size(network, size)
    except Exception as error:
        return reason(error)
    return None
