from __future__ import annotations

import dataclasses
import json
import warnings

import pytest
import torch
from torch import nn

from edgetl.errors import ModelError, WeightsError
from edgetl.models.architecture import Architecture, build, describe
from edgetl.models.backbones import classifier_names, create
from edgetl.records.codec import to_json


def halve(model: nn.Module, size: int = 64) -> nn.Module:
    """Prune half of the channels for real."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch_pruning as tp

        tp.BasePruner(
            model,
            torch.zeros(1, 3, size, size),
            importance=tp.importance.GroupMagnitudeImportance(),
            pruning_ratio=0.5,
            round_to=8,
            ignored_layers=[model.get_submodule(n) for n in classifier_names(model)],
        ).step()
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_lite0",  # depthwise, timm's BatchNormAct2d
        "torchvision/resnet18",
        "torchvision/mobilenet_v2",
        "mobilenetv3_small_050",  # squeeze-excite
        "convnext_atto",  # LayerNorm, layer scale as a bare parameter
        "regnety_002",  # grouped convolutions
    ],
)
def test_a_pruned_network_is_rebuilt_from_data(name: str) -> None:
    model = halve(create(name, 3, "none"))
    architecture = describe(model, name, 3)
    assert architecture.layers
    rebuilt = build(architecture).eval()
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == shapes
    rebuilt.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), model(images))
    assert describe(rebuilt, name, 3) == architecture
    json.dumps(to_json(architecture))


def test_a_fresh_backbone_has_nothing_to_say() -> None:
    model = create("mobilenetv3_small_050", 3, "none")
    assert describe(model, "mobilenetv3_small_050", 3) == Architecture(
        backbone="mobilenetv3_small_050", num_classes=3
    )


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, 0.5
        self.gamma = nn.Parameter(torch.ones(width))


def other_layers(width: int, heads: int, groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.GroupNorm(groups, width),
        nn.LayerNorm([width, 4]),
        nn.Linear(width, 5),
        Attention(width, heads),
    )


def test_group_norm_layer_norm_and_heads_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetl.models.architecture.create", lambda *_, **__: other_layers(16, 4, 4))
    monkeypatch.setattr("edgetl.models.architecture.built_for", lambda *_: None)
    architecture = describe(other_layers(8, 2, 2), "any", 5)
    assert architecture.layers == {
        "0": {"out_channels": 8, "weight": (8, 3, 3, 3), "bias": (8,)},
        "1": {"num_groups": 2, "num_channels": 8, "weight": (8,), "bias": (8,)},
        "2": {"normalized_shape": (8, 4), "weight": (8, 4), "bias": (8, 4)},
        "3": {"in_features": 8, "weight": (5, 8)},
        "4": {"num_heads": 2, "gamma": (8,)},
    }
    rebuilt = build(architecture)
    assert describe(rebuilt, "any", 5) == architecture
    assert rebuilt[1](torch.rand(1, 8, 4, 4)).shape == (1, 8, 4, 4)  # type: ignore[index]


def test_rebuilt_weights_follow_the_seed() -> None:
    architecture = describe(halve(create("mobilenetv3_small_050", 3, "none")), "mobilenetv3_small_050", 3)
    first, second = build(architecture, seed=4).state_dict(), build(architecture, seed=4).state_dict()
    assert all(torch.equal(v, second[k]) for k, v in first.items())


def test_other_layers_are_refused() -> None:
    model = create("mobilenetv3_small_050", 3, "none")
    model.add_module("extra", nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"other layers than mobilenetv3_small_050: extra\. Only changed"):
        describe(model, "mobilenetv3_small_050", 3)
    model = create("mobilenetv3_small_050", 3, "none")
    model.conv_stem = nn.Identity()
    with pytest.raises(ModelError, match="conv_stem is a Identity; mobilenetv3_small_050 has a Conv2d there"):
        describe(model, "mobilenetv3_small_050", 3)
    model = create("mobilenetv3_small_050", 3, "none")
    model.conv_stem.bias = nn.Parameter(torch.zeros(16))
    with pytest.raises(ModelError, match="A Conv2d has other tensors than the backbone's: bias"):
        describe(model, "mobilenetv3_small_050", 3)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"nowhere": {"out_channels": 3}}, "has no layer 'nowhere'"),
        ({"conv_stem": {"forward": 3}}, "sets conv_stem.forward, which this backbone does not have"),
        ({"conv_stem": {"_version": 3}}, "sets conv_stem._version"),
        ({"conv_stem": {"training": 3}}, "sets conv_stem.training"),
        ({"conv_stem": {"weight": 3}}, "gives conv_stem.weight as 3; expected a shape"),
    ],
)
def test_a_doctored_description_is_refused(layers: dict[str, dict[str, int]], message: str) -> None:
    architecture = Architecture(backbone="mobilenetv3_small_050", num_classes=3)
    with pytest.raises(WeightsError, match=message):
        build(dataclasses.replace(architecture, layers=layers))
