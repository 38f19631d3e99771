"""A network behind another normalisation of its images than its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetl.inputs.spec import PreprocessSpec

Channels = tuple[float, float, float]


class Renormalised(nn.Module):
    """A network of these means and deviations, for images that are normalised by `given`."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: Channels, std: Channels, given: PreprocessSpec) -> None:
        super().__init__()
        self.network = network
        own_mean, own_std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
        given_mean, given_std = (torch.tensor(values).view(3, 1, 1) for values in (given.mean, given.std))
        self.register_buffer("scale", given_std / own_std)
        self.register_buffer("shift", (given_mean - own_mean) / own_std)

    def forward(self, images: Tensor) -> Tensor:
        """The network's outputs."""
        outputs: Tensor = self.network(images * self.scale + self.shift)
        return outputs
