"""What pruning cuts: layers and groups of channels that go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What a convolution or linear layer costs.

    Attributes:
        inputs: its input channels.
        outputs: its output channels.
        unit_macs: multiply-accumulates for one image, one input and one output channel.
        unit_weights: weights for one input and one output channel.
        width: input channels that an output channel sees where that is not all of them (grouped convolutions);
            0 for all.
        bias: whether it has one.
    """

    inputs: int
    outputs: int
    unit_macs: int
    unit_weights: int
    width: int
    bias: bool

    def macs(self, inputs: float, outputs: float) -> float:
        """Multiply-accumulates for one image with so many input and output channels."""
        return self.unit_macs * outputs * (self.width or inputs)

    def parameters(self, inputs: float, outputs: float) -> float:
        """Weights and biases with so many input and output channels."""
        return self.unit_weights * outputs * (self.width or inputs) + (outputs if self.bias else 0)


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels that go together.

    Attributes:
        name: the layer at the root, whose output channels are counted.
        channels: how many there are.
        cell: so many consecutive channels can only go together (the width of a grouped convolution); mostly 1.
        inputs: layer -> its input channels that one channel of the group stands for (1; H * W after a flatten).
        outputs: layer -> its output channels, likewise.
        norms: parameters of norms and scales that one channel carries.
        members: torch-pruning's group, with all indices.
    """

    name: str
    channels: int
    cell: int
    inputs: dict[str, float]
    outputs: dict[str, float]
    norms: float
    members: Any
