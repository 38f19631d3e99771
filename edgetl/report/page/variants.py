"""The page's parts about what came out: variants, accuracy by class, latency."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.records.measured import Latency
from edgetl.records.scores import Evaluation, score, value
from edgetl.records.variants import MeasureRecord
from edgetl.report import units
from edgetl.report.page.charts import TEACHER, accuracy_latency, latency_cdf, series_class
from edgetl.report.page.markup import (
    Column,
    Markup,
    Row,
    figure,
    legend,
    table,
    tag,
)
from edgetl.report.run import RunReport, remarks, timed_twice
from edgetl.tasks.all import task_of
from edgetl.tasks.base import MetricSpec


def _columns(metrics: Sequence[MetricSpec], *, both: bool) -> tuple[Column, ...]:
    first, *others = metrics[:2]
    return (
        Column(header="Model"),
        Column(header="Precision"),
        Column(header="Target", hint="what the variant was made for"),
        Column(header="Size", number=True),
        Column(header=f"Val {first.title}", number=True, hint="with its 95% interval"),
        Column(header=f"Test {first.title}", number=True, hint="with its 95% interval"),
        *(
            Column(
                header=units.metric_title(m.name),
                number=True,
                hint="on test where there is one, else on validation",
            )
            for m in others
        ),
        Column(header="p50 ms", number=True),
        Column(header="p90 ms", number=True),
        Column(header="p99 ms", number=True),
        *_last_columns(both),
        Column(header="Remarks"),
    )


def _last_columns(both: bool) -> tuple[Column, ...]:
    """Images per second follow from the median; where there are two of it, there is no room for them."""
    if not both:
        return (Column(header="Images/s", number=True),)
    return (
        Column(header="Threads", number=True, hint="the number that it is faster with"),
        Column(header="Other ms", number=True, hint="p50 with the other number of threads"),
    )


def variants(report: RunReport) -> Markup:
    """Accuracy against latency, and every variant's figures."""
    measure, metrics = report.measure, task_of(report.task).metrics
    floor = units.percent(measure.floor)
    rule = f"What ships is the fastest variant that keeps the floor of {floor}."
    if not measure.floor_met:
        rule = f"No variant keeps the floor of {floor}; the default is the one that comes nearest."
    lead = (
        "Every variant was scored and timed through the runtime that will run it, "
        f"interleaved with the teacher in one process. {rule}"
    )
    caption = (
        "Upper left is better. The ring marks what ships; below the dashed line no variant may ship. "
        + ("Bars are 95% intervals." if score(measure.teacher_val, measure.metric).interval else "")
    )
    chart = figure(lambda width: accuracy_latency(measure, width), caption.strip())
    both = timed_twice(measure)
    rows = [_teacher_row(measure, metrics, both=both)]
    for i, variant in enumerate(measure.variants):
        name = tag(
            "span", _swatch(series_class(i)), variant.name, css="named" if len(variant.name) <= 22 else ""
        )
        default = variant.name == measure.default
        rows.append(
            Row(
                cells=(
                    name,
                    variant.precision,
                    variant.target,
                    units.bytes_(variant.size_bytes),
                    *_scores(variant.val, variant.test, metrics),
                    *_times(variant.latency),
                    *_last(both, variant.latency, variant.other_latency),
                    Markup("".join(_remark(text) for text in remarks(measure, variant))),
                ),
                css="default" if default else "",
            )
        )
    return Markup(tag("p", lead, css="lead") + chart + table(_columns(metrics, both=both), rows, "Variants"))


def _teacher_row(measure: MeasureRecord, metrics: Sequence[MetricSpec], *, both: bool) -> Row:
    return Row(
        cells=(
            tag("span", _swatch("st"), TEACHER, css="named"),
            "fp32",
            "host",
            units.bytes_(measure.teacher_size_bytes),
            *_scores(measure.teacher_val, measure.teacher_test, metrics),
            *_times(measure.teacher_latency),
            *_last(both, measure.teacher_latency, measure.teacher_other_latency),
            "",
        )
    )


def _swatch(css: str) -> Markup:
    return tag("i", css=f"swatch {css}", aria_hidden="true")


def _remark(text: str) -> Markup:
    css = "good" if text == "default" else "bad" if "floor" in text else "warn"
    return tag("span", text, css=f"tag {css}")


def _scores(val: Evaluation, test: Evaluation | None, metrics: Sequence[MetricSpec]) -> tuple[str, ...]:
    first, *others = (m.name for m in metrics[:2])
    return (
        _score(val, first),
        _score(test, first) if test else "–",
        *(units.percent(value(test or val, name)) for name in others),
    )


def _score(evaluation: Evaluation, metric: str) -> Markup:
    found = score(evaluation, metric)
    bounds = tag("span", units.interval(found.interval), css="range") if found.interval else ""
    return tag("span", units.percent(found.value), bounds)


def _times(latency: Latency) -> tuple[str, ...]:
    return tuple(units.significant(figure_) for figure_ in (latency.p50_ms, latency.p90_ms, latency.p99_ms))


def _last(both: bool, latency: Latency, other: Latency | None) -> tuple[str, ...]:
    if not both:
        return (units.significant(latency.throughput),)
    return (units.count(latency.threads), units.other_time(other))


def _number(measure: MeasureRecord) -> str:
    if not timed_twice(measure):
        return units.counted(measure.teacher_latency.threads, "thread")
    return "with the number of threads that each is faster with"


def latency(report: RunReport) -> Markup:
    """How latency is spread, from the raw samples."""
    measure = report.measure
    chart = figure(
        lambda width: latency_cdf(measure, width),
        "Steep is steady; a long upper tail is late frames. The dots mark medians.",
    )
    entries = [(TEACHER, "st", "line")]
    entries += [(v.name, series_class(i), "line") for i, v in enumerate(measure.variants)]
    timed = measure.teacher_latency
    lead = (
        f"{units.count(timed.runs)} calls each after {timed.warmup} of warm-up, batch {timed.batch}, "
        f"{_number(measure)}, on {measure.machine.fingerprint}. "
        "Compare ratios: absolute figures of another machine, or of another hour, differ."
    )
    if not chart:
        return Markup("")
    return Markup(tag("p", lead, css="lead") + legend(entries) + chart)
