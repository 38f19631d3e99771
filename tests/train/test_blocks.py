from __future__ import annotations

import pytest
from torch import nn

from edgetl.config import Optimizer
from edgetl.errors import TrainingError
from edgetl.models import backbones
from edgetl.tasks.base import Detection
from edgetl.train.blocks import blocks, last_blocks, last_stages, layer_scales
from edgetl.train.freezing import freeze, train_mode
from edgetl.train.optimise import optimiser_of, set_rate
from edgetl.train.tasks.all import training_task
from tests.train.tiny import TASK

NAMES = (
    "test_efficientnet",
    "test_resnet",
    "test_vit",
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/squeezenet1_1",
)


def network(name: str) -> nn.Module:
    return backbones.create(name, 3, "none")


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_hold_every_parameter_once_and_end_with_the_head(name: str, coarse: bool) -> None:
    model = network(name)
    found = blocks(model, TASK, coarse=coarse)
    assert sorted(n for block in found for n in block) == sorted(n for n, _ in model.named_parameters())
    head = {n for layer in backbones.classifier_names(model) for n in (f"{layer}.weight", f"{layer}.bias")}
    assert head <= set(found[-1])
    assert len(found) >= 5
    first = next(n for n, p in model.named_parameters() if p.ndim == 4)
    assert first in found[0]


def test_the_last_blocks_learn_and_frozen_batch_norms_keep_their_statistics() -> None:
    model = network("test_efficientnet")
    freeze(model, last_blocks(2, TASK))
    learning = {
        n.rpartition(".")[0].partition(".")[0] for n, p in model.named_parameters() if p.requires_grad
    }
    stages = {
        n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad and n.startswith("blocks")
    }
    assert learning == {"blocks", "conv_head", "bn2", "classifier"}
    assert stages == {"3", "4"}
    train_mode(model, partly_frozen=True)
    norms = {n: m.training for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(norms) > 8
    assert all(mode is n.startswith(("blocks.3", "blocks.4", "bn2")) for n, mode in norms.items())


def test_too_many_blocks_are_refused() -> None:
    with pytest.raises(
        TrainingError, match=r"train.unfrozen_blocks is 9, but the network has 5 blocks before"
    ):
        freeze(network("test_resnet"), last_blocks(9, TASK))


def test_stages_are_freed_from_the_end() -> None:
    model = network("test_resnet")
    for share, first in ((1 / 3, "layer3"), (2 / 3, "layer1"), (1.0, "conv1")):
        freeze(model, last_stages(share, TASK))
        learning = [n for n, p in model.named_parameters() if p.requires_grad]
        assert learning[0].startswith(first), (share, learning[0])
        assert "fc.weight" in learning


@pytest.mark.parametrize("name", NAMES)
def test_layer_decay_slows_every_block_below_the_head(name: str) -> None:
    model = network(name)
    scales = layer_scales(model, TASK, 0.5)
    found = blocks(model, TASK)
    by_block = [{scales[id(model.get_parameter(n))] for n in block} for block in found]
    assert by_block == [{0.5 ** (len(found) - 1 - i)} for i in range(len(found))]
    optimiser = optimiser_of(
        Optimizer.ADAMW, list(model.parameters()), lr=1.0, weight_decay=0.1, scales=scales
    )
    set_rate(optimiser.param_groups, 0.1)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}
    assert rates == {
        id(p): (pytest.approx(0.1 * scales[id(p)]), 0.1 if p.ndim > 1 else 0.0) for p in model.parameters()
    }


def test_the_head_is_what_the_task_says_is_new() -> None:
    task = training_task(Detection(labels=("cell",)))
    model = task.network("test_efficientnet", "none", seed=0, size=64)
    *rest, head = blocks(model, task)
    assert {n.partition(".")[0] for n in head} == set(task.new_layers(model))
    assert {n.partition(".")[0] for block in rest for n in block} == {"backbone"}
