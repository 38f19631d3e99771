from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl.bench import stage
from edgetl.bench.memory import measure_fresh
from edgetl.bench.scenarios import BenchOptions, Scenario, ScenarioResult
from edgetl.bench.stage import BenchInputs, run
from edgetl.bench.statistics import summarise
from edgetl.bench.warmup import WarmUp
from edgetl.errors import BundleError, EdgetlError
from edgetl.files import read_json, sha256_file
from edgetl.records.bench import BenchRecord, Footprint
from edgetl.runtime.targets import EngineName
from tests.bench_stage.bundles import keep_winner, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "colours.edgetl")


@pytest.mark.serial
def test_a_bundle_is_measured_and_the_record_kept(bundle: Path, tmp_path: Path) -> None:
    record = run(BenchOptions(runs=30, warmup=3, threads=1), BenchInputs(bundle=bundle), out=tmp_path)
    assert (record.bundle, record.variant, record.scenario) == ("colours.edgetl", "fp32", "single-stream")
    assert record.bundle_sha256 == sha256_file(bundle)
    assert record.metric == "p90_ms"
    assert record.value == record.latency.p90_ms
    assert (record.latency.runs, len(record.latency.samples_ms), record.latency.threads) == (30, 30, 1)
    assert record.end_to_end is not None
    # Decoding comes on top of the model.
    assert record.end_to_end.p50_ms > record.latency.p50_ms
    assert record.end_to_end.scenario == "single-stream, end to end"
    assert record.footprint.load_ms > 0
    assert record.footprint.peak_memory_bytes > record.footprint.base_memory_bytes > 2**22
    assert record.machine.cores >= 1
    assert (record.name, record.target, record.steady, record.latency.warmup) == ("colours", "cpu", None, 3)
    assert 0 < record.timer_overhead_ns < 1e6
    assert (record.pinned, record.profile, record.loadgen) == ((), None, None)
    assert record.conditions is not None
    assert "onnxruntime" in record.conditions.versions
    assert read_json(tmp_path / "bench.json", BenchRecord) == record


def test_batches_reach_the_model(bundle: Path) -> None:
    options = BenchOptions(scenario=Scenario.OFFLINE, batch=5, runs=4, warmup=0, threads=1, end_to_end=False)
    record = run(options, BenchInputs(bundle=bundle, variant="fp32"))
    assert (record.latency.batch, record.metric, record.end_to_end) == (5, "throughput", None)
    assert record.value == record.latency.throughput > 0


def test_options_add_pinning_layers_and_the_load_generator(bundle: Path) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs: pip install mlcommons-loadgen")
    core = min(os.sched_getaffinity(0))
    options = BenchOptions(runs=12, pin=(core,), end_to_end=False)
    record = run(options, BenchInputs(bundle=bundle), profiled=True, with_loadgen=True)
    assert (record.latency.threads, record.pinned) == (1, (core,))
    assert record.steady is not None
    assert record.latency.warmup >= 30
    assert record.profile is not None
    # Engines name the fused form as they like, and which operator leads is a matter of timing.
    assert any("Conv" in each.operator for each in record.profile.operators)
    assert record.loadgen is not None
    assert (record.loadgen.metric, record.loadgen.queries) == ("p90_ms", 12)
    assert record.loadgen.difference == pytest.approx(record.loadgen.value / record.value - 1)
    assert len(os.sched_getaffinity(0)) >= 1


def test_a_level_that_moves_and_an_unsteady_start_are_in_the_record(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [1.0] * 60 + [1.7] * 60
    latency = summarise(samples, scenario="single-stream", batch=1, threads=1, warmup=1000)
    warm = WarmUp(calls=1000, steady=False, seconds=4.2)
    result = ScenarioResult(latency=latency, metric="p90_ms", value=1.7, warm=warm, overhead_ns=50.0)
    monkeypatch.setattr(stage, "measure", lambda *arguments, **options: result)
    monkeypatch.setattr(stage.conditions, "unfit", lambda: ("The machine runs on battery.",))
    record = run(BenchOptions(runs=120, threads=1, end_to_end=False), BenchInputs(bundle=bundle))
    assert record.steady is False
    assert record.warnings[0] == "The machine runs on battery."
    assert record.warnings[1].startswith("The calls were not steady after 1000 of warm-up (4.2 s)")
    assert record.warnings[-1].startswith(
        "The level of the 120 samples moved at sample 60 from 1 to 1.7 ms (+70%): the machine throttled"
    )


def test_fresh_processes_load_on_the_engine_that_was_chosen_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    path = write_bundle(tmp_path / "tuned.edgetl")
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path))
    keep_winner(path, EngineName.OPENVINO)
    asked = {}

    def fresh(bundle: Path, **options: object) -> Footprint:
        asked.update(options)
        return Footprint(load_ms=1.0, first_ms=1.0, peak_memory_bytes=2, base_memory_bytes=1)

    monkeypatch.setattr(stage, "measure_fresh", fresh)
    record = run(BenchOptions(runs=10, threads=1, end_to_end=False), BenchInputs(bundle=path))
    assert record.target == asked["target"] == "openvino"
    assert record.conditions is not None
    assert "openvino" in record.conditions.versions


def test_an_unknown_variant_is_named(bundle: Path) -> None:
    with pytest.raises(BundleError, match="int8"):
        run(BenchOptions(runs=2), BenchInputs(bundle=bundle, variant="int8"))


def test_a_missing_bundle_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at .*gone\.edgetl"):
        run(BenchOptions(runs=2), BenchInputs(bundle=tmp_path / "gone.edgetl"))


def test_a_fresh_process_that_fails_passes_on_its_message(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=r"could not be loaded in a fresh process: .*gone\.edgetl"):
        measure_fresh(tmp_path / "gone.edgetl", repeats=1)


def test_bench_and_gate_are_free_of_the_host_side() -> None:
    code = (
        "import sys, edgetl.bench.stage, edgetl.bench.memory, edgetl.gate.stage, edgetl.gate.compare\n"
        "heavy = {'torch', 'timm', 'pydantic', 'onnx', 'onnxruntime', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
