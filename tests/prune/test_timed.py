from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.config import Importance, PruneConfig
from edgetl.errors import ModelError
from edgetl.progress import SILENT, SilentProgress
from edgetl.prune.graph import layer_costs, trace
from edgetl.prune.groups import Layer
from edgetl.prune.importance import ImportanceScores
from edgetl.prune.latency import LatencyTable, LayerTiming, fit_table, total_work, work
from edgetl.prune.plan import Cost, choose, cost_of
from edgetl.prune.timed import TimedTarget
from tests.prune.nets import SIZE, Chain, limits, make_scorer, seeded

RATES = (2e-6, 5e-6, 1e-6, 3e-6, 0.0)
TEACHER_MS = 2.0


class FakeClock:
    """Milliseconds as `law` has them from a network's work; the machine may drift."""

    def __init__(self, law: Callable[[float], float] = lambda ms: ms, drift: float = 1.0) -> None:
        self.law, self.drift, self.timed = law, drift, 0

    def __call__(self, network: nn.Module) -> LayerTiming:
        speed = self.drift**self.timed
        self.timed += 1
        amounts = total_work(layer_costs(network, SIZE))
        ms = 0.1 + sum(r * w for r, w in zip(RATES, amounts, strict=True))
        return LayerTiming(ms=speed * self.law(ms), teacher_ms=speed * TEACHER_MS)


class Shown(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def whole_ms(model: nn.Module) -> float:
    return FakeClock()(model).ms


def target(
    model: nn.Module, folder: Path, clock: FakeClock, *, stated: SilentProgress = SILENT, **config: float
) -> TimedTarget:
    graph = trace(copy.deepcopy(model), SIZE)
    return TimedTarget(
        model,
        SIZE,
        config=PruneConfig(steps=2, **config),
        limits=limits(**{g.name: g.channels for g in graph.groups}),
        stopwatch=clock,
        kept=folder / "latency.json",
        key="a key",
        seed=0,
        progress=stated,
    )


def budget(milliseconds: float) -> Cost:
    return Cost(macs=math.inf, parameters=math.inf, milliseconds=milliseconds)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        # a 3x3 convolution on 5x5 places, 4 to 6 channels
        (
            Layer(inputs=4, outputs=6, unit_macs=225, unit_weights=9, width=0, bias=False),
            (5400, 0, 250, 216, 1),
        ),
        # the same, depthwise, 6 channels
        (
            Layer(inputs=6, outputs=6, unit_macs=225, unit_weights=9, width=1, bias=True),
            (0, 1350, 300, 54, 1),
        ),
        (Layer(inputs=8, outputs=3, unit_macs=1, unit_weights=1, width=0, bias=True), (24, 0, 11, 24, 1)),
    ],
)
def test_the_work_of_a_layer(layer: Layer, expected: tuple[float, ...]) -> None:
    assert work(layer, layer.inputs, layer.outputs) == expected


def test_a_table_finds_the_rates_again_and_predicts_other_widths() -> None:
    generator = np.random.default_rng(0)
    works = [(*generator.uniform(1e3, 1e5, 4).tolist(), 20.0) for _ in range(9)]
    table = fit_table(works, [0.5 + sum(r * w for r, w in zip(RATES, one, strict=True)) for one in works])
    assert table.rates == pytest.approx(RATES, rel=1e-6)
    assert table.fixed_ms == pytest.approx(0.5, rel=1e-6)
    assert table.error < 1e-6
    assert table.of_work((1e5, 0, 0, 0, 0)) == pytest.approx(0.7)
    assert table.scaled(2).of_work((1e5, 0, 0, 0, 0)) == pytest.approx(1.4)


def test_no_rate_is_negative_and_the_error_is_told() -> None:
    generator = np.random.default_rng(1)
    works = [(*generator.uniform(1e3, 1e5, 4).tolist(), 20.0) for _ in range(14)]
    times = [(2e-5 * w[0] - 2e-6 * w[1] + 1.0) * generator.uniform(0.97, 1.03) for w in works]
    table = fit_table(works, times)
    assert min(*table.rates, table.fixed_ms) >= 0
    assert 0.005 < table.error < 0.2


def test_of_equal_importance_the_slow_channels_go_first() -> None:
    graph = trace(seeded(Chain), SIZE)
    stream, inner = sorted(graph.groups, key=lambda g: g.channels)
    ones = {g.name: torch.ones(g.channels, dtype=torch.float64) for g in graph.groups}
    # only depthwise work takes time, and only the inner channels have it
    table = LatencyTable(rates=(0.0, 1e-3, 0.0, 0.0, 0.0), fixed_ms=1.0, error=0.0)
    before = cost_of(graph, table).milliseconds
    scores = ImportanceScores(channels=ones, additive=True)
    plan = choose(graph, scores, budget(1 + 0.75 * (before - 1)), limits(), table)
    assert plan.removed == {inner.name: tuple(range(8))}
    assert plan.cost.milliseconds == pytest.approx(1 + 0.75 * (before - 1))
    assert stream.name in choose(graph, scores, Cost(macs=4e5, parameters=math.inf), limits()).removed


def test_a_network_is_cut_until_it_is_fast_enough_and_no_further(tmp_path: Path) -> None:
    model, clock = seeded(Chain), FakeClock()
    goal = 0.7 * whole_ms(model)
    timed = target(model, tmp_path, clock, target_latency_ms=goal)
    assert clock.timed == timed.networks == 14
    assert timed.teacher_ms == TEACHER_MS
    assert timed.now_ms == pytest.approx(whole_ms(model))
    first, last = timed.goals()
    assert (last, first) == (pytest.approx(goal), pytest.approx(math.sqrt(0.7) * whole_ms(model)))
    result = timed.cut(model, make_scorer(Importance.MAGNITUDE, model), budget(goal))
    assert result.measured_ms <= goal
    assert result.predicted_ms == pytest.approx(result.measured_ms, rel=1e-3)
    assert result.measured_ms == pytest.approx(FakeClock()(result.model).ms)


def test_a_speedup_is_against_the_teacher_whatever_the_machine_does_meanwhile(tmp_path: Path) -> None:
    model = seeded(Chain)
    steady = target(model, tmp_path / "steady", FakeClock(), target_speedup=2.0)
    drifting = target(model, tmp_path / "drifting", FakeClock(drift=1.05), target_speedup=2.0)
    assert steady.target_ms == pytest.approx(TEACHER_MS / 2)
    assert drifting.target_ms / drifting.teacher_ms == pytest.approx(1 / 2)
    assert drifting.table.error < 1e-6


def test_a_measurement_above_the_prediction_corrects_the_table_and_the_cut_goes_on(tmp_path: Path) -> None:
    model, stated = seeded(Chain), Shown()
    whole = whole_ms(model)
    goal = 0.6 * whole
    clock = FakeClock()
    timed = target(model, tmp_path, clock, stated=stated, target_latency_ms=goal)
    # what is cut now is a fifth slower than the calibration said, but for the network as it stands
    clock.law = lambda ms: ms * (1.0 if ms > 0.99 * whole else 1.2)
    result = timed.cut(model, make_scorer(Importance.MAGNITUDE, model), budget(goal))
    assert result.measured_ms <= goal
    lines = [text for text in stated.messages if text.endswith("wanted")]
    assert len(lines) == clock.timed - 14 >= 2
    first = lines[0].split()
    assert float(first[1]) <= goal < float(first[4])
    assert result.measured_ms / result.predicted_ms == pytest.approx(1.0, abs=0.02)


def test_a_cut_that_went_too_far_is_tried_once_more(tmp_path: Path) -> None:
    model = seeded(Chain)
    whole = whole_ms(model)
    goal = 0.7 * whole
    clock = FakeClock()
    timed = target(model, tmp_path, clock, target_latency_ms=goal)
    honest = timed.cut(model, make_scorer(Importance.MAGNITUDE, model), budget(goal)).model
    clock.timed, clock.law = 0, lambda ms: ms if ms > 0.99 * whole else 0.8 * ms
    result = timed.cut(model, make_scorer(Importance.MAGNITUDE, model), budget(goal))
    assert clock.timed == 2
    assert result.measured_ms <= goal
    assert whole_ms(honest) < whole_ms(result.model)


def test_a_target_out_of_reach_says_the_best_possible(tmp_path: Path) -> None:
    model, clock = seeded(Chain), FakeClock()
    with pytest.raises(
        ModelError,
        match=r"Chain cannot be cut to 0\.02 ms \(100\.0x as fast as the teacher\): with round_to = 8 and max_cut ="
        r" 0\.9 the best possible is 0\.\d\d ms \(\d+\.\dx\)\. Ease the target, or take a smaller prune\.round_to, a"
        r" larger prune\.max_cut or a smaller backbone\.",
    ):
        target(model, tmp_path, clock, target_speedup=100.0)
    assert clock.timed == 1


def test_a_target_that_the_machine_then_misses_says_the_best_that_was_measured(tmp_path: Path) -> None:
    model, clock = seeded(Chain), FakeClock()
    timed = target(model, tmp_path, clock, target_latency_ms=0.9 * whole_ms(model))
    clock.law = lambda ms: 3 * ms
    with pytest.raises(ModelError, match=r"the best possible is \d\.\d\d ms"):
        timed.cut(model, make_scorer(Importance.MAGNITUDE, model), budget(0.9 * whole_ms(model)))


def test_a_target_that_holds_already_is_refused(tmp_path: Path) -> None:
    model = seeded(Chain)
    with pytest.raises(
        ModelError,
        match=r"Chain takes 1\.\d\d ms unpruned, which meets the target of 1\.50 ms\. Set prune\.enabled = false,",
    ):
        target(model, tmp_path, FakeClock(), target_latency_ms=1.5)


class Stops(FakeClock):
    def __call__(self, network: nn.Module) -> LayerTiming:
        if self.timed == 5:
            raise KeyboardInterrupt
        return super().__call__(network)


def test_a_calibration_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    model, clock = seeded(Chain), FakeClock()
    goal = 0.7 * whole_ms(model)
    with pytest.raises(KeyboardInterrupt):
        target(model, tmp_path, Stops(), target_latency_ms=goal)
    timed = target(model, tmp_path, clock, target_latency_ms=goal)
    assert clock.timed == 14 - 5
    assert timed.table == target(model, tmp_path / "fresh", FakeClock(), target_latency_ms=goal).table
    (tmp_path / "latency.json").write_text("{")
    target(model, tmp_path, clock, target_latency_ms=goal)
    assert clock.timed == 14 - 5 + 14


def test_the_widths_are_explained_group_by_group(tmp_path: Path) -> None:
    model = seeded(Chain)
    goal = 0.7 * whole_ms(model)
    timed = target(model, tmp_path, FakeClock(), target_latency_ms=goal)
    result = timed.cut(model, make_scorer(Importance.MAGNITUDE, model), budget(goal))
    timed.now_ms = result.measured_ms
    stated = timed.explain(result.model)
    modules = dict(result.model.named_modules())
    assert sorted(g.channels_before for g in stated.groups) == [16, 32]
    assert all(g.channels_after == len(modules[g.name].weight) for g in stated.groups)
    assert any(g.channels_after < g.channels_before for g in stated.groups)
    assert sum(g.before_ms for g in stated.groups) + stated.rest_before_ms == pytest.approx(
        stated.predicted_before_ms
    )
    assert sum(g.after_ms for g in stated.groups) + stated.rest_ms == pytest.approx(stated.predicted_ms)
    assert stated.predicted_before_ms == pytest.approx(stated.measured_before_ms, rel=1e-3)
    assert stated.predicted_ms == pytest.approx(stated.measured_ms, rel=1e-3)
    assert stated.measured_ms <= stated.target_ms == pytest.approx(goal)
