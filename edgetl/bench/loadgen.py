"""A scenario driven by MLCommons' load generator (`mlcommons-loadgen`), with the settings of our own loop."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgetl.bench.scenarios import BenchOptions, Scenario, ScenarioResult
from edgetl.bench.timer import quiet_gc
from edgetl.errors import ConfigError
from edgetl.packages import missing
from edgetl.records.bench import LoadgenRecord

_NAMES = {
    Scenario.SINGLE_STREAM: "SingleStream",
    Scenario.MULTI_STREAM: "MultiStream",
    Scenario.OFFLINE: "Offline",
    Scenario.SERVER: "Server",
}
_MARK = ":::MLLOG "
_SETTLE = 5


def import_loadgen() -> Any:
    """Import the load generator.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise missing("mlperf_loadgen") from error
    return mlperf_loadgen


def run(call: Callable[[], object], options: BenchOptions, ours: ScenarioResult) -> LoadgenRecord:
    """Run a scenario under the load generator, right after our own loop.

    Args:
        call: runs the model on `options.images_per_call` images.
        options: the scenario and its lengths.
        ours: what our own loop measured, whose rate of arrivals is taken over.

    Raises:
        MissingDependencyError: the load generator is not installed.
        ConfigError: its log has no result.
    """
    loadgen, failures = import_loadgen(), list[Exception]()
    batch = options.images_per_call

    def issue(samples: Any) -> None:
        # Offline sends all samples as one query, multi-stream as many as one call takes.
        for start in range(0, len(samples), batch):
            try:
                call()
            except Exception as error:
                # It must not reach the generator's thread, which would end the process.
                failures.append(error)
            loadgen.QuerySamplesComplete(
                [loadgen.QuerySampleResponse(s.id, 0, 0) for s in samples[start : start + batch]]
            )

    for _ in range(_SETTLE):
        call()
    with tempfile.TemporaryDirectory() as folder, quiet_gc():
        system = loadgen.ConstructSUT(issue, _nothing)
        library = loadgen.ConstructQSL(batch, batch, _nothing_of, _nothing_of)
        try:
            loadgen.StartTestWithLogSettings(
                system, library, _settings(loadgen, options, ours), _logs(loadgen, folder), "none"
            )
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(system)
        log = (Path(folder) / "mlperf_log_detail.txt").read_text(encoding="utf-8")
    if failures:
        raise failures[0]
    return read_log(log, options.scenario, ours.value)


def read_log(log: str, scenario: Scenario, ours: float) -> LoadgenRecord:
    """Read the generator's detailed log (`mlperf_log_detail.txt`).

    Raises:
        ConfigError: it has no result.
    """
    entries = [json.loads(line.removeprefix(_MARK)) for line in log.splitlines() if line.startswith(_MARK)]
    values: Mapping[str, Any] = {entry["key"]: entry["value"] for entry in entries}
    # Multi-stream reports latencies of queries as well as those of samples.
    middle = "per_query_latency" if scenario is Scenario.MULTI_STREAM else "latency"
    try:
        p50, p90, p99 = (values[f"result_{p}.00_percentile_{middle}_ns"] / 1e6 for p in (50, 90, 99))
        metric, value = {
            Scenario.SINGLE_STREAM: ("p90_ms", p90),
            Scenario.MULTI_STREAM: ("p99_ms", p99),
            Scenario.SERVER: ("p99_ms", p99),
            Scenario.OFFLINE: ("throughput", values.get("result_samples_per_second", 0.0)),
        }[scenario]
        return LoadgenRecord(
            version=str(values["loadgen_version"]).split(" ")[0],
            metric=metric,
            value=value,
            queries=values["result_query_count"],
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            valid=values["result_validity"] == "VALID",
            reason=_reason(values),
            difference=value / ours - 1 if ours else 0.0,
        )
    except KeyError as error:
        raise ConfigError(f"The load generator's log has no {error.args[0]}: it ended early.") from None


def _reason(values: Mapping[str, Any]) -> str:
    if values["result_validity"] == "VALID":
        return ""
    stated = str(values.get("result_invalid_reason", "")) or str(values.get("early_stopping_result", ""))
    return " ".join(stated.replace("*", " ").split())


def _settings(loadgen: Any, options: BenchOptions, ours: ScenarioResult) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, _NAMES[options.scenario])
    settings.mode = loadgen.TestMode.PerformanceOnly
    samples = options.runs * (options.images_per_call if options.scenario is Scenario.OFFLINE else 1)
    settings.min_query_count = settings.max_query_count = samples
    settings.min_duration_ms = settings.max_duration_ms = 0
    # It plans its queries by what it expects.
    expected = max(round(ours.latency.p50_ms * 1e6), 1)
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = expected
    settings.multi_stream_samples_per_query = options.images_per_call
    settings.offline_expected_qps = max(ours.latency.throughput, 1.0)
    settings.server_target_qps = ours.rate or 1.0
    settings.server_target_latency_ns = round(options.bound_ms * 1e6)
    settings.schedule_rng_seed = options.seed
    return settings


def _logs(loadgen: Any, folder: str) -> Any:
    output = loadgen.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = folder, False
    settings = loadgen.LogSettings()
    settings.log_output, settings.enable_trace = output, False
    return settings


def _nothing() -> None:
    """It asks for what is buffered to be flushed."""


def _nothing_of(indices: Any) -> None:
    """It asks for samples to be loaded or freed; they stay in memory."""
