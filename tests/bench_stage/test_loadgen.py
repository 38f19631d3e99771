from __future__ import annotations

import json
import time

import pytest

from edgetl.bench import loadgen
from edgetl.bench.loadgen import read_log
from edgetl.bench.scenarios import BenchOptions, Scenario, measure
from edgetl.errors import ConfigError, MissingDependencyError

_LOG = {
    "loadgen_version": "6.0.17 @ d6147c7eb7",
    "result_validity": "INVALID",
    "result_invalid_reason": "",
    "early_stopping_result": " * Only processed 100 queries.  * Need to process at least 662 queries.",
    "result_query_count": 100,
    "result_50.00_percentile_latency_ns": 2_000_000,
    "result_90.00_percentile_latency_ns": 2_200_000,
    "result_99.00_percentile_latency_ns": 9_000_000,
    "result_50.00_percentile_per_query_latency_ns": 16_000_000,
    "result_90.00_percentile_per_query_latency_ns": 17_000_000,
    "result_99.00_percentile_per_query_latency_ns": 24_000_000,
    "result_samples_per_second": 480.5,
}


def _log(**changes: object) -> str:
    values = {**_LOG, **changes}
    lines = [f":::MLLOG {json.dumps({'key': k, 'value': v})}" for k, v in values.items() if v is not None]
    return "\n".join(["something else", *lines])


def test_each_scenario_s_figure_is_taken_from_the_log() -> None:
    single = read_log(_log(), Scenario.SINGLE_STREAM, 2.0)
    assert (single.metric, single.value, single.difference) == ("p90_ms", 2.2, pytest.approx(0.1))
    assert (single.version, single.queries, single.p50_ms, single.p99_ms) == ("6.0.17", 100, 2.0, 9.0)
    assert (single.valid, single.reason) == (
        False,
        "Only processed 100 queries. Need to process at least 662 queries.",
    )
    assert read_log(_log(), Scenario.MULTI_STREAM, 24.0).value == 24.0
    assert read_log(_log(), Scenario.SERVER, 9.0).value == 9.0
    assert read_log(_log(), Scenario.OFFLINE, 500.0).value == 480.5
    valid = read_log(_log(result_validity="VALID"), Scenario.OFFLINE, 500.0)
    assert (valid.valid, valid.reason) == (True, "")


def test_a_log_without_a_result_is_said() -> None:
    with pytest.raises(ConfigError, match="log has no result_query_count: it ended early"):
        read_log(_log(result_query_count=None), Scenario.SERVER, 1.0)


def test_an_absent_generator_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlperf_loadgen", None)
    with pytest.raises(MissingDependencyError, match=r"pip install mlcommons-loadgen"):
        loadgen.import_loadgen()


@pytest.mark.parametrize("scenario", list(Scenario))
def test_the_real_generator_makes_the_queries_that_were_asked_for(scenario: Scenario) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs: pip install mlcommons-loadgen")
    made = []

    def call() -> None:
        made.append(1)
        time.sleep(0.001)

    options = BenchOptions(scenario=scenario, warmup=2, runs=20, threads=1)
    ours = measure(call, options)
    made.clear()
    found = loadgen.run(call, options, ours)
    samples = 20 * 32 if scenario is Scenario.OFFLINE else 20
    assert found.queries == (1 if scenario is Scenario.OFFLINE else 20)
    assert len(made) == loadgen._SETTLE + (samples // 32 if scenario is Scenario.OFFLINE else 20)
    assert found.metric == ours.metric
    assert found.p50_ms >= 1.0


def test_an_error_of_the_model_comes_out_of_the_generator() -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs: pip install mlcommons-loadgen")
    options = BenchOptions(warmup=0, runs=10, threads=1)
    ours, left = measure(lambda: None, options), iter(range(loadgen._SETTLE + 3))

    def call() -> None:
        if next(left, None) is None:
            raise RuntimeError("broken model")

    with pytest.raises(RuntimeError, match="broken model"):
        loadgen.run(call, options, ours)
