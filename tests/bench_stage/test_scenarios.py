from __future__ import annotations

import numpy as np
import pytest

from edgetl.bench.scenarios import BenchOptions, Scenario, arrivals_ns, measure
from edgetl.errors import ConfigError
from tests.bench_stage.test_timer import FakeClock


def _measure(options: BenchOptions, *, call_ms: float = 2.0, clock: FakeClock | None = None):
    clock = clock or FakeClock()
    return measure(lambda: clock.work(call_ms), options, clock=clock, sleep=clock.sleep)


def test_there_are_four_scenarios() -> None:
    assert [s.value for s in Scenario] == ["single-stream", "multi-stream", "offline", "server"]


def test_single_stream_reports_p90() -> None:
    clock = FakeClock()
    durations = iter([9.0] * 5 + list(range(1, 12)))
    result = measure(
        lambda: clock.work(next(durations)), BenchOptions(warmup=5, runs=11), clock=clock, sleep=clock.sleep
    )
    assert result.metric == "p90_ms"
    assert result.value == result.latency.p90_ms == pytest.approx(10.0)
    assert (result.latency.scenario, result.latency.batch, result.latency.runs) == ("single-stream", 1, 11)
    assert result.holds is None


def test_multi_stream_takes_eight_images_a_query_and_reports_p99() -> None:
    result = _measure(BenchOptions(scenario=Scenario.MULTI_STREAM, runs=20))
    assert (result.metric, result.value) == ("p99_ms", pytest.approx(2.0))
    assert result.latency.batch == 8
    assert result.latency.throughput == pytest.approx(8 * 1000 / 2.0)


def test_offline_reports_throughput_over_the_whole_stretch() -> None:
    options = BenchOptions(scenario=Scenario.OFFLINE, batch=4, runs=10, warmup=1)
    result = _measure(options, call_ms=5.0)
    assert result.metric == "throughput"
    assert result.value == pytest.approx(4 * 1000 / 5.0)
    assert len(result.latency.samples_ms) == 10
    assert BenchOptions(scenario=Scenario.OFFLINE).images_per_call == 32


def test_server_counts_waiting_in_line() -> None:
    """An M/D/1 queue waits load / (2 (1 - load)) services on average (Pollaczek and Khinchine)."""
    means = {}
    for rate in (50.0, 450.0):
        options = BenchOptions(scenario=Scenario.SERVER, rate=rate, runs=8_000, warmup=1, bound_ms=15.0)
        result = _measure(options, call_ms=2.0)
        load = rate * 0.002
        means[rate] = result.latency.mean_ms
        assert result.latency.mean_ms == pytest.approx(2.0 + 2.0 * load / (2 * (1 - load)), rel=0.12)
        assert result.rate == rate
        assert min(result.latency.samples_ms) >= 2.0 - 1e-6
    assert means[450.0] > 2 * means[50.0]


def test_server_says_whether_the_bound_holds() -> None:
    calm = _measure(BenchOptions(scenario=Scenario.SERVER, rate=50.0, runs=500, bound_ms=15.0))
    assert (calm.metric, calm.holds, calm.bound_ms) == ("p99_ms", True, 15.0)
    flooded = _measure(BenchOptions(scenario=Scenario.SERVER, rate=1000.0, runs=500, bound_ms=15.0))
    assert flooded.holds is False
    assert flooded.value > 100
    assert flooded.latency.throughput == pytest.approx(500, rel=0.01)


def test_server_chooses_half_of_what_the_model_can_serve() -> None:
    assert _measure(BenchOptions(scenario=Scenario.SERVER, runs=10)).rate == pytest.approx(250.0)


def test_server_works_on_the_real_clock() -> None:
    options = BenchOptions(scenario=Scenario.SERVER, rate=400.0, runs=40, warmup=2, bound_ms=5000.0)
    result = measure(lambda: None, options)
    assert result.holds
    assert 5 < result.latency.throughput < 800


def test_arrivals_are_a_repeatable_poisson_process() -> None:
    times = np.array(arrivals_ns(100.0, 20_000, seed=3)) / 1e9
    gaps = np.diff(times)
    assert (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(0.01, rel=0.03)
    assert gaps.std() == pytest.approx(0.01, rel=0.03)
    assert arrivals_ns(100.0, 50, seed=3) == arrivals_ns(100.0, 50, seed=3)
    assert arrivals_ns(100.0, 50, seed=3) != arrivals_ns(100.0, 50, seed=4)


def test_threads_default_to_the_usable_cores() -> None:
    assert BenchOptions().engine_threads >= 1
    assert BenchOptions(threads=3).engine_threads == 3


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        BenchOptions(batch=0, threads=0, warmup=-1, runs=0, rate=-2.0, bound_ms=0.0)
    assert caught.value.problems == (
        "batch is 0, expected 1 or more.",
        "batch is set by single-stream; only offline takes one.",
        "threads is 0, expected 1 or more.",
        "warmup is -1, expected 0 or more.",
        "runs is 0, expected 1 or more.",
        "rate is -2.0, expected more than 0.",
        "rate is of no use to single-stream; only server takes one.",
        "bound_ms is 0.0, expected more than 0.",
    )
