"""What a run's report holds, the figures that stand at its head, and writing it to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from edgetl.bench.conditions import BUSY_CORES
from edgetl.bench.statistics import EQUAL, median_ratio
from edgetl.records.adapt import AdaptRecord
from edgetl.records.doubts import DoubtsRecord
from edgetl.records.measured import Latency
from edgetl.records.mistakes import MistakesRecord
from edgetl.records.prune import PruneRecord
from edgetl.records.scores import Evaluation, value
from edgetl.records.train import DataRecord, PretrainRecord, TrainRecord
from edgetl.records.variants import (
    BundleRecord,
    ExportRecord,
    MeasureRecord,
    QuantizedVariant,
    QuantizeRecord,
    VariantScore,
)
from edgetl.report import units
from edgetl.tasks.all import task_of
from edgetl.tasks.base import TaskSpec


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything that a run found out, in the order of the flow.

    Attributes:
        name: the run's name.
        recipe: the recipe as TOML with every default explicit.
        task: what was asked of an image.
        pretrain: None where nothing was learned before the data.
        adapt: None where the teacher was not adapted to another domain.
        prune: None where pruning was off.
        quantize: None where quantization was off.
        stage_seconds: wall time of each stage; a stage that was not redone keeps its first time.
        warnings: sentences that the user should act on.
        provenance: name to value, e.g. `edgetl`, `git commit`, `recipe sha256`, package versions.
        created: when the report was written, as text.
        mistakes: what the shipped variant is most sure of and wrong about; None where the task has no such list.
        doubts: labels that may be wrong; None where nobody looked.
    """

    name: str
    recipe: str
    task: TaskSpec
    data: DataRecord
    teacher: TrainRecord
    prune: PruneRecord | None
    student: TrainRecord
    export: ExportRecord
    quantize: QuantizeRecord | None
    measure: MeasureRecord
    bundle: BundleRecord
    stage_seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)
    created: str = ""
    pretrain: PretrainRecord | None = None
    adapt: AdaptRecord | None = None
    mistakes: MistakesRecord | None = None
    doubts: DoubtsRecord | None = None

    @property
    def followed(self) -> TrainRecord:
        """The teacher that pruning and the student follow: with the scores of its adaptation, where there was one."""
        if self.adapt is None:
            return self.teacher
        found = self.adapt
        return replace(self.teacher, val=found.val, test=found.test, seconds=found.seconds)


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The figures of the shipped variant compared with the teacher's.

    Attributes:
        shipped: the default variant.
        split: the split that `teacher` and `student` were scored on: test where the run has one, else val.
        teacher: the teacher's scores on `split`.
        student: the shipped variant's scores on `split`.
        metric: the first of the task's metrics.
        points: it of the shipped variant less the teacher's, in percentage points.
        latency_ratio: median latency of the teacher in eager torch over that of the shipped variant.
        latency_interval: 95% bootstrap interval of `latency_ratio`; None where raw samples were not stored.
        size_ratio: bytes of the teacher's checkpoint over those of the shipped model.
    """

    shipped: VariantScore
    split: Literal["test", "val"]
    teacher: Evaluation
    student: Evaluation
    metric: str
    points: float
    latency_ratio: float
    latency_interval: tuple[float, float] | None
    size_ratio: float


def headline(report: RunReport) -> Headline:
    """Work out the figures at the report's head.

    Raises:
        ValueError: `measure.default` names no variant.
    """
    measure = report.measure
    shipped = shipped_variant(measure)
    on_test = measure.teacher_test is not None and shipped.test is not None
    teacher = measure.teacher_test if on_test and measure.teacher_test else measure.teacher_val
    student = shipped.test if on_test and shipped.test else shipped.val
    metric = task_of(report.task).metrics[0].name
    return Headline(
        shipped=shipped,
        split="test" if on_test else "val",
        teacher=teacher,
        student=student,
        metric=metric,
        points=100.0 * (value(student, metric) - value(teacher, metric)),
        latency_ratio=ratio(measure.teacher_latency.p50_ms, shipped.latency.p50_ms),
        latency_interval=_ratio_interval(measure.teacher_latency, shipped.latency),
        size_ratio=ratio(measure.teacher_size_bytes, shipped.size_bytes),
    )


def _ratio_interval(teacher: Latency, shipped: Latency) -> tuple[float, float] | None:
    if len(teacher.samples_ms) < 2 or len(shipped.samples_ms) < 2 or shipped.p50_ms <= 0:
        return None
    paired = len(teacher.samples_ms) == len(shipped.samples_ms)
    found = median_ratio(shipped.samples_ms, teacher.samples_ms, paired=paired)
    return found.low, found.high


def shipped_variant(measure: MeasureRecord) -> VariantScore:
    """The variant that `measure.default` names.

    Raises:
        ValueError: there is no such variant.
    """
    for variant in measure.variants:
        if variant.name == measure.default:
            return variant
    names = ", ".join(v.name for v in measure.variants) or "none"
    raise ValueError(f"measure.default is {measure.default!r}, expected one of: {names}")


def ratio(of: float, to: float) -> float:
    """`of / to`; 0 where `to` is 0."""
    return of / to if to else 0.0


def float_reference(variants: Sequence[VariantScore]) -> VariantScore | None:
    """The fastest float32 variant, which other variants are compared with; None where there is none."""
    floats = [v for v in variants if v.precision in ("fp32", "float32")]
    return min(floats, key=lambda v: v.latency.p50_ms, default=None)


def timed_twice(measure: MeasureRecord) -> bool:
    """Whether one thread and several were timed."""
    return any(
        one is not None
        for one in (measure.teacher_other_latency, *(v.other_latency for v in measure.variants))
    )


def in_doubt(measure: MeasureRecord) -> str:
    """What must stand beside a ratio of latencies that were measured on a machine at work; empty where it was calm."""
    seen = measure.conditions
    if seen is not None and seen.others is not None and seen.others >= BUSY_CORES:
        return f"the machine was busy: other programs took {seen.others:.1f} of its {measure.machine.cores} cores"
    return "the machine was not steady" if measure.doubts else ""


def remarks(measure: MeasureRecord, variant: VariantScore) -> tuple[str, ...]:
    """What must be said about a variant: default, slower than float (beyond `EQUAL`), below the floor."""
    found = []
    if variant.name == measure.default:
        found.append("default")
    reference = float_reference(measure.variants)
    if reference is not None and variant.precision != reference.precision:
        slowdown = ratio(variant.latency.p50_ms, reference.latency.p50_ms)
        if slowdown > EQUAL:
            found.append(f"{slowdown:.2f}x slower than float")
    if value(variant.val, measure.metric) < measure.floor:
        found.append("below the floor")
    return tuple(found)


def quantized_cells(variant: QuantizedVariant) -> tuple[str, ...]:
    """Name, size, recovery, score, and how many nodes are quantized and left in float."""
    return (
        variant.name,
        units.bytes_(variant.size_bytes),
        variant.recovery,
        units.percent(variant.score),
        str(variant.quantized_nodes),
        str(len(variant.left_in_float)),
    )
