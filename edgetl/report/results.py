"""The page's parts about what came out: variants, accuracy by class, latency."""

from __future__ import annotations

from edgetl.records import Evaluation, Latency, MeasureRecord
from edgetl.report import units
from edgetl.report.charts import TEACHER, accuracy_latency, latency_cdf, series_class
from edgetl.report.confusion import MOST_CLASSES, heat_map, shown_classes
from edgetl.report.document import RunReport, class_order, confused_pairs, headline, remarks
from edgetl.report.markup import (
    Column,
    Markup,
    Row,
    columns,
    disclosure,
    figure,
    legend,
    meter,
    table,
    tag,
)

_CLASSES_OPEN = 25
_PAIRS = 8

_VARIANT_COLUMNS = (
    Column(header="Model"),
    Column(header="Precision"),
    Column(header="Target", hint="what the variant was made for"),
    Column(header="Size", number=True),
    Column(header="Val top-1", number=True, hint="with a 95% Wilson interval"),
    Column(header="Test top-1", number=True, hint="with a 95% Wilson interval"),
    Column(header="Macro-F1", number=True, hint="on test where there is one, else on validation"),
    Column(header="p50 ms", number=True),
    Column(header="p90 ms", number=True),
    Column(header="p99 ms", number=True),
    Column(header="Images/s", number=True),
    Column(header="Remarks"),
)


def variants(report: RunReport) -> Markup:
    """Accuracy against latency, and every variant's figures."""
    measure = report.measure
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
        + ("Bars are 95% Wilson intervals." if measure.metric == "top1" else "")
    )
    chart = figure(lambda width: accuracy_latency(measure, width), caption.strip())
    rows = [_teacher_row(measure)]
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
                    *_scores(variant.val, variant.test),
                    *_times(variant.latency),
                    Markup("".join(_remark(text) for text in remarks(measure, variant))),
                ),
                css="default" if default else "",
            )
        )
    return Markup(tag("p", lead, css="lead") + chart + table(_VARIANT_COLUMNS, rows, "Variants"))


def _teacher_row(measure: MeasureRecord) -> Row:
    return Row(
        cells=(
            tag("span", _swatch("st"), TEACHER, css="named"),
            "fp32",
            "host",
            units.bytes_(measure.teacher_size_bytes),
            *_scores(measure.teacher_val, measure.teacher_test),
            *_times(measure.teacher_latency),
            "",
        )
    )


def _swatch(css: str) -> Markup:
    return tag("i", css=f"swatch {css}", aria_hidden="true")


def _remark(text: str) -> Markup:
    css = "good" if text == "default" else "bad" if "floor" in text else "warn"
    return tag("span", text, css=f"tag {css}")


def _scores(val: Evaluation, test: Evaluation | None) -> tuple[str, str, str]:
    return _score(val), _score(test) if test else "–", units.percent((test or val).macro_f1)


def _score(evaluation: Evaluation) -> Markup:
    bounds = tag("span", units.interval(evaluation.top1_interval), css="range")
    return tag("span", units.percent(evaluation.top1), bounds)


def _times(latency: Latency) -> tuple[str, ...]:
    figures = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.throughput)
    return tuple(units.significant(value) for value in figures)


def evaluation(report: RunReport) -> Markup:
    """The shipped variant's confusion matrix, its frequent mistakes, and its scores by class."""
    head = headline(report)
    scores = head.student
    lead = (
        f"{head.shipped.name} on the {'test' if head.split == 'test' else 'validation'} split: "
        f"{units.counted(scores.images, 'image')}, top-1 {units.percent(scores.top1)} "
        f"(95% interval {units.interval(scores.top1_interval)}), macro-F1 {units.percent(scores.macro_f1)}, "
        f"balanced accuracy {units.percent(scores.balanced_accuracy)}."
    )
    shown = shown_classes(scores)
    caption = (
        "Rows are true classes, columns predictions; colour deepens with the share of the row. "
        "Point at a cell for its figures."
    )
    if len(shown) < len(scores.classes):
        caption += f" Shown are the {MOST_CLASSES} classes of lowest recall, of {len(scores.classes)}."
    marks = legend([("right", "hit-key", "cell"), ("mistaken", "miss-key", "cell")])
    few = len(shown) <= 20
    matrix = Markup(figure(lambda width: heat_map(scores, width), caption, wide=560 if few else 760) + marks)
    pairs = _pairs(scores)
    by_class = _classes(scores)
    first = tag("div", tag("h3", "Confusion matrix"), matrix, css="" if few else "matrix-large")
    second = tag("div", tag("h3", "By class, lowest recall first"), by_class)
    if few:
        return Markup(tag("p", lead, css="lead") + columns(first, tag("div", second, pairs)))
    return Markup(tag("p", lead, css="lead") + first + columns(second, pairs or Markup("")))


def _classes(scores: Evaluation) -> Markup:
    heads = (
        Column(
            header="No.",
            number=True,
            hint="the class's number in the confusion matrix and, less one, its logit",
        ),
        Column(header="Class"),
        Column(header="Images", number=True),
        Column(header="Precision", number=True),
        Column(header="Recall", number=True),
        Column(header="", wide_only=True),
        Column(header="F1", number=True),
    )
    rows = []
    for i in class_order(scores):
        c = scores.classes[i]
        bar = meter(c.recall, "low" if c.recall < 0.8 else "")
        figures = (units.percent(c.precision), units.percent(c.recall), bar, units.percent(c.f1))
        if not c.support:
            figures = (units.percent(c.precision), "–", Markup(""), "–")
        rows.append(Row(cells=(str(i + 1), c.label, units.count(c.support), *figures)))
    if len(rows) <= _CLASSES_OPEN:
        return table(heads, rows, "Scores by class")
    first = table(heads, rows[:_CLASSES_OPEN], "Scores of the classes of lowest recall")
    rest = table(heads, rows[_CLASSES_OPEN:], "Scores of the other classes")
    return Markup(first + disclosure(f"The other {len(rows) - _CLASSES_OPEN} classes", rest))


def _pairs(scores: Evaluation) -> Markup:
    found = confused_pairs(scores, _PAIRS)
    if not found:
        return Markup("")
    heads = (
        Column(header="True"),
        Column(header="Taken for"),
        Column(header="Images", number=True),
        Column(header="Of the class", number=True),
    )
    rows = [Row(cells=(true, taken, units.count(n), units.percent(share))) for true, taken, n, share in found]
    return tag("div", tag("h3", "Most frequent mistakes"), table(heads, rows, "Most frequent mistakes"))


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
        f"{timed.threads} threads, on {measure.machine.fingerprint}. "
        "Compare ratios: absolute figures of another machine, or of another hour, differ."
    )
    if not chart:
        return Markup("")
    return Markup(tag("p", lead, css="lead") + legend(entries) + chart)
