from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgetl.models import backbones
from edgetl.models.folding import folded

SIZE = 64


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def learned(network: nn.Module) -> nn.Module:
    """Statistics and factors as training leaves them, so that a norm is no identity."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
            ):
                assert values is not None
                values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))
    return network


# A DenseNet normalises what several convolutions made together; those norms stay.
@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("efficientnet_lite0", 0),
        ("torchvision/resnet18", 0),
        ("torchvision/mobilenet_v2", 0),
        ("torchvision/densenet121", 62),
    ],
)
def test_a_folded_network_gives_the_same_logits(name: str, left: int) -> None:
    network = learned(backbones.create(name, 5, backbones.NO_WEIGHTS)).train()
    before = copy.deepcopy(network.state_dict())
    result = folded(network, SIZE)
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    assert norms(network) > norms(result) == left
    assert {n for n, _ in network.named_modules()} <= {n for n, _ in result.named_modules()}
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in result.parameters())
    with torch.no_grad():
        wanted, found = network.eval()(images), result(images)
    torch.testing.assert_close(found, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


class ReadTwice(nn.Module):
    """What the convolution makes is also added as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images)
        sums: Tensor = (self.norm(maps) + maps).mean((2, 3))
        return sums


class NormTwice(ReadTwice):
    """The norm runs twice."""

    def forward(self, images: Tensor) -> Tensor:
        sums: Tensor = self.norm(self.norm(self.convolution(images))).mean((2, 3))
        return sums


@pytest.mark.parametrize("kind", [ReadTwice, NormTwice])
def test_what_cannot_be_folded_stays_whole(kind: type[ReadTwice]) -> None:
    network = learned(kind()).eval()
    result = folded(network, 8)
    images = torch.randn(2, 3, 8, 8)
    assert norms(result) == 1
    assert torch.equal(result(images), network(images))
