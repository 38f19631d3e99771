"""Results, as frozen dataclasses that travel as JSON both ways.

Every stage returns one record. Units stand in the names: `_ms` milliseconds, `_bytes` bytes, `seconds` seconds.
Paths in records are relative to the run folder, so that a run can be moved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from edgetl.figures import ClassScore, Evaluation, Latency, Machine, from_json, to_json

__all__ = [
    "BenchRecord",
    "BundleRecord",
    "ClassScore",
    "Conditions",
    "DataRecord",
    "EngineRecord",
    "EpochRecord",
    "Evaluation",
    "ExportRecord",
    "Flip",
    "Flips",
    "FoldsRecord",
    "Footprint",
    "GateCheck",
    "GateReport",
    "GroupCut",
    "GroupSensitivity",
    "GroupWidth",
    "HistoryRecord",
    "HistoryRun",
    "Latency",
    "LatencyTrial",
    "LayerTime",
    "LevelChange",
    "LoadgenRecord",
    "Machine",
    "MeasureRecord",
    "NetworkSize",
    "Profile",
    "PruneLatency",
    "PruneRecord",
    "PruneSensitivity",
    "PruneStep",
    "QuantizeRecord",
    "SparseTraining",
    "Spread",
    "TrainRecord",
    "Trend",
    "UnlabelledRecord",
    "VariantScore",
    "Verdict",
    "from_json",
    "to_json",
]

# --- what each stage returns -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of training. `phase` is `head`, `full`, `recover-1`, `distill`, ...

    `loader_wait` is the share of the training time spent waiting for batches. `val_top5` and `val_calibration_error` as
    in `Evaluation`.
    """

    phase: str
    epoch: int
    loss: float
    val_loss: float
    val_top1: float
    val_macro_f1: float
    learning_rate: float
    seconds: float
    images_per_second: float
    loader_wait: float = 0.0
    val_balanced_accuracy: float = 0.0
    val_top5: float | None = None
    val_calibration_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What the data stage found. `counts[split][label]` is a number of images.

    So many images of val and test have `near_copies` in another split (see `edgetl.data.audit`); None where nobody
    looked.
    """

    index: str
    labels: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    skipped: tuple[tuple[str, str], ...]
    sha256: str
    near_copies: int | None = None


@dataclass(frozen=True, kw_only=True)
class UnlabelledRecord:
    """What was found of images without labels: `images` different ones, beside the `held_out` files that are left out
    because they, or near-copies of them, are in the validation or test split, and the `skipped` ones (path, reason)."""

    index: str
    images: int
    held_out: int
    skipped: tuple[tuple[str, str], ...]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """`macs` are multiply-accumulates for one image; `parameters` a count; `size_bytes` of the float32 checkpoint."""

    macs: int
    parameters: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class TrainRecord:
    """A trained network (teacher or student): its checkpoint, its curve, its scores.

    `unlabelled` is the number of different images without labels that taught it.
    """

    checkpoint: str
    backbone: str
    size: NetworkSize
    epochs: tuple[EpochRecord, ...]
    val: Evaluation
    test: Evaluation | None
    seconds: float
    unlabelled: int = 0


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over repeated trainings: its mean and its sample standard deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True, kw_only=True)
class FoldsRecord:
    """Cross-validation: each fold's validation scores, and their spread."""

    folds: tuple[Evaluation, ...]
    top1: Spread
    macro_f1: Spread
    balanced_accuracy: Spread


@dataclass(frozen=True, kw_only=True)
class PruneStep:
    """One cut and its recovery. `top1_cut` is validation accuracy right after the cut, `top1` after recovery.

    Step 0, where there is one, cuts nothing: the network learned to see at the student's input size.

    With a target of the clock, `predicted_ms` is what the latency table, corrected by the step before, said of the cut
    network, and `measured_ms` what the runtime took.

    `kept` is False for a cut that cost too much: pruning stopped before it.
    """

    step: int
    macs: int
    parameters: int
    top1_cut: float
    top1: float
    kept: bool = True
    predicted_ms: float | None = None
    measured_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class GroupWidth:
    """A channel group before and after pruning; milliseconds are predicted, of the layers that make its channels."""

    name: str
    channels_before: int
    channels_after: int
    before_ms: float
    after_ms: float


@dataclass(frozen=True, kw_only=True)
class PruneLatency:
    """What pruning to a target of the clock came to: float32, batch 1, in the runtime.

    Every time is a ratio to the teacher's, whose calls took turns with the network's, times `teacher_ms`, the teacher's
    median. `predicted_*` are the table's before any correction, `rest_*` its share that no group accounts for.
    `table_error` is the table's median relative error on each of its `networks` as predicted from the others.
    """

    target_ms: float
    teacher_ms: float
    predicted_before_ms: float
    measured_before_ms: float
    predicted_ms: float
    measured_ms: float
    rest_before_ms: float
    rest_ms: float
    networks: int
    table_error: float
    groups: tuple[GroupWidth, ...]


@dataclass(frozen=True, kw_only=True)
class SparseTraining:
    """Training towards sparse channels before the first cut.

    `top1` is validation accuracy after it; `near_zero_before` and `near_zero` are the shares of channels whose weights
    are below a tenth of their group's largest, in 0..1.
    """

    top1: float
    near_zero_before: float
    near_zero: float


@dataclass(frozen=True, kw_only=True)
class GroupCut:
    """One channel group cut alone: channels removed, share of the network's multiply-accumulates saved, and
    validation top-1 without any recovery."""

    removed: int
    saved: float
    top1: float


@dataclass(frozen=True, kw_only=True)
class GroupSensitivity:
    """A channel group cut alone, once a share; None where the group is too small for that share."""

    name: str
    channels: int
    cuts: tuple[GroupCut | None, ...]


@dataclass(frozen=True, kw_only=True)
class PruneSensitivity:
    """What cutting each channel group alone costs, in the network's order. `top1` is that of the uncut network with
    batch norms measured as after a cut."""

    shares: tuple[float, ...]
    top1: float
    groups: tuple[GroupSensitivity, ...]


@dataclass(frozen=True, kw_only=True)
class TwoFourRecord:
    """2:4 sparsity: two of every four weights along the input channels are zero in `layers`.

    `left_out` are layers that cannot have it or had better not, with the reason. `zeros` is the share of the network's
    parameters that it set to zero. `top1_cut` is validation accuracy right after that, `top1` after recovery.
    """

    layers: tuple[str, ...]
    left_out: dict[str, str]
    zeros: float
    top1_cut: float
    top1: float


@dataclass(frozen=True, kw_only=True)
class PruneRecord:
    """The pruned network.

    `one_shot` is what a single cut to the target leaves, without recovery: what the steps are to be compared with; None
    where pruning had one step. `network` is the backbone's name where another than the teacher was cut; `before` is the
    uncut network. The other parts are None where they were not asked for.
    """

    checkpoint: str
    before: NetworkSize
    after: NetworkSize
    steps: tuple[PruneStep, ...]
    epochs: tuple[EpochRecord, ...]
    seconds: float
    latency: PruneLatency | None = None
    one_shot: PruneStep | None = None
    sparse: SparseTraining | None = None
    sensitivity: PruneSensitivity | None = None
    two_four: TwoFourRecord | None = None
    network: str = ""


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """A float32 ONNX model.

    `max_difference` is the largest logit difference from torch on `images` real images, relative to the largest
    logit. `top1_agreement` is the share of them with the same best class, in 0..1. `half_weights` is the same model
    with its weights stored in half precision. `two_four_layers` is how many layers of both files have 2:4 sparsity.
    """

    onnx: str
    sha256: str
    size_bytes: int
    opset: int
    images: int
    max_difference: float
    top1_agreement: float
    half_weights: str = ""
    two_four_layers: int = 0


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """What quantizing one layer alone costs.

    `sqnr_db` is the power of its output over that of its quantization noise, in decibels; `divergence` the power that
    the noise has at the logits over that of the logits, to first order.
    """

    name: str
    operator: str
    sqnr_db: float
    divergence: float


@dataclass(frozen=True, kw_only=True)
class RecoveryAttempt:
    """One try for a target and the validation score that it gave, in 0..1."""

    target: str
    name: str
    score: float


@dataclass(frozen=True, kw_only=True)
class QuantizedVariant:
    """A quantized ONNX model. `precision` is that of the arithmetic: `int8`, `mixed`, `fp16`, or `fp32` where the
    stored weights alone are INT8.

    `left_in_float` lists `node (operator): reason`.

    `recovery` names what was done about lost accuracy, `score` is the validation score as the target computes it:
    by integer kernels where this machine has the target's, else with the quantization simulated in float32.
    """

    name: str
    precision: str
    target: str
    onnx: str
    sha256: str
    size_bytes: int
    recovery: str
    score: float
    quantized_nodes: int
    left_in_float: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class QuantizeRecord:
    """The quantized models of a run.

    `metric` names the scores; `floor` is `float_score` less the allowed drop, one image at least. `calibration_key` is
    the hash over the float model, the images and their preprocessing from which the ranges come. `notes` say what was
    not done and why.
    """

    variants: tuple[QuantizedVariant, ...]
    metric: str
    float_score: float
    floor: float
    method: str
    calibration: str
    calibration_key: str
    calibration_images: int
    attempts: tuple[RecoveryAttempt, ...]
    sensitivity: tuple[LayerSensitivity, ...]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class VariantScore:
    """One model variant as measured through the runtime on `machine`. `input` is `float32-nchw` or `uint8-nhwc`."""

    name: str
    precision: str
    target: str
    file: str
    sha256: str
    size_bytes: int
    val: Evaluation
    test: Evaluation | None
    latency: Latency
    input: str = "float32-nchw"


@dataclass(frozen=True, kw_only=True)
class MeasureRecord:
    """All variants and the teacher, timed interleaved in one process.

    `teacher_latency` is the teacher in eager torch (channels_last), batch 1, same threads. `default` names the
    variant that ships, `reason` says why in one sentence, `floor` is the accuracy that a variant must keep.
    """

    variants: tuple[VariantScore, ...]
    teacher_val: Evaluation
    teacher_test: Evaluation | None
    teacher_latency: Latency
    teacher_size_bytes: int
    metric: str
    floor: float
    floor_met: bool
    default: str
    reason: str
    machine: Machine


@dataclass(frozen=True, kw_only=True)
class BundleRecord:
    """The packed bundle."""

    path: str
    sha256: str
    size_bytes: int
    variants: tuple[str, ...]
    default: str


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """A compiled TensorRT engine. `compute_capabilities` as in `("89",)`, empty for the GPU it was compiled on.

    `batch` is the (least, tuned, largest) number of images a call; `variant` and `path` are set where it was
    compiled from a bundle and written. `precision` was asked for; `layers` counts the convolutions and matrix products
    by what they compute in, `exceptions` names those that differ, `evidence` says who vouches for it. `dla_fallback`
    lists layers that a DLA leaves to the GPU. `gpu` and `driver` are those it was compiled on, where it is for them;
    `cached` says that it was built earlier (in `seconds`) and still fits.
    """

    target: str
    compute_capabilities: tuple[str, ...]
    tensorrt_version: str
    batch: tuple[int, int, int]
    size_bytes: int
    sha256: str
    seconds: float
    variant: str = ""
    path: str = ""
    precision: str = ""
    layers: dict[str, int] = field(default_factory=dict)
    exceptions: tuple[str, ...] = ()
    evidence: str = ""
    dla_fallback: tuple[str, ...] = ()
    gpu: str = ""
    driver: str = ""
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class ServeRecord:
    """A bundle's model written for another runtime: `files` below `path`, or `path` itself."""

    variant: str
    path: str
    files: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first layer that computes something else. Errors are norms of differences relative to the right values.

    `layer` and `operator` are the node's in the graph that is right, `tensor` is its result in the other graph;
    `error_before` is that of the layer's inputs. `finite` is False where NaN or infinity came out; `abrupt` is
    False where no layer alone is to blame, and this one adds most.
    """

    layer: str
    operator: str
    tensor: str
    error: float
    error_before: float
    abrupt: bool
    finite: bool


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One step of the parity ladder, compared with the rung `against` that it stands on.

    Errors of logits are relative to the largest logit there, None where they are not finite; `change` is the
    difference in top-1 with its 95% interval. `holds` is None for the first rung and for one that was `skipped`.
    """

    name: str
    kind: str
    against: str = ""
    max_error: float | None = None
    mean_error: float | None = None
    top1_agreement: float | None = None
    top1: float | None = None
    top1_interval: tuple[float, float] | None = None
    change: float | None = None
    change_interval: tuple[float, float] | None = None
    holds: bool | None = None
    reason: str = ""
    skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class LadderRecord:
    """The parity ladder. `first_outside` names the first rung outside its bound, empty where there is none."""

    bundle: str
    images: int
    checkpoint: str
    rungs: tuple[Rung, ...]
    first_outside: str = ""
    divergence: Divergence | None = None

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        ran = [rung for rung in self.rungs if not rung.skipped]
        if not self.first_outside:
            return f"All {len(ran)} rungs agree on {self.images} images, each within its bound."
        rung = next(rung for rung in self.rungs if rung.name == self.first_outside)
        text = f"The first rung outside its bound is {rung.name} ({rung.kind}): {rung.reason}"
        if self.divergence is None:
            return f"{text}."
        found = self.divergence
        layer = f"{found.layer} ({found.operator})" if found.operator else found.layer
        if not found.finite:
            return f"{text}. The first diverging layer is {layer}: NaN or infinity comes out of it."
        if not found.abrupt:
            return (
                f"{text}. No layer alone is to blame; {layer} adds most, from a relative error of "
                f"{found.error_before:.2g} to {found.error:.2g}."
            )
        return (
            f"{text}. The first diverging layer is {layer}: its relative error is {found.error:.2g}, that of its "
            f"inputs {found.error_before:.2g}."
        )


# --- what a device finds out -------------------------------------------------------------------------


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
    """The machine during a measurement of `seconds`; what it does not tell is empty or None.

    `versions` are those of the engines, numpy and the GPU's driver. `clock_mhz` is the mean over cores before and
    after, `throttle_events` what was counted in between, `steal` the share of CPU time that a hypervisor took.
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


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """A node of the engine's graph, or all nodes of one operator: median time a call, and share of all nodes' time.

    `nodes` is 1 for a node. `provider` is where it ran.
    """

    name: str
    operator: str
    provider: str
    nodes: int
    median_ms: float
    share: float


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
class LoadgenRecord:
    """The same scenario driven by MLCommons' load generator, as its own log tells.

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
    `latency` is the model alone; `end_to_end` is from image bytes to prediction, None where not measured.
    For the server scenario: `rate` arrivals a second, `bound_ms` the bound on p99, `holds` whether it is kept.

    `name` is the bundle's own name, `target` the engine. `steady` says whether the warm-up ended with steady calls,
    None where its length was given. `timer_overhead_ns` is the timer's own time, which is subtracted from every
    sample. `pinned` are the cores of the calling thread and of each of the engine's threads. `warnings` say why
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


class Verdict(StrEnum):
    """What a gate says. `unsure` is neither of the others: what was measured does not decide it."""

    PASS = "pass"
    FAIL = "fail"
    UNSURE = "unsure"

    @property
    def text(self) -> str:
        """How tables show it."""
        return {"pass": "passed", "fail": "FAILED", "unsure": "cannot tell"}[self.value]


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    """One comparison with the baseline.

    `change` is current less baseline for scores and shares (in 0..1) and current over baseline less 1 for the rest.
    `interval` is its 95% interval, for latency its 99% interval, for scores the 90% one or little wider, whose lower
    end is the bound that decides. `limit` is the largest change for the worse that passes. `judged` is False where the
    figure is shown but cannot fail.
    """

    name: str
    unit: str
    baseline: float
    current: float
    change: float
    interval: tuple[float, float] | None
    limit: float
    judged: bool
    verdict: Verdict
    sentence: str

    @property
    def passed(self) -> bool:
        """Whether it surely holds, or is not judged."""
        return self.verdict is Verdict.PASS


@dataclass(frozen=True, kw_only=True)
class Flip:
    """An image that one of the two got right: its path in the image set, its class, what was and is predicted."""

    path: str
    label: str
    before: str
    after: str

    @property
    def lost(self) -> bool:
        """Whether it was right and is wrong now."""
        return self.before == self.label


@dataclass(frozen=True, kw_only=True)
class Flips:
    """`lost` images went from right to wrong, `won` from wrong to right; `images` are the first, lost before won."""

    lost: int
    won: int
    images: tuple[Flip, ...]


@dataclass(frozen=True, kw_only=True)
class LatencyTrial:
    """Two models timed in turn, until it was decided whether the candidate is slower than `limit` allows.

    `change` is the candidate's median over the baseline's less 1, estimated from the rounds; `interval` covers the
    true one with a chance of `confidence` at all moments of the trial at once, None where it has no end yet.
    `p99_change` and its 95% bootstrap interval are told, not judged; None where the clock cannot be trusted.
    `baseline_ms` and `current_ms` are all counted calls in order, the same number a round. `seconds` is the time of
    the rounds, before which each ran `warmup` calls; `seconds_needed` estimates what would have decided it, None
    where it was decided or no time would do. `notes` say what was odd: one sentence each.
    """

    verdict: Verdict
    limit: float
    change: float
    interval: tuple[float, float] | None
    confidence: float
    p99_change: float | None
    p99_interval: tuple[float, float] | None
    rounds: int
    seconds: float
    seconds_needed: float | None
    warmup: int
    baseline_ms: tuple[float, ...]
    current_ms: tuple[float, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """What the gate found, check by check.

    `target` is the engine that ran the variant. `trial` stands where two bundles were timed in turn, `flips` where
    there are predictions image by image.
    """

    baseline: str
    current: str
    variant: str
    target: str
    checks: tuple[GateCheck, ...]
    machine: Machine
    trial: LatencyTrial | None = None
    flips: Flips | None = None

    @property
    def verdict(self) -> Verdict:
        """Fail where a judged check fails; else unsure where one is; else pass."""
        found = {check.verdict for check in self.checks if check.judged}
        return next((v for v in (Verdict.FAIL, Verdict.UNSURE) if v in found), Verdict.PASS)

    @property
    def passed(self) -> bool:
        """Whether every judged check passed."""
        return self.verdict is Verdict.PASS

    def sentences(self) -> tuple[str, ...]:
        """One sentence a check: the failed ones first, then the unsure ones."""
        order = (Verdict.FAIL, Verdict.UNSURE, Verdict.PASS)
        return tuple(c.sentence for c in sorted(self.checks, key=lambda c: order.index(c.verdict)))
