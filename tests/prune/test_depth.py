from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgetl.config import Importance
from edgetl.errors import ModelError, WeightsError
from edgetl.models import checkpoint
from edgetl.models.architecture import Architecture, build, describe
from edgetl.models.backbones import create
from edgetl.models.detector import create_detector
from edgetl.models.removed import remove_, removed
from edgetl.prune.apply import cut
from edgetl.prune.depth import Block, check, fewest, removable
from edgetl.prune.graph import ChannelGraph, layer_costs, trace
from edgetl.prune.importance import ImportanceScores
from edgetl.prune.latency import LatencyTable, fit_table
from edgetl.prune.plan import Cost, CutLimits, choose, cost_of
from tests.prune.nets import batches, make_scorer, seeded

SIZE = 32


class Residual(nn.Module):
    """A shortcut around two convolutions, and what stands behind their sum."""

    def __init__(self, last: nn.Module, channels: int = 16, hidden: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.last = last

    def forward(self, images: Tensor) -> Tensor:
        return self.last(images + self.body(images))  # type: ignore[no-any-return]


class Deep(nn.Module):
    """A stem, a stage of three blocks, a block that no shortcut carries past, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.stage = nn.Sequential(*(Residual(nn.ReLU()) for _ in range(3)))
        self.plain = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.classifier = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.plain(self.stage(self.stem(images))).mean((2, 3)))  # type: ignore[no-any-return]


def limits_of(model: nn.Module, least: int | None) -> CutLimits:
    groups = trace(copy.deepcopy(model), SIZE).groups
    widths = {layer: group.channels for group in groups for layer in group.outputs}
    return CutLimits(round_to=8, max_cut=0.9, widths=widths, fewest_blocks=least)


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("efficientnet_lite0", "blocks.1.1", 9),
        ("torchvision/mobilenet_v2", "features.3", 10),
        ("torchvision/resnet18", "layer1.0", 5),
        ("convnext_atto", "stages.0.blocks.0", 12),
        ("torchvision/squeezenet1_1", "", 0),
    ],
)
def test_blocks_that_a_shortcut_carries_past_are_found_and_can_go(name: str, first: str, count: int) -> None:
    model = seeded(create, name, 3, "none")
    blocks = removable(model, SIZE)
    assert len(blocks) == count
    if not blocks:
        with pytest.raises(ModelError, match=r"prune.depth = 0.5, but SqueezeNet has no block that can go"):
            check(model, blocks, 0.5)
        return
    assert blocks[0].name == first
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    shorter = remove_(copy.deepcopy(model), [blocks[0].name, blocks[-1].name])
    assert removed(shorter) == (blocks[0].name, blocks[-1].name)
    assert [block.name for block in removable(shorter, SIZE)] == [block.name for block in blocks[1:-1]]
    with torch.no_grad():
        assert shorter(images).shape == (2, 3)
        assert not torch.equal(shorter(images), model(images))


def test_the_backbone_of_a_detector_has_blocks_and_its_heads_have_none() -> None:
    model = create_detector("efficientnet_lite0", 2).eval()
    blocks = removable(model, 64)
    assert [block.name for block in blocks[:2]] == ["backbone.blocks.1.1", "backbone.blocks.2.1"]
    assert all(block.name.startswith("backbone.") for block in blocks)
    shorter = remove_(copy.deepcopy(model), [block.name for block in blocks])
    rebuilt = build(describe(shorter, "efficientnet_lite0", 2)).eval()
    rebuilt.load_state_dict(shorter.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), shorter(images))


def test_only_the_smallest_module_counts_and_what_is_kept_stays() -> None:
    model = seeded(Deep)
    assert [block.name for block in removable(model, SIZE)] == ["stage.0", "stage.1", "stage.2"]
    assert removable(model, SIZE)[0].layers == {"stage.0.body.0", "stage.0.body.3"}
    assert [block.name for block in removable(model, SIZE, ["stage.1.body.0"])] == ["stage.0", "stage.2"]
    assert removable(model, SIZE, ["stage"]) == ()


@pytest.mark.parametrize(
    ("last", "found"), [(nn.Identity(), 1), (nn.ReLU(), 1), (nn.SiLU(), 0), (nn.Sigmoid(), 0)]
)
def test_an_activation_behind_the_sum_must_leave_the_input_alone(last: nn.Module, found: int) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), Residual(last), nn.Conv2d(16, 4, 1)))
    assert len(removable(model, SIZE)) == found


def test_a_share_of_the_blocks_may_go() -> None:
    blocks = [Block(name=str(at), layers=frozenset()) for at in range(9)]
    assert [fewest(blocks, share) for share in (0.1, 1 / 3, 0.5, 1.0)] == [9, 6, 5, 0]
    check(nn.Identity(), blocks, 0.2)
    message = r"prune.depth = 0.1 lets none of the 9 blocks of Identity go\. Set it to 0.112 or more"
    with pytest.raises(ModelError, match=message):
        check(nn.Identity(), blocks, 0.1)
    assert fewest(blocks, 0.112) == 8


def test_a_block_that_adds_nothing_goes_first_and_the_cut_is_what_it_was() -> None:
    model, images = seeded(Deep), batches(size=SIZE)
    with torch.no_grad():
        model.stage[1].body[4].weight.mul_(1e-4)
        model.stage[1].body[4].bias.zero_()
    graph = trace(copy.deepcopy(model), SIZE, depth=True)
    scores = make_scorer(Importance.TAYLOR, model, images)(graph)
    assert min(scores.blocks, key=lambda name: scores.blocks[name]) == "stage.1"
    whole = cost_of(graph)
    found = cut(
        model,
        SIZE,
        make_scorer(Importance.TAYLOR, model, images),
        Cost(macs=0.74 * whole.macs, parameters=math.inf),
        limits_of(model, 2),
    )
    assert found.blocks == ("stage.1",) == removed(found.model)
    assert found.removed == {}
    with torch.no_grad():
        assert torch.allclose(found.model(images[0]), model(images[0]), atol=1e-2)


def test_blocks_stay_where_none_may_go() -> None:
    model, images = seeded(Deep), batches(size=SIZE)
    half = Cost(macs=0.5 * cost_of(trace(copy.deepcopy(model), SIZE)).macs, parameters=math.inf)
    found = cut(model, SIZE, make_scorer(Importance.TAYLOR, model, images), half, limits_of(model, None))
    assert found.blocks == ()
    # The estimate of channels is not touched by that of blocks.
    scores = [
        make_scorer(Importance.TAYLOR, model, images)(trace(copy.deepcopy(model), SIZE, depth=depth)).channels
        for depth in (False, True)
    ]
    assert all(torch.equal(scores[0][name], scores[1][name]) for name in scores[0])


def test_channels_and_blocks_go_in_one_cut_to_a_budget_and_the_network_comes_back(tmp_path: Path) -> None:
    model, images = seeded(create, "efficientnet_lite0", 3, "none"), batches(size=SIZE)
    graph = trace(copy.deepcopy(model), SIZE, depth=True)
    budget = Cost(macs=0.3 * cost_of(graph).macs, parameters=math.inf)

    def scorer(graph: ChannelGraph) -> ImportanceScores:
        """With blocks that hardly matter."""
        found = make_scorer(Importance.TAYLOR, model, images)(graph)
        return replace(found, blocks={name: 1e-3 * value for name, value in found.blocks.items()})

    found = cut(model, SIZE, scorer, budget, limits_of(model, 3))
    assert found.blocks
    assert found.removed
    assert (
        sum(layer.macs(layer.inputs, layer.outputs) for layer in layer_costs(found.model, SIZE).values())
        <= budget.macs
    )
    architecture = describe(found.model, "efficientnet_lite0", 3)
    assert architecture.removed == found.blocks
    checkpoint.save(found.model, architecture, tmp_path / "net.safetensors")
    rebuilt, again = checkpoint.load(tmp_path / "net.safetensors")
    assert again == architecture
    with torch.no_grad():
        assert torch.equal(rebuilt(images[0]), found.model(images[0]))
    # What is left is cut again, under the widths of the whole network.
    further = Cost(macs=0.2 * cost_of(graph).macs, parameters=math.inf)
    twice = cut(rebuilt, SIZE, scorer, further, limits_of(model, 3))
    assert set(found.blocks) <= set(removed(twice.model))
    assert len(removable(twice.model, SIZE)) >= 3


def test_without_a_clock_so_many_blocks_go_as_may_the_least_important_first() -> None:
    graph = trace(seeded(Deep), SIZE, depth=True)
    channels = {g.name: torch.full((g.channels,), 0.1, dtype=torch.float64) for g in graph.groups}
    effects = {"stage.0": 3.0, "stage.1": 1.0, "stage.2": 2.0}
    scores = ImportanceScores(channels=channels, additive=True, blocks=effects)
    limits = CutLimits(round_to=8, max_cut=0.9, widths={}, fewest_blocks=1, most_blocks=1)
    whole = cost_of(graph).macs
    for share in (0.9, 0.1):
        plan = choose(graph, scores, Cost(macs=share * whole, parameters=math.inf), limits)
        assert plan.blocks == ("stage.1", "stage.2")
        assert plan.cost.macs <= share * whole
        assert bool(plan.removed) is (share == 0.1)


def test_under_the_clock_a_call_s_own_time_speaks_for_the_block() -> None:
    graph = trace(seeded(Deep), SIZE, depth=True)
    channels = {g.name: torch.full((g.channels,), 0.1, dtype=torch.float64) for g in graph.groups}
    scores = ImportanceScores(channels=channels, additive=True, blocks={b.name: 2.0 for b in graph.blocks})
    limits = CutLimits(round_to=8, max_cut=0.9, widths={}, fewest_blocks=2)

    def taken(rates: tuple[float, ...]) -> tuple[str, ...]:
        table = LatencyTable(rates=rates, fixed_ms=0.0, error=0.0)
        goal = 0.8 * cost_of(graph, table).milliseconds
        bounds = Cost(macs=math.inf, parameters=math.inf, milliseconds=goal)
        plan = choose(graph, scores, bounds, limits, table)
        assert plan.cost.milliseconds <= goal
        return plan.blocks

    assert taken((1e-6, 0.0, 0.0, 0.0, 0.0)) == ()
    assert taken((0.0, 0.0, 0.0, 0.0, 1.0)) == ("stage.0",)


def test_calls_are_told_from_the_rest_where_networks_differ_in_depth() -> None:
    generator = np.random.default_rng(0)
    works = [(*generator.uniform(1e3, 1e5, 4).tolist(), float(generator.integers(20, 50))) for _ in range(12)]
    rates = (2e-6, 0.0, 1e-6, 3e-6, 0.05)
    table = fit_table(works, [0.3 + sum(r * w for r, w in zip(rates, one, strict=True)) for one in works])
    assert table.rates[4] == pytest.approx(0.05, rel=0.05)
    same = [(*one[:-1], 20.0) for one in works]
    assert fit_table(same, [1.0 + 1e-6 * one[0] for one in same]).rates[4] == 0.0


def test_a_description_with_unknown_blocks_is_refused() -> None:
    plain = Architecture(backbone="mobilenetv3_small_050", num_classes=3)
    with pytest.raises(
        WeightsError, match=r"mobilenetv3_small_050 has no block to be taken out as described"
    ):
        build(replace(plain, removed=("blocks.9.9",)))
