"""The part of the report that only classification has: scores, classes, confused pairs."""

from __future__ import annotations

from edgetl.records.scores import Evaluation
from edgetl.report import units
from edgetl.report.page.markup import (
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
from edgetl.report.run import RunReport, headline
from edgetl.report.tasks.confusion import MOST_CLASSES, class_order, confused_pairs, heat_map, shown_classes

_CLASSES_OPEN = 25
_PAIRS = 8


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
