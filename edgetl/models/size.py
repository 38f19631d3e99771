"""How large a network is: multiply-accumulates, parameters, bytes."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgetl.records.train import NetworkSize


def network_size(model: nn.Module, input_size: int) -> NetworkSize:
    """Measure a network at (1, 3, input_size, input_size).

    Multiply-accumulates are those of convolutions and matrix products (half of torch's flop count). Bytes are
    those of the state dict's tensors in float32; a checkpoint adds a header of some kilobytes. Nothing is
    computed: the pass runs on a copy on the `meta` device.
    """
    # The fused attention of evaluation mode is one opaque operator that the counter does not know.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        shadow = copy.deepcopy(model).to("meta").eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            shadow(torch.empty(1, 3, input_size, input_size, device="meta"))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    state = model.state_dict().values()
    return NetworkSize(
        macs=counter.get_total_flops() // 2,
        parameters=sum(p.numel() for p in model.parameters()),
        size_bytes=sum(t.numel() * (4 if t.is_floating_point() else t.element_size()) for t in state),
    )
