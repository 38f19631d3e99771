"""The part of the report that only detection has: classes, sizes, mistakes, the worst pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.report import units
from edgetl.report.page.markup import Column, Markup, Row, columns, disclosure, meter, table, tag
from edgetl.report.terminal.tables import TableLine, numbers, say, text
from edgetl.report.terminal.tables import table as terminal_table
from edgetl.tasks.detection.detail import BoxDetail, ClassPrecision, Mistakes

if TYPE_CHECKING:
    from rich.console import Console

_OPEN = 25
_SHOWN = 30
KINDS = {
    "right": "found",
    "missed": "missed",
    "place": "wrong place",
    "label": "wrong class",
    "both": "wrong place and class",
    "duplicate": "duplicate",
    "background": "background",
}
"""Fields of `Mistakes` in words, in the order of tables."""


def page(detail: BoxDetail) -> Markup:
    """Classes by average precision, sizes, and errors by kind."""
    first = tag("div", tag("h3", "By class, lowest AP first"), _classes(detail))
    second = tag("div", tag("h3", "By size of the object"), _sizes(detail))
    return Markup(first + columns(second, _mistakes(detail)))


def _classes(detail: BoxDetail) -> Markup:
    heads = (
        Column(header="Class"),
        Column(header="Objects", number=True),
        Column(header="AP", number=True, hint="mean over overlaps from 0.50 to 0.95"),
        Column(header="AP50", number=True, hint="at an overlap of 0.5"),
        Column(header="Recall", number=True, hint="of all boxes, mean over overlaps from 0.50 to 0.95"),
        Column(header="", wide_only=True),
    )
    rows = [
        Row(
            cells=(
                c.label,
                units.count(c.objects),
                _share(c.ap),
                _share(c.ap50),
                _share(c.recall),
                Markup("") if c.ap is None else meter(c.ap, "low" if c.ap < 0.3 else ""),
            )
        )
        for c in _ordered(detail)
    ]
    shown = table(heads, rows[:_OPEN], "Scores by class")
    if len(rows) > _OPEN:
        rest = table(heads, rows[_OPEN:], "Scores of the other classes")
        shown = Markup(shown + disclosure(f"The other {len(rows) - _OPEN} classes", rest))
    return shown


def _sizes(detail: BoxDetail) -> Markup:
    heads = (
        Column(header="Size", hint="as in COCO: small is below 32 x 32 pixels, large above 96 x 96"),
        Column(header="Objects", number=True),
        Column(header="AP", number=True),
        Column(header="Recall", number=True),
    )
    rows = [Row(cells=(s.size, units.count(s.objects), _share(s.ap), _share(s.recall))) for s in detail.sizes]
    return table(heads, rows, "Scores by size")


def _mistakes(detail: BoxDetail) -> Markup:
    heads = (Column(header="Kind"), Column(header="Boxes", number=True), Column(header="", wide_only=True))
    counts = _counts(detail.mistakes)
    most = max(1, *(count for _, count in counts))
    rows = [Row(cells=(name, units.count(count), meter(count / most))) for name, count in counts]
    return tag("div", tag("h3", _title(detail)), table(heads, rows, "Errors by kind"))


def terminal(console: Console, detail: BoxDetail) -> None:
    """Each class, lowest average precision first; sizes; errors by kind."""
    ordered = _ordered(detail)
    lines = [
        TableLine(
            cells=(
                c.label,
                units.count(c.objects),
                *(_share(value, "-") for value in (c.ap, c.ap50, c.recall)),
            )
        )
        for c in ordered[:_SHOWN]
    ]
    heads = (*text("class, lowest AP first"), *numbers("objects", "AP", "AP50", "recall"))
    terminal_table(console, heads, lines)
    if len(ordered) > _SHOWN:
        say(console, f"{len(ordered) - _SHOWN} more classes are left out; --json gives all.", "faint")
    lines = [
        TableLine(cells=(s.size, units.count(s.objects), _share(s.ap, "-"), _share(s.recall, "-")))
        for s in detail.sizes
    ]
    terminal_table(console, (*text("size of the object"), *numbers("objects", "AP", "recall")), lines)
    lines = [TableLine(cells=(name, units.count(count))) for name, count in _counts(detail.mistakes)]
    terminal_table(console, (*text(_title(detail)), *numbers("number")), lines)


def _title(detail: BoxDetail) -> str:
    return f"Boxes that score {detail.asked:.2f} or more"


def _counts(mistakes: Mistakes) -> list[tuple[str, int]]:
    return [(words, getattr(mistakes, name)) for name, words in KINDS.items()]


def _ordered(detail: BoxDetail) -> list[ClassPrecision]:
    """Classes without objects come last."""
    return sorted(detail.classes, key=lambda c: (c.ap is None, c.ap or 0.0, c.label))


def _share(value: float | None, none: str = "–") -> str:
    return none if value is None else units.percent(value)
