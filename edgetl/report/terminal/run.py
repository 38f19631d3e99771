"""A run and an evaluation as tables in the terminal. Every function prints to the rich console that it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.records.measured import Latency
from edgetl.records.scores import Evaluation
from edgetl.records.variants import MeasureRecord
from edgetl.report import units
from edgetl.report.run import RunReport, headline, ratio, remarks
from edgetl.report.tasks.confusion import class_order, confused_pairs
from edgetl.report.terminal.tables import Head, Line, numbers, pairs, say, table, text

if TYPE_CHECKING:
    from rich.console import Console


_CLASSES_SHOWN = 30
_PAIRS_SHOWN = 5


def run(console: Console, report: RunReport) -> None:
    """What a whole run came to: the headline, every variant, warnings."""
    head, measure = headline(report), report.measure
    eager, shipped = measure.teacher_latency, head.shipped.latency
    split = "test" if head.split == "test" else "validation"
    timed = f"batch {shipped.batch}, {units.counted(shipped.threads, 'thread')}"
    accuracy = f"{units.percent(head.teacher.top1)} -> {units.percent(head.student.top1)} ({units.points(head.points)})"
    bounds = (
        f"95% intervals {' and '.join(units.interval(e.top1_interval) for e in (head.teacher, head.student))}"
    )
    pairs(
        console,
        [
            ("ships", f"{head.shipped.name}, {head.shipped.precision} for {head.shipped.target}"),
            (f"top-1 on {split}", f"{accuracy}, {bounds}"),
            (
                "median latency",
                f"{units.milliseconds(eager.p50_ms)} -> {units.milliseconds(shipped.p50_ms)} "
                f"({_change(head.latency_ratio, 'lower', 'higher')}), {timed}",
            ),
            (
                "size",
                f"{units.bytes_(measure.teacher_size_bytes)} -> {units.bytes_(head.shipped.size_bytes)} "
                f"({_change(head.size_ratio, 'smaller', 'larger')})",
            ),
            ("network", _network_change(report)),
            (
                "floor",
                f"{metric_name(measure)} {units.percent(measure.floor)} {floor_word(measure)}: {measure.reason}",
            ),
            ("time", units.duration(sum(report.stage_seconds.values())) if report.stage_seconds else ""),
        ],
        title=f"{report.name}: teacher in eager torch -> shipped",
    )
    variants(console, measure)
    for warning in report.warnings:
        say(console, f"Warning: {warning}", "bad")


def variants(console: Console, measure: MeasureRecord) -> None:
    """Every variant's accuracy, latency and size beside the teacher's."""
    heads = (
        Head(text="model", keep=True),
        *numbers(
            "size", "val\ntop-1", "test\ntop-1", "macro\nF1", "p50\nms", "p90\nms", "p99\nms", "images\n/s"
        ),
    )
    lines = [
        Line(
            cells=(
                "teacher (torch)",
                units.bytes_(measure.teacher_size_bytes),
                *_scores(measure.teacher_val, measure.teacher_test),
                *_times(measure.teacher_latency),
            )
        )
    ]
    for variant in measure.variants:
        cells = (
            variant.name,
            units.bytes_(variant.size_bytes),
            *_scores(variant.val, variant.test),
            *_times(variant.latency),
        )
        lines.append(Line(cells=cells, tone="strong" if variant.name == measure.default else "plain"))
    table(console, heads, lines)
    noted = [(v.name, ", ".join(remarks(measure, v))) for v in measure.variants]
    if any(text for _, text in noted):
        pairs(console, noted)


def evaluation(console: Console, scores: Evaluation, title: str = "") -> None:
    """Scores of a set of images: the whole, each class (lowest recall first), the most frequent mistakes."""
    pairs(
        console,
        [
            ("images", units.count(scores.images)),
            ("top-1", f"{units.percent(scores.top1)}, 95% interval {units.interval(scores.top1_interval)}"),
            ("macro-F1", units.percent(scores.macro_f1)),
            ("balanced accuracy", units.percent(scores.balanced_accuracy)),
        ],
        title=title,
    )
    order = class_order(scores)
    lines = []
    for i in order[:_CLASSES_SHOWN]:
        c = scores.classes[i]
        recall, f1 = (units.percent(c.recall), units.percent(c.f1)) if c.support else ("-", "-")
        lines.append(Line(cells=(c.label, units.count(c.support), units.percent(c.precision), recall, f1)))
    table(
        console, (*text("class, lowest recall first"), *numbers("images", "precision", "recall", "F1")), lines
    )
    if len(order) > _CLASSES_SHOWN:
        say(console, f"{len(order) - _CLASSES_SHOWN} more classes are left out; --json gives all.", "faint")
    if mistakes := confused_pairs(scores, _PAIRS_SHOWN):
        lines = [
            Line(cells=(true, taken, units.count(n), units.percent(share)))
            for true, taken, n, share in mistakes
        ]
        table(console, (*text("true", "taken for"), *numbers("images", "of the class")), lines)


def _scores(val: Evaluation, test: Evaluation | None) -> tuple[str, str, str]:
    return (
        units.percent(val.top1),
        units.percent(test.top1) if test else "-",
        units.percent((test or val).macro_f1),
    )


def _times(latency: Latency) -> tuple[str, ...]:
    return tuple(
        units.significant(v) for v in (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.throughput)
    )


def _change(value: float, better: str, worse: str) -> str:
    return f"{units.times(value)} {better}" if value >= 1 else f"{units.times(ratio(1, value))} {worse}"


def _network_change(report: RunReport) -> str:
    before, after = report.teacher.size, report.student.size
    return (
        f"{units.count(before.macs)} -> {units.count(after.macs)} MACs, "
        f"{units.count(before.parameters)} -> {units.count(after.parameters)} parameters"
    )


def metric_name(measure: MeasureRecord) -> str:
    """The score that is held to the floor."""
    return units.metric(measure.metric)


def floor_word(measure: MeasureRecord) -> str:
    """Whether the floor is met."""
    return "met" if measure.floor_met else "NOT met"
