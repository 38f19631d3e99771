"""What each stage did to accuracy, size and latency, from the records alone: nothing is measured for it."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.records.scores import value
from edgetl.records.variants import MeasureRecord, VariantScore
from edgetl.report.run import RunReport, float_reference, shipped_variant


@dataclass(frozen=True, kw_only=True)
class Step:
    """What there was after a stage.

    Attributes:
        name: of the stage, as what it gave: `Pruned`.
        what: what its figures are of.
        score: by the metric that the floor is of, on the validation split, in 0..1.
        size_bytes: of the file.
        latency_ms: median of a call at batch 1; None where the stage's network was not timed.
        timed: how it was timed, in words; empty where it was not.
        ships: whether it is what ships.
    """

    name: str
    what: str
    score: float
    size_bytes: int
    latency_ms: float | None
    timed: str = ""
    ships: bool = False


def steps(report: RunReport) -> tuple[Step, ...]:
    """The teacher, and what each stage made of it, in the order of the flow; stages that did nothing are left out.

    Raises:
        ValueError: `measure.default` names no variant.
    """
    measure, shipped = report.measure, shipped_variant(report.measure)
    found = [
        Step(
            name="Teacher",
            what=report.teacher.backbone,
            score=value(measure.teacher_val, measure.metric),
            size_bytes=measure.teacher_size_bytes,
            latency_ms=measure.teacher_latency.p50_ms,
            timed="eager torch",
        )
    ]
    prune = report.prune
    kept = [step for step in prune.steps if step.kept] if prune else []
    if prune and kept and not prune.note and prune.metric == measure.metric:
        last = kept[-1]
        found.append(
            Step(
                name="Pruned",
                what=prune.network or "channels removed",
                score=prune.two_four.score if prune.two_four else last.score,
                size_bytes=prune.after.size_bytes,
                latency_ms=last.measured_ms,
                timed="ONNX Runtime, during pruning" if last.measured_ms else "",
            )
        )
    if report.student.epochs:
        found.append(
            Step(
                name="Distilled",
                what=report.student.backbone,
                score=value(report.student.val, measure.metric),
                size_bytes=report.student.size.size_bytes,
                latency_ms=None,
            )
        )
    if (exported := float_reference([v for v in measure.variants if v.name == "fp32"])) is not None:
        found.append(_variant("Exported", exported, measure))
    if shipped.name != "fp32":
        found.append(_variant("Quantized" if shipped.precision != "fp32" else "Chosen", shipped, measure))
    elif (other := _quantized(measure)) is not None:
        found.append(_variant("Quantized", other, measure))
    return tuple(found)


def _quantized(measure: MeasureRecord) -> VariantScore | None:
    """The fastest variant that computes in fewer bits, where float ships."""
    others = [v for v in measure.variants if v.precision != "fp32"]
    return min(others, key=lambda v: v.latency.p50_ms, default=None)


def _variant(name: str, variant: VariantScore, measure: MeasureRecord) -> Step:
    return Step(
        name=name,
        what=variant.name,
        score=value(variant.val, measure.metric),
        size_bytes=variant.size_bytes,
        latency_ms=variant.latency.p50_ms,
        timed="its engine, in turn with the teacher",
        ships=variant.name == measure.default,
    )
