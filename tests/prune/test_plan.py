from __future__ import annotations

import dataclasses

import pytest
import torch

from edgetl.config import Importance, PruneScope, Target
from edgetl.errors import ModelError
from edgetl.models import backbones
from edgetl.prune.graph import trace
from edgetl.prune.importance import ImportanceScores
from edgetl.prune.plan import Cost, CutLimits, alignment_for, check_reachable, choose, cost_of
from tests.prune.nets import SIZE, Chain, budget, limits, make_scorer, seeded


def scores_of(additive: bool, **values: torch.Tensor) -> ImportanceScores:
    return ImportanceScores(
        channels={k.replace("_", "."): v.double() for k, v in values.items()}, additive=additive
    )


def test_the_least_important_channels_go_in_units() -> None:
    graph = trace(seeded(Chain), SIZE)
    stream, inner = sorted(graph.groups, key=lambda g: g.channels)
    scores = ImportanceScores(
        channels={
            stream.name: torch.ones(16, dtype=torch.float64),
            inner.name: torch.arange(32, 0, -1, dtype=torch.float64) / 100,
        },
        additive=False,
    )
    plan = choose(graph, scores, budget(graph.model, macs=0.9), limits())
    assert plan.removed == {inner.name: tuple(range(24, 32))}
    assert plan.cost.macs <= 0.9 * cost_of(graph).macs


def test_of_equal_importance_the_costly_go_first() -> None:
    graph = trace(seeded(Chain), SIZE)
    ones = {g.name: torch.ones(g.channels, dtype=torch.float64) for g in graph.groups}
    plan = choose(
        graph, ImportanceScores(channels=ones, additive=True), budget(graph.model, macs=0.95), limits()
    )
    # a channel of the residual stream costs in three layers
    assert list(plan.removed) == [next(g.name for g in graph.groups if g.channels == 16)]


def test_both_budgets_are_met() -> None:
    model = backbones.create("torchvision/mobilenet_v2", 5, "none")
    graph = trace(model, SIZE)
    score = make_scorer(Importance.RANDOM, model)(graph)
    for both in (budget(model, macs=0.5), budget(model, parameters=0.3), budget(model, 0.5, 0.3)):
        plan = choose(graph, score, both, limits())
        assert plan.cost.macs <= both.macs
        assert plan.cost.parameters <= both.parameters
        for group in graph.groups:
            left = group.channels - len(plan.removed.get(group.name, ()))
            assert left >= limits().floor(group)
            assert group.name not in plan.removed or left % 8 == 0


def test_cells_stay_whole() -> None:
    graph = trace(backbones.create("torchvision/regnet_y_400mf", 5, "none"), SIZE)
    score = make_scorer(Importance.RANDOM, graph.model)(graph)
    plan = choose(graph, score, budget(graph.model, macs=0.5), limits(round_to=4))
    grouped = [g for g in graph.groups if g.cell == 8 and g.name in plan.removed]
    assert grouped
    for group in grouped:
        cells = {i // 8 for i in plan.removed[group.name]}
        assert len(plan.removed[group.name]) == 8 * len(cells)


def test_with_the_scope_layer_every_group_loses_about_the_same_share() -> None:
    model = backbones.create("torchvision/mobilenet_v2", 5, "none")
    graph = trace(model, SIZE)
    score = make_scorer(Importance.MAGNITUDE, model)(graph)
    level = dataclasses.replace(limits(round_to=1), scope=PruneScope.LAYER)
    plan = choose(graph, score, budget(model, macs=0.4), level)
    assert plan.cost.macs <= 0.4 * cost_of(graph).macs
    lost = [len(plan.removed.get(g.name, ())) / g.channels for g in graph.groups]
    assert max(lost) - min(lost) <= 1 / min(g.channels for g in graph.groups)
    for group in graph.groups:
        gone = list(plan.removed[group.name])
        left = [i for i in range(group.channels) if i not in gone]
        assert score.channels[group.name][gone].max() <= score.channels[group.name][left].min()


def test_the_scope_layer_keeps_shares_of_the_first_widths_level() -> None:
    """A group that was cut before waits for the others."""
    graph = trace(seeded(Chain), SIZE)
    stream, inner = sorted(graph.groups, key=lambda g: g.channels)
    ones = {g.name: torch.ones(g.channels, dtype=torch.float64) for g in graph.groups}
    level = CutLimits(
        round_to=8, max_cut=0.9, widths={stream.name: 16, inner.name: 64}, scope=PruneScope.LAYER
    )
    plan = choose(graph, ImportanceScores(channels=ones, additive=True), budget(graph.model, macs=0.9), level)
    assert list(plan.removed) == [stream.name]


@pytest.mark.parametrize(
    ("channels", "round_to", "max_cut", "floor"),
    [(80, 8, 0.9, 8), (80, 8, 0.5, 40), (24, 8, 0.9, 8), (24, 16, 0.5, 16), (20, 1, 0.9, 2), (7, 8, 0.9, 8)],
)
def test_the_floor_is_aligned(channels: int, round_to: int, max_cut: float, floor: int) -> None:
    group = trace(seeded(Chain), SIZE).groups[0]
    limits = CutLimits(round_to=round_to, max_cut=max_cut, widths={group.name: channels})
    assert limits.floor(group) == floor


def test_an_impossible_target_says_the_best_reachable() -> None:
    graph = trace(seeded(Chain), SIZE)
    with pytest.raises(
        ModelError,
        match=r"Chain cannot be cut to 1\.0% of its multiply-accumulates and any share of its parameters: with"
        r" round_to = 8 and max_cut = 0\.9 the best reachable is 23\.9% and 25\.5%",
    ):
        check_reachable(graph, budget(graph.model, macs=0.01), limits())
    check_reachable(graph, budget(graph.model, macs=0.6), limits())


def test_nothing_goes_where_the_budget_holds_already() -> None:
    graph = trace(seeded(Chain), SIZE)
    ones = {g.name: torch.ones(g.channels, dtype=torch.float64) for g in graph.groups}
    plan = choose(
        graph, ImportanceScores(channels=ones, additive=True), Cost(macs=1e12, parameters=1e12), limits()
    )
    assert plan.removed == {}
    assert plan.cost == cost_of(graph)


def test_channels_fit_the_kernels_of_the_targets() -> None:
    assert alignment_for([Target.CPU_ARM]) == 8
    assert all(alignment_for([target]) == 16 for target in Target if target is not Target.CPU_ARM)
    assert alignment_for([Target.CPU_ARM, Target.CPU_X86]) == 16
