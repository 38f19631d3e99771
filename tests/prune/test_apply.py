from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.config import Importance
from edgetl.errors import ModelError
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.models.norms import recalibrate
from edgetl.models.size import network_size
from edgetl.prune.apply import cut
from edgetl.prune.plan import Cost
from tests.prune.nets import SIZE, Chain, batches, budget, limits, make_scorer, seeded

NETWORKS = ("torchvision/mobilenet_v3_small", "torchvision/regnet_y_400mf")
"""tests/slow/test_prune_coverage.py takes many more."""

REBUILD = """
import json, sys
from pathlib import Path
import numpy as np, torch
from edgetl.models import checkpoint
torch.set_num_threads(1)
folder = Path(sys.argv[1])
images = torch.from_numpy(np.load(folder / "images.npy"))
for number in range(int(sys.argv[2])):
    model, _ = checkpoint.load(folder / f"{number}.safetensors")
    with torch.no_grad():
        np.save(folder / f"{number}.npy", model(images).numpy())
"""


def test_pruned_networks_are_rebuilt_in_a_fresh_process(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images, logits = torch.randn(2, 3, SIZE, SIZE), []
    np.save(tmp_path / "images.npy", images.numpy())
    for number, name in enumerate(NETWORKS):
        model = seeded(backbones.create, name, 5, "none")
        whole = network_size(model, SIZE)
        goal = Cost(macs=0.5 * whole.macs, parameters=0.6 * whole.parameters)
        result = cut(model, SIZE, make_scorer(Importance.RANDOM, model), goal, limits())
        if name == NETWORKS[0]:
            ranking, goal = (
                make_scorer(Importance.MAGNITUDE, model),
                Cost(macs=0.4 * whole.macs, parameters=math.inf),
            )
            result = cut(result.model, SIZE, ranking, goal, limits())
            assert network_size(model, SIZE) == whole
        size = network_size(result.model, SIZE)
        assert 0.3 * whole.macs < size.macs <= 0.5 * whole.macs
        assert size.parameters <= 0.6 * whole.parameters
        assert (size.macs, size.parameters) == (result.cost.macs, result.cost.parameters)
        modules = dict(result.model.named_modules())
        for layer, gone in result.removed.items():
            assert gone > 0
            assert len(modules[layer].weight) == result.widths[layer]
            assert result.widths[layer] % 8 == 0
        architecture = describe(result.model, name, 5)
        checkpoint.save(result.model, architecture, tmp_path / f"{number}.safetensors")
        with torch.no_grad():
            logits.append(result.model.eval()(images).numpy())
    torch.set_num_threads(threads)
    subprocess.run([sys.executable, "-c", REBUILD, str(tmp_path), str(len(NETWORKS))], check=True)
    for number, expected in enumerate(logits):
        assert np.array_equal(np.load(tmp_path / f"{number}.npy"), expected), NETWORKS[number]


def test_a_checkpoint_keeps_the_versions_of_layouts(tmp_path: Path) -> None:
    name = "torchvision/mnasnet0_5"
    model = backbones.create(name, 5, "none")
    checkpoint.save(model, describe(model, name, 5), tmp_path / "a.safetensors")
    again, _ = checkpoint.load(tmp_path / "a.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again(batches()[0]), model.eval()(batches()[0]), rtol=0, atol=0)


def test_a_cut_network_equals_the_masked_one() -> None:
    model = seeded(Chain)
    graph_names = {"stem.0", "expand.0", "project.0", "depthwise.0"}
    with torch.no_grad():
        model.project[0].weight[:, :16] *= 1e-4  # type: ignore[index]
        model.expand[0].weight[:16] *= 1e-4  # type: ignore[index]
        model.depthwise[0].weight[:16] *= 1e-4  # type: ignore[index]
        for norm in (model.expand[1], model.depthwise[1]):  # type: ignore[index]
            norm.weight[:16] = 1e-4
    result = cut(
        model, SIZE, make_scorer(Importance.MAGNITUDE, model), budget(model, 0.65), limits(), keep=["stem.0"]
    )
    assert set(result.removed) <= graph_names
    assert sum(result.removed.values()) == 16
    masked = copy.deepcopy(model)
    masked.project[0].weight.data[:, :16] = 0.0  # type: ignore[index]
    images = batches()[0]
    with torch.no_grad():
        torch.testing.assert_close(result.model(images), masked(images), rtol=1e-4, atol=1e-5)


def test_a_kept_layer_keeps_its_shape() -> None:
    model = seeded(backbones.create, "torchvision/mobilenet_v2", 5, "none")
    kept = ("features.4", "features.18.0")
    result = cut(model, SIZE, make_scorer(Importance.RANDOM, model), budget(model, 0.6), limits(), keep=kept)
    before, after = dict(model.named_parameters()), dict(result.model.named_parameters())
    for name, parameter in before.items():
        if name.startswith(tuple(f"{k}." for k in kept)):
            assert after[name].shape == parameter.shape


def test_a_vision_transformer_of_torchvision_loses_hidden_units_but_no_heads() -> None:
    import torchvision

    model = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )
    nn.init.normal_(model.heads[0].weight)
    result = cut(model, SIZE, make_scorer(Importance.RANDOM, model), budget(model, 0.5), limits())
    assert {name.rpartition(".")[2] for name in result.removed} == {"0"}
    layer = result.model.encoder.layers[0]  # type: ignore[union-attr, index]
    assert layer.mlp[0].out_features == layer.mlp[3].in_features < 64  # type: ignore[union-attr, index]


def test_a_vision_transformer_of_timm_loses_heads_and_comes_back(tmp_path: Path) -> None:
    name = "test_vit"
    model = backbones.create(name, 5, "none")
    size = 160
    depth = len(model.blocks)  # type: ignore[arg-type]
    result = cut(
        model,
        size,
        make_scorer(Importance.RANDOM, model),
        budget(model, 0.68, size=size),
        limits(),
        keep=["patch_embed", *(f"blocks.{i}.mlp" for i in range(depth))],
    )
    assert result.removed
    for group in result.removed:
        attention = group.removesuffix(".qkv")
        before, after = model.get_submodule(attention), result.model.get_submodule(attention)
        assert (before.num_heads, after.num_heads) == (2, 1)
        assert 2 * after.proj.in_features == before.proj.in_features  # type: ignore[operator, union-attr]
    checkpoint.save(result.model, describe(result.model, name, 5), tmp_path / "a.safetensors")
    again, _ = checkpoint.load(tmp_path / "a.safetensors")
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(again(images), result.model(images), rtol=0, atol=0)


class Norms(nn.Module):
    """A layer norm over the channels that are cut: masked channels must not count in its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.LayerNorm(32)
        self.classifier = nn.Linear(32, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.norm(self.first(images).mean((2, 3))))  # type: ignore[no-any-return]


def test_a_layer_norm_over_the_cut_channels_is_compared_exactly() -> None:
    model = seeded(Norms)
    result = cut(model, SIZE, make_scorer(Importance.RANDOM, model), budget(model, 0.6), limits())
    assert result.widths == {"first": 16}


class Normalised(nn.Module):
    """Divides by the mean over the channels, which no graph shows: a cut would change it silently."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.classifier = nn.Linear(32, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.first(images).abs().mean((2, 3))
        return self.classifier(features / features.sum(1, keepdim=True))  # type: ignore[no-any-return]


def test_a_cut_that_would_be_silently_wrong_is_refused() -> None:
    model = seeded(Normalised)
    with pytest.raises(
        ModelError,
        match=r"Normalised cannot be traced for pruning at first: its logits differ by .* silently wrong\. Take",
    ):
        cut(model, SIZE, make_scorer(Importance.RANDOM, model), budget(model, 0.6), limits())


def test_recalibration_measures_the_statistics_of_the_batches() -> None:
    model = seeded(Chain)
    images = batches(16, 3)
    recalibrate(model, images)
    norm = model.stem[1]  # type: ignore[index]
    with torch.no_grad():
        features = torch.cat([model.stem[0](batch) for batch in images])  # type: ignore[index]
    torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, features.var((0, 2, 3)), rtol=1e-2, atol=1e-4)
    assert norm.momentum == 0.1
    assert not any(m.training for m in model.modules())


def test_recalibration_without_images_or_norms_changes_nothing() -> None:
    model = seeded(Chain)
    before = json.dumps(model.stem[1].running_mean.tolist())  # type: ignore[index]
    recalibrate(model, [])
    recalibrate(nn.Linear(2, 2), [torch.zeros(1, 2)])
    assert json.dumps(model.stem[1].running_mean.tolist()) == before  # type: ignore[index]
