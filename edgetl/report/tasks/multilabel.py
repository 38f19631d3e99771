"""The part of the report that only multi-label classification has: scores class by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.records.scores import Score
from edgetl.report import units
from edgetl.report.page.markup import Column, Markup, Row, disclosure, meter, table, tag
from edgetl.report.terminal.tables import TableLine, numbers, say, text
from edgetl.report.terminal.tables import table as terminal_table
from edgetl.tasks.multilabel.detail import TagScore, TagsDetail

if TYPE_CHECKING:
    from rich.console import Console

_OPEN = 25
_SHOWN = 30


def page(detail: TagsDetail) -> Markup:
    """Every class's scores, lowest average precision first."""
    heads = (
        Column(header="Class"),
        Column(header="Images", number=True, hint="images that have it"),
        Column(header="Answered", number=True, hint="images where it was answered"),
        Column(header="Threshold", number=True, hint="the least probability that is answered"),
        Column(header="Precision", number=True, hint="with its 95% interval"),
        Column(header="Recall", number=True, hint="with its 95% interval"),
        Column(header="F1", number=True),
        Column(header="AP", number=True, hint="average precision: the area under precision over recall"),
        Column(header="", wide_only=True),
    )
    rows = [
        Row(
            cells=(
                c.label,
                units.count(c.support),
                units.count(c.answered),
                f"{c.threshold:.2f}",
                _interval(c.precision, c.answered),
                _interval(c.recall, c.support),
                units.percent(c.f1),
                units.percent(c.average_precision),
                meter(c.average_precision, "low" if c.average_precision < 0.5 else ""),
            )
        )
        for c in _ordered(detail)
    ]
    title = tag("h3", "By class, lowest average precision first")
    shown = table(heads, rows[:_OPEN], "Scores by class")
    if len(rows) > _OPEN:
        rest = table(heads, rows[_OPEN:], "Scores of the other classes")
        shown = Markup(shown + disclosure(f"The other {len(rows) - _OPEN} classes", rest))
    return Markup(title + shown)


def terminal(console: Console, detail: TagsDetail) -> None:
    """Each class, lowest average precision first."""
    ordered = _ordered(detail)
    lines = [
        TableLine(
            cells=(
                c.label,
                units.count(c.support),
                units.count(c.answered),
                f"{c.threshold:.2f}",
                units.percent(c.precision.value) if c.answered else "-",
                units.percent(c.recall.value) if c.support else "-",
                units.percent(c.f1),
                units.percent(c.average_precision) if c.support else "-",
            )
        )
        for c in ordered[:_SHOWN]
    ]
    heads = numbers("images", "answered", "threshold", "precision", "recall", "F1", "AP")
    terminal_table(console, (*text("class, lowest AP first"), *heads), lines)
    if len(ordered) > _SHOWN:
        say(console, f"{len(ordered) - _SHOWN} more classes are left out; --json gives all.", "faint")


def _ordered(detail: TagsDetail) -> list[TagScore]:
    """Classes without images come last."""
    return sorted(detail.classes, key=lambda c: (c.support == 0, c.average_precision, c.label))


def _interval(score: Score, of: int) -> Markup:
    if not of or score.interval is None:
        return Markup("–")
    return tag("span", units.percent(score.value), tag("span", units.interval(score.interval), css="range"))
