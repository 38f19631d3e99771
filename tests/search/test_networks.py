"""Networks of candidates, and how long they take, before they learn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgetl import config
from edgetl.config import Target
from edgetl.inputs.image import Interpolation, PreprocessSpec
from edgetl.measure import timing
from edgetl.records.search import Choice
from edgetl.search.clock import Clock
from edgetl.search.networks import Networks
from edgetl.search.quiet import Bars, Quiet
from edgetl.search.space import MOST, TEACHER
from edgetl.tasks.base import Classification
from edgetl.train.tasks.all import training_task
from tests.data.images import Recorder

TASK = training_task(Classification(labels=("a", "b", "c")))
RECIPE = config.parse(
    {
        "preprocess": {"size": 32},
        "train": {"backbone": "test_efficientnet", "weights": "none"},
        "quantize": {"target": "cpu-x86"},
        "bench": {"threads": 1},
    }
)


def choice(share: float, size: int = 32) -> Choice:
    return Choice(network=TEACHER, size=size, share=share, interpolation=Interpolation.BICUBIC)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks(RECIPE, TASK)


def test_a_network_is_cut_to_its_share(networks: Networks) -> None:
    whole = networks.macs(choice(1.0))
    for share in (0.9, 0.7):
        candidate = networks.cut(choice(share))
        assert candidate.choice.share == share
        assert sum(candidate.work[:2]) <= share * whole
    assert networks.macs(choice(1.0, 64)) > 3 * whole


def test_no_share_is_below_what_a_cut_allows(networks: Networks) -> None:
    smallest = networks.smallest(choice(1.0))
    assert 0.01 < smallest.choice.share == networks.cut(choice(0.01)).choice.share < MOST


def test_blocks_go_and_channels_make_up_the_rest(networks: Networks) -> None:
    residual = replace(choice(0.9), network="mobilenetv3_small_050")
    whole, shallow = networks.cut(residual), networks.cut(replace(residual, share=0.6, depth=0.5))
    assert shallow.choice == replace(residual, share=0.6, depth=0.5)
    assert shallow.work[-1] < whole.work[-1]
    shallowest = replace(residual, depth=1.0)
    assert networks.cut(replace(shallowest, share=MOST)).choice.share < MOST
    assert networks.least(shallowest) < networks.least(residual)
    few = replace(residual, depth=0.01)
    assert networks.depth(few) == 0.0
    assert networks.cut(few).choice == residual


def test_a_network_is_timed_in_each_precision(networks: Networks) -> None:
    spec = PreprocessSpec(size=32)
    reference = TASK.network("test_efficientnet", "none", seed=0, size=32)
    watch = Clock(RECIPE, TASK.spec, spec, reference, Quiet(None))
    timed = watch(networks.smallest(choice(1.0)).model, 32)
    assert [one.precision for one in timed] in (["fp32", "int8"], ["fp32"])
    assert all(one.ms > 0 and one.threads == 1 for one in timed)
    assert 0 < watch.reference_ms < float("inf")
    again = Clock(RECIPE, TASK.spec, spec, reference, Quiet(None), 2 * watch.reference_ms)
    own = watch(reference, 32)[0].ms
    assert again(reference, 32)[0].ms == pytest.approx(2 * own, rel=0.7)
    assert again.reference_ms >= watch.reference_ms


def test_a_network_is_timed_with_one_thread_and_with_all(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    ms = {"0/1": 1.0, "0/2": 3.0, "1/1": 2.0, "1/2": 0.5}  # float32, then INT8
    monkeypatch.setattr(
        timing, "time_interleaved", lambda calls, **_: {name: [ms.get(name, 1.0)] for name in calls}
    )
    reference = TASK.network("test_efficientnet", "none", seed=0, size=32)
    recipe = RECIPE.model_copy(update={"bench": RECIPE.bench.model_copy(update={"threads": 2})})
    timed = Clock(recipe, TASK.spec, PreprocessSpec(size=32), reference, Quiet(None))(reference, 32)
    best = {"fp32": (1.0, 1), "int8": (0.5, 2)}
    assert {one.precision: (one.ms, one.threads) for one in timed}.items() <= best.items()
    assert {one.engine for one in timed} == {"onnxruntime"}
    assert "fp32" in {one.precision for one in timed}


def test_a_network_is_timed_in_each_engine_that_is_a_target(networks: Networks) -> None:
    pytest.importorskip(
        "ai_edge_litert", reason="ai-edge-litert is not installed: pip install ai-edge-litert"
    )
    quantize = RECIPE.quantize.model_copy(update={"target": (Target.LITERT,)})
    watch = Clock(
        RECIPE.model_copy(update={"quantize": quantize}),
        TASK.spec,
        PreprocessSpec(size=32),
        TASK.network("test_efficientnet", "none", seed=0, size=32),
        Quiet(None),
    )
    timed = watch(networks.smallest(choice(1.0)).model, 32)
    assert [one.kind for one in timed] == ["fp32", "fp32 in litert", "int8 in litert"]
    assert all(one.ms > 0 for one in timed)
    assert timed[2].size_bytes < timed[1].size_bytes


def test_others_hold_still_while_one_times(tmp_path) -> None:
    quiet, other = Quiet(tmp_path / "lock"), Quiet(tmp_path / "lock")
    recorder = Recorder()
    with quiet.alone():
        quiet.wait()  # who times waits for nobody
    other.wait()
    bars = Bars(recorder, other)
    bars.message("hidden")
    bars.warning("hidden")
    with bars.task("shown", 1) as task:
        task.advance()
    assert "hidden" not in str(vars(recorder))
