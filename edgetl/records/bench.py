"""What benchmarks and the history of latency return."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgetl.records.measured import Latency, Machine


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a fresh process needs from nothing to the first prediction.

    `load_ms` is the time to open the bundle, the engine's import included; `first_ms` the first inference;
    `peak_memory_bytes` the process's peak resident memory, `base_memory_bytes` that of Python and numpy before.
    """

    load_ms: float
    first_ms: float
    peak_memory_bytes: int
    base_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The machine during a measurement of `seconds`; what it does not report is empty or None.

    `versions` are those of the engines, numpy and the GPU's driver. `clock_mhz` is the mean over cores before and
    after, `throttle_events` what was counted in between, `steal` the share of CPU time that a hypervisor took, `others`
    the cores that other programs kept busy on average.
    `temperature_c` is by sensor at the end; `power_w` is the mean where there is an energy counter (RAPL, `energy_j`),
    else the reading at the end. `notes` say why a figure is missing.
    """

    seconds: float
    versions: dict[str, str]
    clock_mhz: tuple[float, float] | None = None
    throttle_events: int | None = None
    temperature_c: dict[str, float] = field(default_factory=dict)
    power_w: dict[str, float] = field(default_factory=dict)
    energy_j: dict[str, float] = field(default_factory=dict)
    steal: float | None = None
    notes: tuple[str, ...] = ()
    others: float | None = None


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """A node of the engine's graph, or all nodes of one operator: median time per call, and share of all nodes' time.

    `nodes` is 1 for a node. `provider` is where it ran. `least_ms` is the fastest call's time.
    """

    name: str
    operator: str
    provider: str
    nodes: int
    median_ms: float
    share: float
    least_ms: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Time by layer from the engine's own profiler, over `calls` calls made for it; the slowest first.

    `call_ms` is the median of a whole call while profiled, which is slower than the calls that are timed.
    """

    engine: str
    calls: int
    call_ms: float
    operators: tuple[LayerTime, ...]
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What the machine reaches a second, with so many threads as the model has: multiply-accumulates of a matrix
    product in the engine, in float and in INT8, and bytes read and written by a copy of memory. The fastest of many
    calls each.
    """

    float_macs: float
    int8_macs: float
    copy_bytes: float


@dataclass(frozen=True, kw_only=True)
class LayerReach:
    """A node's work a call and its share of the peaks.

    `macs` are counted from the shapes of convolutions and matrix products as the engine lays them out, filled up to its
    blocks; `bytes` are estimated: inputs, weights and outputs, each once. `precision` is `float` or `int8`, empty where
    nothing is multiplied. `of_peak` is the least time for the multiply-accumulates over `median_ms`, None without any;
    `of_copy` that for the bytes, over 1 where they stood in a cache. Either is None where the profiler's clock, in
    microseconds, read nothing.
    """

    name: str
    operator: str
    precision: str
    median_ms: float
    macs: int
    bytes: int
    of_peak: float | None
    of_copy: float | None


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """A model's work a call against the machine's peaks; `layers` with the slowest first.

    `float_macs` and `int8_macs` are the model's own multiply-accumulates, none filled up; so they may be fewer than the
    layers'.
    `latency_ms` is the median of calls that were not profiled, `least_ms` the time that the multiply-accumulates would
    take at the peaks of their precisions, `of_peak` the one over the other. `of_copy` is the same for the bytes, which
    are estimated as in `LayerReach`.
    """

    threads: int
    peaks: Peaks
    latency_ms: float
    float_macs: int
    int8_macs: int
    bytes: int
    least_ms: float
    of_peak: float
    of_copy: float
    layers: tuple[LayerReach, ...]


@dataclass(frozen=True, kw_only=True)
class LoadgenRecord:
    """The same scenario driven by MLCommons' load generator, as its own log reports.

    `metric` and `value` are as in `BenchRecord`; `valid` is its verdict, which asks for more queries than most runs
    have, and `reason` why. `difference` is its figure over our loop's, less 1.
    """

    version: str
    metric: str
    value: float
    queries: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    valid: bool
    reason: str
    difference: float


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """A benchmark of one variant in one scenario.

    `metric` names the scenario's figure as MLPerf defines it (`p90_ms`, `p99_ms`, `throughput`), `value` is it.
    `latency` is only the model's; `end_to_end` is from image bytes to prediction, None where not measured.
    For the server scenario: `rate` arrivals per second, `bound_ms` the bound on p99, `holds` whether it is met.

    `name` is the bundle's own name, `target` the engine. `steady` says whether the warm-up ended with steady calls,
    None where its length was given. `timer_overhead_ns` is the timer's own time, which is subtracted from every
    sample. `handed_on` is the share of the timed images that a cascade's larger model answered, None of one model.
    `pinned` are the cores of the calling thread and of each of the engine's threads. `warnings` say why
    figures are in doubt.
    """

    bundle: str
    bundle_sha256: str
    variant: str
    scenario: str
    metric: str
    value: float
    latency: Latency
    end_to_end: Latency | None
    footprint: Footprint
    machine: Machine
    rate: float | None = None
    bound_ms: float | None = None
    holds: bool | None = None
    name: str = ""
    target: str = ""
    steady: bool | None = None
    timer_overhead_ns: float = 0.0
    pinned: tuple[int, ...] = ()
    conditions: Conditions | None = None
    warnings: tuple[str, ...] = ()
    profile: Profile | None = None
    loadgen: LoadgenRecord | None = None
    roofline: Roofline | None = None
    handed_on: float | None = None


@dataclass(frozen=True, kw_only=True)
class HistoryRun:
    """One benchmark in the history. `time` is UTC as in `2026-11-24T12:00:00Z`; `commit` ends in `-dirty` where
    files differed from it, and is empty outside of git. `p50_ms` is the median latency of a call.
    """

    time: str
    commit: str
    bundle_sha256: str
    metric: str
    value: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput: float
    load_ms: float
    peak_memory_bytes: int
    warnings: int


@dataclass(frozen=True, kw_only=True)
class LevelChange:
    """The median latency's level moved at `runs[index]`, the first of the new level; milliseconds."""

    index: int
    before_ms: float
    after_ms: float
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Trend:
    """The runs of one subject on one machine, oldest first.

    `spread` is the relative standard deviation of the median latency between runs, None below five runs.
    """

    machine: str
    name: str
    variant: str
    target: str
    scenario: str
    batch: int
    threads: int
    runs: tuple[HistoryRun, ...]
    changes: tuple[LevelChange, ...]
    spread: float | None


@dataclass(frozen=True, kw_only=True)
class HistoryRecord:
    """What a history file holds, a trend a subject."""

    path: str
    trends: tuple[Trend, ...]
