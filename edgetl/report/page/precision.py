"""Precision against recall class by class, and the share of right answers among the surest."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from edgetl.records.confidence import AnswerCurves, OutputConfidence
from edgetl.report import units
from edgetl.report.page.axes import NARROW, Axis, draw_axes
from edgetl.report.page.markup import HALF, Markup, columns, figure, legend, tag
from edgetl.report.page.svg import Drawing, Scale, linear_ticks
from edgetl.report.run import RunReport, shipped_variant
from edgetl.tasks.base import LOGITS

_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, kw_only=True)
class PrecisionCurve:
    """One class's curve: what it is called in the drawing's text, when pointed at, and precision at 101 recalls."""

    name: str
    caption: str
    precision: tuple[float, ...]


def answer_curves(report: RunReport) -> Markup:
    """The shipped variant's curves, output by output; nothing of a detector, which has its own."""
    shipped = shipped_variant(report.measure)
    known = [one for one in shipped.confidence if one.curves is not None]
    if not known:
        return Markup("")
    split = "test" if known[0].split == "test" else "validation"
    lead = (
        f"{shipped.name} on the {split} split. A class's threshold chooses a place on its curve; drawn are at most six"
        " classes, those of the lowest average precision."
    )
    return Markup(tag("p", lead, css="lead") + Markup("".join(_output(one) for one in known)))


def _output(one: OutputConfidence) -> Markup:
    found = one.curves
    assert found is not None
    drawn = [
        PrecisionCurve(
            name=f"{c.label} {units.percent(c.average_precision)}",
            caption=f"{c.label}: average precision {units.percent(c.average_precision)},"
            f" {units.counted(c.images, 'image')}",
            precision=c.precision,
        )
        for c in found.classes
    ]
    marks = legend([(c.name, f"s{at}", "line") for at, c in enumerate(drawn)])
    head = "" if one.output == LOGITS else f", head {one.output}"
    first = tag(
        "div",
        tag("h3", f"Precision against recall{head}"),
        marks,
        figure(functools.partial(draw_precision, drawn), wide=HALF),
    )
    if not found.right:
        return first
    second = tag(
        "div",
        tag("h3", f"Right answers among the surest{head}"),
        figure(functools.partial(draw_surest, found), _SUREST, wide=HALF),
    )
    return columns(first, second)


_SUREST = (
    "Where only the surest images are answered, and a person answers the others, so many answers are right."
)


def draw_precision(curves: Sequence[PrecisionCurve], width: float) -> str:
    """Precision at 101 recalls, one curve per class; empty text without curves."""
    if not curves:
        return ""
    drawing = Drawing(width, 250 if width < NARROW else 290)
    x = Scale(low=0, high=1, start=50, end=width - 16)
    y = Scale(low=0, high=1, start=drawing.height - 50, end=34)
    draw_axes(
        drawing,
        Axis(scale=x, ticks=_TICKS, write=_whole, title="Recall"),
        Axis(scale=y, ticks=_TICKS, write=_whole, title="Precision"),
    )
    for place, one in enumerate(curves):
        last = max((at for at, value in enumerate(one.precision) if value > 0), default=0)
        points = [(x(at / 100), y(value)) for at, value in enumerate(one.precision[: last + 1])]
        if last < len(one.precision) - 1:
            points.append((x(last / 100), y(0)))
        drawing.path(points, f"s{place} curve", one.caption)
    return drawing.render("Precision against recall by class", "; ".join(one.name for one in curves))


def draw_surest(found: AnswerCurves, width: float) -> str:
    """The share of right answers among the surest 2% to 100% of the images."""
    drawing = Drawing(width, 250 if width < NARROW else 290)
    low = max(0.0, min(found.right) - 0.1 * (1 - min(found.right)) - 0.005)
    x = Scale(low=0, high=1, start=50, end=width - 16)
    y = Scale(low=low, high=1, start=drawing.height - 50, end=34)
    ticks = linear_ticks(low, 1.0)
    digits = 0 if all(abs(100 * tick - round(100 * tick)) < 1e-6 for tick in ticks) else 1
    draw_axes(
        drawing,
        Axis(scale=x, ticks=_TICKS, write=_whole, title="Images that are answered, the surest first"),
        Axis(scale=y, ticks=ticks, write=lambda value: units.percent(value, digits), title="Right answers"),
    )
    points = [(x((at + 1) / len(found.right)), y(value)) for at, value in enumerate(found.right)]
    drawing.path(points, "s0 curve")
    said = []
    for share in (0.5, 0.8, 0.9, 1.0):
        at = round(share * len(found.right)) - 1
        words = f"{units.percent(found.right[at])} of the surest {_whole(share)}"
        drawing.circle(*points[at], 4.5, "s0 dot", words)
        said.append(words)
    return drawing.render("Right answers among the surest", "; ".join(said))


def _whole(share: float) -> str:
    return units.percent(share, 0)
