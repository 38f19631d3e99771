from __future__ import annotations

import pytest
import torch
from torch import nn

from edgetl.errors import ModelError
from edgetl.models import backbones
from edgetl.models.size import network_size
from edgetl.prune.graph import layer_costs, trace
from edgetl.prune.plan import cost_of
from tests.prune.nets import SIZE, Chain, seeded


def test_channels_that_hang_together_form_one_group() -> None:
    groups = {g.name: g for g in trace(seeded(Chain), SIZE).groups}
    stream = next(g for g in groups.values() if "stem.0" in g.outputs)
    inner = next(g for g in groups.values() if "expand.0" in g.outputs)
    assert len(groups) == 2
    assert (stream.channels, inner.channels) == (16, 32)
    assert stream.outputs == {"stem.0": 1.0, "project.0": 1.0}
    assert stream.inputs == {"expand.0": 1.0, "classifier": 1.0}
    assert inner.outputs == {"expand.0": 1.0, "depthwise.0": 1.0}
    assert inner.inputs == {"project.0": 1.0}
    assert (stream.norms, inner.norms) == (4.0, 4.0)


def test_the_classifier_is_in_no_group() -> None:
    graph = trace(seeded(Chain), SIZE)
    assert all("classifier" not in g.outputs for g in graph.groups)


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "torchvision/regnet_y_400mf", "torchvision/mobilenet_v3_small"]
)
def test_costs_agree_with_the_size_that_is_reported(name: str) -> None:
    model = backbones.create(name, 5, "none")
    size, cost = network_size(model, SIZE), cost_of(trace(model, SIZE))
    assert cost.macs == size.macs
    assert cost.parameters == size.parameters


def test_a_kept_layer_keeps_its_whole_group() -> None:
    assert [g.channels for g in trace(seeded(Chain), SIZE, keep=["depthwise"]).groups] == [16]
    assert trace(seeded(Chain), SIZE, keep=["project.0"]).groups == ()


def test_an_unknown_name_in_keep_gets_the_nearest() -> None:
    with pytest.raises(
        ModelError, match=r"prune\.keep: Chain has no layer 'depthwize'. The nearest is 'depthwise'"
    ):
        trace(seeded(Chain), SIZE, keep=["depthwize"])


def test_grouped_convolutions_go_in_whole_groups() -> None:
    graph = trace(backbones.create("torchvision/regnet_y_400mf", 5, "none"), SIZE)
    assert {g.cell for g in graph.groups} == {1, 8}


class Fixed(nn.Module):
    """Writes its channel count into a view, so that no graph can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("not today")


def test_a_network_that_cannot_run_is_named_with_its_module() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Fixed())
    with pytest.raises(ModelError, match=r"Sequential cannot be traced for pruning at 1: not today"):
        trace(model, SIZE)


def test_shufflenet_is_pruned_where_no_channel_is_shuffled() -> None:
    graph = trace(backbones.create("torchvision/shufflenet_v2_x0_5", 5, "none"), SIZE)
    assert len(graph.groups) == 16
    inner = {g.name: g for g in graph.groups}["stage2.1.branch2.0"]
    assert inner.inputs == {"stage2.1.branch2.5": 1.0}
    assert inner.outputs == {"stage2.1.branch2.0": 1.0, "stage2.1.branch2.3": 1.0}


def test_attention_heads_go_whole() -> None:
    import timm

    model = timm.create_model("test_vit", num_classes=3, img_size=SIZE)
    group = next(g for g in trace(model, SIZE).groups if g.name == "blocks.0.attn.qkv")
    heads = model.blocks[0].attn.num_heads
    assert (group.channels, group.cell) == (64, 64 // heads)
    assert group.outputs == {"blocks.0.attn.qkv": 3.0}
    assert group.inputs == {"blocks.0.attn.proj": 1.0}


class Mixed(nn.Module):
    """One part whose channels can go, and one with its channel count written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)
        self.classifier = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.second(self.first(images).relu())
        return self.classifier(features.mean((2, 3)).reshape(len(images), 16))  # type: ignore[no-any-return]


def test_a_network_is_pruned_around_what_cannot_be_cut() -> None:
    graph = trace(seeded(Mixed), SIZE)
    assert [g.name for g in graph.groups] == ["first"]
    assert list(graph.refused) == ["second"]
    assert graph.refused["second"].startswith("with fewer channels it fails: shape '[2, 16]' is invalid")


class Remembering(nn.Module):
    """Computes a bias once in evaluation and keeps it until its mode is set again, as LeViT's attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3)
        self.last = nn.Conv2d(16, 4, 1)
        self.scale = nn.Parameter(torch.ones(1))
        self.kept: dict[str, torch.Tensor] = {}

    def train(self, mode: bool = True) -> Remembering:
        self.kept = {}
        return super().train(mode)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training or "bias" not in self.kept:
            self.kept["bias"] = self.scale * 2
        return self.last(torch.relu(self.first(images)) + self.kept["bias"]).mean((2, 3))  # type: ignore[no-any-return]


def test_what_a_network_keeps_from_evaluation_does_not_stop_the_trial_cut() -> None:
    assert [group.name for group in trace(seeded(Remembering), 16).groups] == ["first"]


def test_a_layer_used_twice_costs_twice() -> None:
    layer = nn.Conv2d(3, 3, 1)
    costs = layer_costs(nn.Sequential(layer, nn.ReLU(), layer), 4)
    assert costs["0"].macs(3, 3) == 2 * 16 * 9
    assert costs["0"].parameters(3, 3) == 12
