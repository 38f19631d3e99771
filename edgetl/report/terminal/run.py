"""A run and an evaluation as tables in the terminal. Every function prints to the rich console that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from edgetl.records.measured import Latency
from edgetl.records.scores import Evaluation, SetEvaluation, score, value
from edgetl.records.train import TRAINING
from edgetl.records.variants import MeasureRecord
from edgetl.report import units
from edgetl.report.extension import figures
from edgetl.report.run import RunReport, headline, in_doubt, ratio, remarks, timed_twice
from edgetl.report.tasks import classification, detection, multihead, multilabel
from edgetl.report.terminal import unknown
from edgetl.report.terminal.confidence import confidence, coverage
from edgetl.report.terminal.tables import HeaderCell, TableLine, numbers, pairs, say, table
from edgetl.tasks.all import Detail, detail_of
from edgetl.tasks.classification.detail import ClassDetail
from edgetl.tasks.detection.detail import BoxDetail
from edgetl.tasks.multihead.detail import HeadsDetail
from edgetl.tasks.multilabel.detail import TagsDetail

if TYPE_CHECKING:
    from rich.console import Console


def run(console: Console, report: RunReport) -> None:
    """What a whole run came to: the headline, every variant, warnings."""
    head, measure = headline(report), report.measure
    eager, shipped = measure.teacher_latency, head.shipped.latency
    split = "test" if head.split == "test" else "validation"
    timed = f"batch {shipped.batch}, {units.counted(shipped.threads, 'thread')}"
    if eager.threads != shipped.threads:
        timed += f", the teacher's best being {eager.threads}"
    before, after = (score(e, head.metric) for e in (head.teacher, head.student))
    accuracy = f"{units.percent(before.value)} -> {units.percent(after.value)} ({units.points(head.points)})"
    intervals = " and ".join(units.interval(s.interval) for s in (before, after) if s.interval)
    pairs(
        console,
        [
            ("ships", f"{head.shipped.name}, {head.shipped.precision} for {head.shipped.target}"),
            (
                f"{units.metric(head.metric)} on {split}",
                f"{accuracy}{f', 95% intervals {intervals}' if intervals else ''}",
            ),
            (
                "median latency",
                f"{units.milliseconds(eager.p50_ms)} -> {units.milliseconds(shipped.p50_ms)} "
                f"({_change(head.latency_ratio, 'lower', 'higher')}{_doubt(measure)}), {timed}",
            ),
            (
                "size",
                f"{units.bytes_(measure.teacher_size_bytes)} -> {units.bytes_(head.shipped.size_bytes)} "
                f"({_change(head.size_ratio, 'smaller', 'larger')})",
            ),
            ("learned first", _learned_first(report)),
            *(figures(report.teacher.kept) if report.teacher.kept else ()),
            ("network", _network_change(report)),
            (
                "floor",
                f"{metric_name(measure)} {units.percent(measure.floor)} {floor_word(measure)}: {measure.reason}",
            ),
            ("labels", _doubts(report)),
            ("time", units.duration(sum(report.stage_seconds.values())) if report.stage_seconds else ""),
        ],
        title=f"{report.name}: teacher in eager torch -> shipped",
    )
    variants(console, measure)
    confidence(console, measure)
    unknown.chosen(console, measure)
    for warning in report.warnings:
        say(console, f"Warning: {warning}", "bad")


def variants(console: Console, measure: MeasureRecord) -> None:
    """Every variant's accuracy, latency and size compared with the teacher's."""
    names = [name for name, found in measure.teacher_val.scores.items() if found.interval is not None][:2]
    first, *others = (units.metric(name) for name in names)
    figures = (f"val\n{first}", f"test\n{first}", *(title.replace("-", "\n") for title in others))
    both = timed_twice(measure)
    # Both numbers of threads take the place of images per second, which the page has, too: 80 columns are enough.
    last = ("threads", "other\nms") if both else ("images\n/s",)
    heads = (
        HeaderCell(text="model", keep=True),
        *numbers("size", *figures, "p50\nms", "p90\nms", "p99\nms", *last),
    )
    lines = [
        TableLine(
            cells=(
                "teacher (torch)",
                units.bytes_(measure.teacher_size_bytes),
                *_scores(measure.teacher_val, measure.teacher_test, names),
                *_figures(measure.teacher_latency, measure.teacher_other_latency, both=both),
            )
        )
    ]
    for variant in measure.variants:
        cells = (
            variant.name,
            units.bytes_(variant.size_bytes),
            *_scores(variant.val, variant.test, names),
            *_figures(variant.latency, variant.other_latency, both=both),
        )
        lines.append(TableLine(cells=cells, tone="strong" if variant.name == measure.default else "plain"))
    table(console, heads, lines)
    noted = [(v.name, ", ".join(remarks(measure, v))) for v in measure.variants]
    if any(text for _, text in noted):
        pairs(console, noted)


def evaluation(console: Console, scores: Evaluation, title: str = "") -> None:
    """Scores of a set of images: the whole, then what they are made of."""
    figures: list[tuple[str, str]] = []
    for name, found in scores.scores.items():
        if found.interval is not None:
            bounds = "" if figures else f", 95% interval {units.interval(found.interval)}"
            figures.append((units.metric(name), f"{units.percent(found.value)}{bounds}"))
    pairs(console, [("images", units.count(scores.images)), *figures], title=title)
    if isinstance(scores, SetEvaluation) and scores.coverage:
        coverage(console, scores.coverage)
    if isinstance(scores, SetEvaluation) and scores.unknown is not None:
        unknown.separation(console, scores.unknown)
    _detail(console, detail_of(scores))


def _detail(console: Console, detail: Detail) -> None:
    match detail:
        case ClassDetail():
            classification.terminal(console, detail)
        case TagsDetail():
            multilabel.terminal(console, detail)
        case HeadsDetail():
            for title, found in multihead.titles(detail):
                evaluation(console, found, title)
        case BoxDetail():
            detection.terminal(console, detail)
        case _:
            assert_never(detail)


def _scores(val: Evaluation, test: Evaluation | None, names: Sequence[str]) -> tuple[str, ...]:
    first, *others = names
    return (
        units.percent(value(val, first)),
        units.percent(value(test, first)) if test else "-",
        *(units.percent(value(test or val, name)) for name in others),
    )


def _figures(latency: Latency, other: Latency | None, *, both: bool) -> tuple[str, ...]:
    """Percentiles, then images per second; or the better number of threads, and the median with the other one."""
    times = tuple(units.significant(v) for v in (latency.p50_ms, latency.p90_ms, latency.p99_ms))
    if not both:
        return (*times, units.significant(latency.throughput))
    return (*times, units.count(latency.threads), units.other_time(other))


def _change(value: float, better: str, worse: str) -> str:
    return f"{units.times(value)} {better}" if value >= 1 else f"{units.times(ratio(1, value))} {worse}"


def _doubts(report: RunReport) -> str:
    """How many labels may be wrong; empty where none is."""
    found = [one for one in report.doubts.splits if one.candidates] if report.doubts else []
    if not found:
        return ""
    listed = ", ".join(
        f"{units.count(one.candidates)} of {units.count(one.images)} {one.split}" for one in found
    )
    return f"{listed} look doubtful; the report shows the surest"


def _doubt(measure: MeasureRecord) -> str:
    doubt = in_doubt(measure)
    return f"; IN DOUBT, as {doubt}" if doubt else ""


def _network_change(report: RunReport) -> str:
    before, after = report.teacher.size, report.student.size
    return (
        f"{units.count(before.macs)} -> {units.count(after.macs)} MACs, "
        f"{units.count(before.parameters)} -> {units.count(after.parameters)} parameters"
    )


def _learned_first(report: RunReport) -> str:
    """What the backbone learned before it saw the data, and whether that helped; empty where it did not."""
    record, start = report.pretrain, report.teacher.start
    if record is None or start is None:
        return ""
    by = "" if record.kind == "source" else f"{record.kind} on "
    found = start.comparison
    if start.judge == TRAINING:
        whose = "the trained teacher's"
        end = "which helped" if found.helped else "which did not help, so it is not used"
    else:
        whose, end = "a linear probe's", "used in any case"
    return (
        f"{by}{units.counted(record.images, 'image')} in {record.name}: {whose} {units.metric(found.metric)}"
        f" {units.percent(found.before)} -> {units.percent(found.after)}, {end}"
    )


def metric_name(measure: MeasureRecord) -> str:
    """The score that is held to the floor."""
    return units.metric(measure.metric)


def floor_word(measure: MeasureRecord) -> str:
    """Whether the floor is met."""
    return "met" if measure.floor_met else "NOT met"
