"""The part of the report that only detection has: classes, sizes, mistakes, the worst pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.report import units
from edgetl.report.page.axes import NARROW, Axis, draw_axes
from edgetl.report.page.boxes import Mark, boxed
from edgetl.report.page.markup import (
    HALF,
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
from edgetl.report.page.precision import PrecisionCurve, draw_precision
from edgetl.report.page.svg import Drawing, Scale
from edgetl.report.terminal.tables import TableLine, numbers, say, text
from edgetl.report.terminal.tables import table as terminal_table
from edgetl.statistics import wilson_interval
from edgetl.tasks.detection.detail import BoxDetail, ClassPrecision, JudgedBox, Mistakes, WorstImage

if TYPE_CHECKING:
    from rich.console import Console

_OPEN = 25
_SHOWN = 30
_CURVES_SHOWN = 6
_CURVES = "Point at a curve for its class. Drawn are at most six classes, those of lowest AP."
_SIDES = "The side is the square root of the object's area. Bars are 95% intervals."
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
_CSS = {"true": "k-true", "right": "k-right", "missed": "k-missed"} | dict.fromkeys(
    ("place", "label", "both", "duplicate", "background"), "k-wrong"
)
"""CSS classes of boxes by their kind."""


def page(detail: BoxDetail, pictures: Callable[[WorstImage], Path | None]) -> Markup:
    """Curves, classes, sizes, errors by kind, and the images with most of them; `pictures` says where these are."""
    curves = figure(lambda width: precision_recall(detail, width), _CURVES, wide=HALF)
    sizes = figure(lambda width: recall_by_side(detail, width), _SIDES, wide=HALF)
    first = columns(
        tag("div", tag("h3", "Precision against recall at an overlap of 0.5"), _legend(detail), curves),
        tag("div", tag("h3", "By class, lowest AP first"), _classes(detail)),
    )
    second = columns(
        tag("div", tag("h3", "Size of the object against recall"), sizes, _sizes(detail)), _mistakes(detail)
    )
    return Markup(first + second + _worst(detail, pictures))


def shown_classes(detail: BoxDetail) -> list[ClassPrecision]:
    """The classes whose curves are drawn: those of lowest average precision, in the order of the labels."""
    with_curve = [c for c in _ordered(detail) if c.precision][:_CURVES_SHOWN]
    return [c for c in detail.classes if c in with_curve]


def precision_recall(detail: BoxDetail, width: float) -> str:
    """Precision at 101 recalls, one curve per class; empty text without objects."""
    classes = shown_classes(detail)
    if not classes:
        return ""
    return draw_precision(
        [
            PrecisionCurve(
                name=f"{one.label} AP50 {_share(one.ap50)}",
                caption=f"{one.label}: AP50 {_share(one.ap50)}, {units.counted(one.objects, 'object')}",
                precision=one.precision,
            )
            for one in classes
        ],
        width,
    )


def recall_by_side(detail: BoxDetail, width: float) -> str:
    """The share of objects found by their side, with 95% Wilson intervals; empty text without objects."""
    sides = detail.sides
    if not sides:
        return ""
    drawing = Drawing(width, 230 if width < NARROW else 250)
    y = Scale(low=0, high=1, start=drawing.height - 50, end=34)
    left, right = 50.0, width - 16
    step = (right - left) / len(sides)
    ticks = Axis(scale=y, ticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0], write=_whole, title="Found")
    places = Scale(low=0, high=len(sides), start=left, end=right)
    draw_axes(drawing, Axis(scale=places, ticks=[], write=str, title="Side of the object, pixels"), ticks)
    for at, one in enumerate(sides):
        share, middle = one.found / one.objects, left + (at + 0.5) * step
        low, high = wilson_interval(one.found, one.objects)
        caption = (
            f"{_side(one.side)} pixels: {one.found} of {units.counted(one.objects, 'object')} found "
            f"({units.percent(share)}, 95% interval {units.interval((low, high))})"
        )
        drawing.line(middle, y(low), middle, y(high), "s0 bar")
        for end in (low, high):
            drawing.line(middle - 5, y(end), middle + 5, y(end), "s0 bar")
        drawing.circle(middle, y(share), 6, "s0 dot", caption)
        drawing.text(middle, drawing.height - 33, _side(one.side), "tick", anchor="middle")
    described = "; ".join(f"{_side(s.side)} pixels {s.found} of {s.objects}" for s in sides)
    return drawing.render("Size of the object against recall", described)


def _side(side: float) -> str:
    """Its octave, as in `16-31`; the first one as `<8`."""
    return f"{side:g}-{2 * side - 1:g}" if side else "<8"


def _whole(share: float) -> str:
    return units.percent(share, 0)


def _legend(detail: BoxDetail) -> Markup:
    classes = shown_classes(detail)
    return (
        legend([(c.label, f"s{place}", "line") for place, c in enumerate(classes)]) if classes else Markup("")
    )


def _worst(detail: BoxDetail, pictures: Callable[[WorstImage], Path | None]) -> Markup:
    """The images with most mistakes, true and found boxes drawn over them."""
    if not detail.worst:
        return tag("p", "No image has a mistake.", css="lead")
    names = [c.label for c in detail.classes]
    key = legend(
        [
            ("true, found", "k-true", "line"),
            ("missed", "k-missed", "dash"),
            ("found", "k-right", "line"),
            ("wrong place, class, twice or background", "k-wrong", "line"),
        ]
    )
    items = []
    for one in detail.worst:
        path = pictures(one)
        counts = ", ".join(
            f"{count} {words}" for words, count in _counts(one.mistakes) if count and words != KINDS["right"]
        )
        marks = [Mark(box=b.box, css=f"box {_CSS[b.kind]}", title=_box_words(b, names)) for b in one.boxes]
        name = path.name if path is not None else f"image {one.image + 1}"
        picture = boxed(path, (one.width, one.height), marks, f"{name}: {counts}")
        items.append(tag("li", picture, tag("span", counts), tag("span", name, css="path")))
    title = f"Images with most errors: {_title(detail).lower()}"
    note = "Point at a box for its class and score."
    return Markup(
        tag("h3", title) + key + tag("p", note, css="lead") + tag("ul", *items, css="flips pictures")
    )


def _box_words(box: JudgedBox, names: Sequence[str]) -> str:
    words = {"true": "true, found", **KINDS}[box.kind]
    score = "" if box.score is None else f" {box.score:.2f}"
    return f"{names[box.label]}{score}: {words}"


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
