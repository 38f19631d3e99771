from __future__ import annotations

import pytest
import torch
from torch import nn

from edgetl.errors import ModelError
from edgetl.models.backbones import create
from edgetl.models.size import check_takes, network_size


def test_macs_of_plain_and_grouped_convolutions_are_exact() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 5),
    )
    size = network_size(model, 8)
    assert size.macs == 16 * 8 * 3 * 9 + 16 * 8 * 9 + 128 * 5
    assert size.parameters == 216 + 16 + 72 + 128 * 5 + 5
    assert size.size_bytes == 4 * (size.parameters + 16) + 8


def test_known_networks_have_their_published_macs() -> None:
    assert network_size(create("efficientnet_lite0", 1000, "none"), 224).macs == pytest.approx(
        385e6, rel=0.03
    )
    assert network_size(create("torchvision/resnet18", 1000, "none"), 224).macs == pytest.approx(
        1.81e9, rel=0.01
    )


def test_fused_attention_is_counted_and_the_switch_is_put_back() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    model = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Flatten(2), nn.Unflatten(1, (1, 8)))

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.layer = model, layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.stem(x).squeeze(1).transpose(1, 2))

    tokens = 16
    expected = tokens * 8 * 48 + tokens * 8 * 24 + 2 * tokens * tokens * 8 + tokens * 64 + 2 * tokens * 8 * 16
    assert network_size(Tokens().eval(), 16).macs == expected
    assert torch.backends.mha.get_fastpath_enabled()


def test_measuring_leaves_the_network_as_it_was() -> None:
    model = create("mobilenetv3_small_050", 3, "none").train()
    network_size(model, 32)
    assert model.training
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_a_network_of_one_size_only_is_refused_elsewhere_and_the_sizes_it_takes_are_named() -> None:
    check_takes(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), 24, "pooled", "x")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 128 * 128, 2))
    with pytest.raises(ModelError) as caught:
        check_takes(flat, 24, "flat", "Set preprocess.size to it")
    assert str(caught.value).startswith("flat does not take images of 24 pixels per side (")
    assert str(caught.value).endswith(
        "). Of the usual sizes it takes 128. Set preprocess.size to it, or take another backbone."
    )
