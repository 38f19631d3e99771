"""The part of the report that only classification has: scores, classes, confused pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from edgetl.report.tasks.confusion import MOST_CLASSES, class_order, confused_pairs, heat_map, shown_classes
from edgetl.report.terminal.tables import TableLine, numbers, say, text
from edgetl.report.terminal.tables import table as terminal_table
from edgetl.tasks.classification.detail import ClassDetail

if TYPE_CHECKING:
    from rich.console import Console

_CLASSES_OPEN = 25
_PAIRS = 8
_CLASSES_SHOWN = 30
_PAIRS_SHOWN = 5


def page(detail: ClassDetail) -> Markup:
    """The confusion matrix, the frequent mistakes, and the scores by class."""
    shown = shown_classes(detail)
    caption = (
        "Rows are true classes, columns predictions; colour deepens with the share of the row. "
        "Point at a cell for its figures."
    )
    if len(shown) < len(detail.classes):
        caption += f" Shown are the {MOST_CLASSES} classes of lowest recall, of {len(detail.classes)}."
    marks = legend([("right", "hit-key", "cell"), ("mistaken", "miss-key", "cell")])
    few = len(shown) <= 20
    matrix = Markup(figure(lambda width: heat_map(detail, width), caption, wide=560 if few else 760) + marks)
    pairs = _pairs(detail)
    by_class = _classes(detail)
    first = tag("div", tag("h3", "Confusion matrix"), matrix, css="" if few else "matrix-large")
    second = tag("div", tag("h3", "By class, lowest recall first"), by_class)
    if few:
        return columns(first, tag("div", second, pairs))
    return Markup(first + columns(second, pairs or Markup("")))


def _classes(detail: ClassDetail) -> Markup:
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
    for i in class_order(detail):
        c = detail.classes[i]
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


def _pairs(detail: ClassDetail) -> Markup:
    found = confused_pairs(detail, _PAIRS)
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


def terminal(console: Console, detail: ClassDetail) -> None:
    """Each class, lowest recall first, and the most frequent mistakes."""
    order = class_order(detail)
    lines = []
    for i in order[:_CLASSES_SHOWN]:
        c = detail.classes[i]
        recall, f1 = (units.percent(c.recall), units.percent(c.f1)) if c.support else ("-", "-")
        lines.append(
            TableLine(cells=(c.label, units.count(c.support), units.percent(c.precision), recall, f1))
        )
    heads = (*text("class, lowest recall first"), *numbers("images", "precision", "recall", "F1"))
    terminal_table(console, heads, lines)
    if len(order) > _CLASSES_SHOWN:
        say(console, f"{len(order) - _CLASSES_SHOWN} more classes are left out; --json gives all.", "faint")
    if mistakes := confused_pairs(detail, _PAIRS_SHOWN):
        lines = [
            TableLine(cells=(true, taken, units.count(n), units.percent(share)))
            for true, taken, n, share in mistakes
        ]
        terminal_table(console, (*text("true", "taken for"), *numbers("images", "of the class")), lines)
