"""Load patterns as MLPerf Inference names them (Reddi et al. 2020), in a light loop of our own.

single-stream   one image after the other; figure: 90th percentile of latency
multi-stream    queries of 8 images; figure: 99th percentile of latency
offline         all images at hand, in batches; figure: throughput
server          queries of one image arrive as a Poisson process, wait in line, and are served one at a time;
                latency counts from arrival; figure: 99th percentile, which must keep a bound
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from edgetl.bench.clock import less_overhead, overhead_ns
from edgetl.bench.statistics import percentile, summarise
from edgetl.bench.timer import Clock, quiet_gc, time_calls
from edgetl.bench.warmup import WarmUp, warm_up
from edgetl.errors import ConfigError
from edgetl.process import usable_cores
from edgetl.progress import SILENT, Progress
from edgetl.records.measured import Latency

MULTI_STREAM_IMAGES = 8
_OFFLINE_BATCH = 32
_REPORTS = 20
# Sleeping is coarse: the last stretch before an arrival is waited out awake.
_AWAKE_NS = 1_000_000
_SHARE_OF_CAPACITY = 0.5
_SERVICE_RUNS = 20


class Scenario(StrEnum):
    """How queries come in."""

    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"
    OFFLINE = "offline"
    SERVER = "server"


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is measured, and how long.

    Attributes:
        scenario: the load pattern.
        batch: images per call, only for offline; its default is 32. The other scenarios fix theirs.
        threads: threads of the engine; every usable core where unset.
        warmup: calls before the first sample; until they are steady where unset.
        runs: samples.
        rate: server: mean arrivals per second; half of what the model can serve where unset.
        bound_ms: server: the bound on the 99th percentile (MLPerf's for ResNet-50 is 15 ms).
        pin: cores, the first for the calling thread and the others for the engine's; no pinning where empty.
        end_to_end: also measure from image bytes to prediction.
        seed: of the arrivals and of made-up inputs.

    Raises:
        ConfigError: with all problems at once.
    """

    scenario: Scenario = Scenario.SINGLE_STREAM
    batch: int | None = None
    threads: int | None = None
    warmup: int | None = None
    runs: int = 200
    rate: float | None = None
    bound_ms: float = 15.0
    pin: tuple[int, ...] = ()
    end_to_end: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        server, offline = self.scenario is Scenario.SERVER, self.scenario is Scenario.OFFLINE
        rules = [
            (self.batch is None or self.batch >= 1, f"batch is {self.batch}, expected 1 or more."),
            (self.batch is None or offline, f"batch is set by {self.scenario}; only offline takes one."),
            (self.threads is None or self.threads >= 1, f"threads is {self.threads}, expected 1 or more."),
            (self.warmup is None or self.warmup >= 0, f"warmup is {self.warmup}, expected 0 or more."),
            (self.runs >= 1, f"runs is {self.runs}, expected 1 or more."),
            (self.rate is None or self.rate > 0, f"rate is {self.rate}, expected more than 0."),
            (self.rate is None or server, f"rate is of no use to {self.scenario}; only server takes one."),
            (self.bound_ms > 0, f"bound_ms is {self.bound_ms}, expected more than 0."),
        ]
        if problems := [sentence for holds, sentence in rules if not holds]:
            raise ConfigError(problems)

    @property
    def engine_threads(self) -> int:
        """Threads of the engine, as a number."""
        return self.threads or len(self.pin) or usable_cores()

    @property
    def images_per_call(self) -> int:
        """Images in each call of the engine."""
        match self.scenario:
            case Scenario.SINGLE_STREAM | Scenario.SERVER:
                return 1
            case Scenario.MULTI_STREAM:
                return MULTI_STREAM_IMAGES
            case Scenario.OFFLINE:
                return self.batch or _OFFLINE_BATCH
            case _:
                assert_never(self.scenario)


@dataclass(frozen=True, kw_only=True)
class ScenarioResult:
    """Latency with raw samples, and the scenario's figure: `metric` is its name, `value` it.

    `warm` is the warm-up, `overhead_ns` what the timer costs a sample, which is subtracted. `rate`, `bound_ms` and
    `holds` belong to the server scenario.
    """

    latency: Latency
    metric: str
    value: float
    warm: WarmUp
    overhead_ns: float
    rate: float | None = None
    bound_ms: float | None = None
    holds: bool | None = None


def measure(
    call: Callable[[], object],
    options: BenchOptions,
    *,
    clock: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
    progress: Progress = SILENT,
) -> ScenarioResult:
    """Run a scenario.

    Args:
        call: runs the model on `options.images_per_call` images.
        options: the scenario and its lengths.
        clock: the clock in nanoseconds; a fake one in tests.
        sleep: waits seconds; a fake one in tests.
        progress: shows the samples, seldom.
    """
    overhead = overhead_ns(clock)
    warm = warm_up(call, options.warmup, clock=clock)
    match options.scenario:
        case Scenario.SINGLE_STREAM:
            latency = _closed_loop(call, options, warm, overhead, clock, progress)
            figure = ("p90_ms", latency.p90_ms)
        case Scenario.MULTI_STREAM:
            latency = _closed_loop(call, options, warm, overhead, clock, progress)
            figure = ("p99_ms", latency.p99_ms)
        case Scenario.OFFLINE:
            latency = _offline(call, options, warm, overhead, clock, progress)
            figure = ("throughput", latency.throughput)
        case Scenario.SERVER:
            return _server(call, options, warm, overhead, clock, sleep, progress)
        case _:
            assert_never(options.scenario)
    return ScenarioResult(latency=latency, metric=figure[0], value=figure[1], warm=warm, overhead_ns=overhead)


def arrivals_ns(rate: float, count: int, seed: int) -> list[int]:
    """Arrival times of a Poisson process from 0, in nanoseconds; the same for the same seed."""
    generator, now, times = random.Random(seed), 0.0, []
    for _ in range(count):
        now += generator.expovariate(rate)
        times.append(int(now * 1e9))
    return times


def _closed_loop(
    call: Callable[[], object],
    options: BenchOptions,
    warm: WarmUp,
    overhead: float,
    clock: Clock,
    progress: Progress,
) -> Latency:
    samples = time_calls(call, warmup=0, runs=options.runs, clock=clock, progress=progress)
    return _summary(samples, options, warm, overhead)


def _offline(
    call: Callable[[], object],
    options: BenchOptions,
    warm: WarmUp,
    overhead: float,
    clock: Clock,
    progress: Progress,
) -> Latency:
    """Throughput over the whole stretch, so that what happens between calls counts too."""
    samples, images = [], options.runs * options.images_per_call
    with progress.task("Timing offline", options.runs) as bar, quiet_gc():
        first = last = clock()
        for _ in range(options.runs):
            call()
            now = clock()
            samples.append((now - last) / 1e6)
            last = now
        bar.advance(options.runs)
    throughput = images * 1e9 / (last - first) if last > first else 0.0
    return _summary(samples, options, warm, overhead, throughput)


def _server(
    call: Callable[[], object],
    options: BenchOptions,
    warm: WarmUp,
    overhead: float,
    clock: Clock,
    sleep: Callable[[float], None],
    progress: Progress,
) -> ScenarioResult:
    rate = options.rate
    if rate is None:
        service = time_calls(call, warmup=0, runs=_SERVICE_RUNS, clock=clock)
        rate = _SHARE_OF_CAPACITY * 1000.0 / max(percentile(service, 50), 1e-3)
    plan = arrivals_ns(rate, options.runs, options.seed)
    samples, stride = [], max(1, options.runs // _REPORTS)
    with progress.task(f"Serving {rate:.1f} queries per second", options.runs) as bar, quiet_gc():
        origin = clock()
        for number, offset in enumerate(plan, 1):
            _wait_until(origin + offset, clock, sleep)
            call()
            # From the arrival, not from the start of service: waiting in line is the user's time too.
            samples.append((clock() - origin - offset) / 1e6)
            if number % stride == 0:
                bar.advance(stride)
        elapsed = clock() - origin
    served = options.runs * 1e9 / elapsed if elapsed else 0.0
    latency = _summary(samples, options, warm, overhead, served)
    return ScenarioResult(
        latency=latency,
        metric="p99_ms",
        value=latency.p99_ms,
        rate=rate,
        bound_ms=options.bound_ms,
        holds=latency.p99_ms <= options.bound_ms,
        warm=warm,
        overhead_ns=overhead,
    )


def _wait_until(moment: int, clock: Clock, sleep: Callable[[float], None]) -> None:
    while (left := moment - clock()) > 0:
        sleep(max(0, left - _AWAKE_NS) / 1e9)


def _summary(
    samples: list[float],
    options: BenchOptions,
    warm: WarmUp,
    overhead: float,
    throughput: float | None = None,
) -> Latency:
    return summarise(
        less_overhead(samples, overhead),
        scenario=options.scenario.value,
        batch=options.images_per_call,
        threads=options.engine_threads,
        warmup=warm.calls,
        throughput=throughput,
    )
