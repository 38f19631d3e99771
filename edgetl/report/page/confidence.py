"""The page's part about how sure answers are: temperatures, a reliability plot, and how often sets hold the truth."""

from __future__ import annotations

import functools
import math

from edgetl.records.confidence import OutputConfidence, Reliability
from edgetl.records.scores import CoverageScore
from edgetl.report import units
from edgetl.report.confidence import changes, has_heads, notes
from edgetl.report.page.axes import NARROW, Axis, draw_axes
from edgetl.report.page.markup import HALF, Column, Markup, Row, columns, figure, legend, table, tag
from edgetl.report.page.svg import Drawing, Scale
from edgetl.report.run import RunReport, shipped_variant
from edgetl.tasks.base import LOGITS

_BEFORE, _AFTER = "st", "s0"
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def confidence(report: RunReport) -> Markup:
    """How sure the shipped variant's answers are, and every variant's figures; nothing of a detector."""
    shipped = shipped_variant(report.measure)
    if not shipped.confidence:
        return Markup("")
    split = "test" if shipped.confidence[0].split == "test" else "validation"
    lead = (
        "Each variant's logits are divided by one temperature before they become scores (Guo et al. 2017). It was"
        " fitted on the validation split, and is used where it lowered the loss of images that it was not fitted on"
        " and did not raise their Brier score; no answer changes by it. The figures are of the"
        f" {split} split{'' if split == 'test' else ', on which it was fitted, so that they flatter'}. The calibration"
        " error is over 15 bins of equal width."
    )
    plots = [
        tag(
            "div",
            tag("h3", shipped.name if one.output == LOGITS else f"{shipped.name}, head {one.output}"),
            _legend(one),
            figure(functools.partial(reliability_plot, one), _CAPTION, wide=HALF),
        )
        for one in shipped.confidence
        if one.after is not None
    ]
    said = notes(report.measure)
    sets = [found] if (found := _sets(report)) else []
    return Markup(
        tag("p", lead, css="lead")
        + (columns(*plots, *sets) if plots else "".join(sets))
        + _figures(report)
        + (tag("ul", *(tag("li", text) for text in said), css="says") if said else "")
    )


_CAPTION = (
    "On the dashed line answers are right as often as their score says; below it they are surer than right. The larger"
    " the dot, the more answers."
)


def _legend(one: OutputConfidence) -> Markup:
    entries = [("at temperature 1", _BEFORE, "hollow")]
    if one.temperature != 1.0:
        entries.append((f"at temperature {one.temperature:.2f}, as it ships", _AFTER, "dot"))
    return legend(entries)


def reliability_plot(one: OutputConfidence, width: float) -> str:
    """The share of right answers against their score, in bins, at temperature 1 and with the temperature."""
    if one.before is None or one.after is None:
        return ""
    small = width < NARROW
    drawing = Drawing(width, 330 if small else 400)
    x = Axis(
        scale=Scale(low=0, high=1, start=50, end=width - 20),
        ticks=_TICKS,
        write=lambda v: units.percent(v, 0),
        title="Score",
    )
    y = Axis(
        scale=Scale(low=0, high=1, start=drawing.height - 50, end=34),
        ticks=_TICKS,
        write=lambda v: units.percent(v, 0),
        title="Right answers",
    )
    draw_axes(drawing, x, y)
    drawing.line(x.scale(0), y.scale(0), x.scale(1), y.scale(1), "chance")
    shown = [(one.before, f"{_BEFORE} hollow", f"{_BEFORE} thin", "at temperature 1")]
    if one.temperature != 1.0:
        word = f"at temperature {one.temperature:.2f}"
        shown.append((one.after, f"{_AFTER} dot", f"{_AFTER} curve", word))
    for reliability, dot, line, word in shown:
        drawing.path([(x.scale(b.score), y.scale(b.right)) for b in reliability.bins], line)
        most = max(b.answers for b in reliability.bins)
        for b in reliability.bins:
            caption = (
                f"{units.counted(b.answers, 'answer')} {word}: score {units.percent(b.score)},"
                f" right {units.percent(b.right)}"
            )
            size = 3 + 6 * math.sqrt(b.answers / most)
            drawing.circle(x.scale(b.score), y.scale(b.right), size, dot, caption)
    described = "; ".join(f"{word}: {_described(reliability)}" for reliability, _, _, word in shown)
    return drawing.render("Share of right answers against their score", described)


def _described(reliability: Reliability) -> str:
    return f"calibration error {units.percent(reliability.error)}"


def _figures(report: RunReport) -> Markup:
    measure = report.measure
    heads = has_heads(measure)
    titles = (
        Column(header="Variant"),
        *((Column(header="Head"),) if heads else ()),
        Column(header="Temperature", number=True),
        Column(header="Fitted", number=True, hint="also where it is not used"),
        Column(header="p", number=True, hint="of the test that it helps on images that it was not fitted on"),
        Column(header="Calibration error", number=True, hint="at temperature 1 and with the temperature"),
        Column(header="Log-loss", number=True, hint="at temperature 1 and with the temperature"),
        Column(header="Brier score", number=True, hint="at temperature 1 and with the temperature"),
    )
    rows = []
    for variant in measure.variants:
        for one in variant.confidence:
            cells = (
                variant.name,
                *((one.output,) if heads else ()),
                f"{one.temperature:.2f}",
                "–" if one.fitted is None else f"{one.fitted:.2f}",
                "–" if one.p_value is None else f"{one.p_value:.2g}",
                *changes(one),
            )
            rows.append(Row(cells=cells, css="default" if variant.name == measure.default else ""))
    return table(titles, rows, "Temperatures and calibration")


def _sets(report: RunReport) -> Markup:
    """How often the sets of labels held the truth on the test split."""
    measure, heads = report.measure, has_heads(report.measure)
    asked = sorted({c.asked for v in measure.variants for one in v.confidence for c in one.coverage})
    if not asked:
        return Markup("")
    titles = (
        Column(header="Variant"),
        *((Column(header="Head"),) if heads else ()),
        *(
            Column(
                header=f"Sets of {units.percent(share, 0)}",
                number=True,
                hint="how often they held the truth of the test split, with its 95% interval; labels in one on average",
            )
            for share in asked
        ),
    )
    rows = []
    for variant in measure.variants:
        for one in variant.confidence:
            found = {c.asked: c for c in one.coverage}
            cells = (
                variant.name,
                *((one.output,) if heads else ()),
                *(_coverage_cell(found.get(share)) for share in asked),
            )
            rows.append(Row(cells=cells, css="default" if variant.name == measure.default else ""))
    lead = (
        "With --coverage an answer has the set of labels that holds the truth so often at least, for images like the"
        " validation images and on average over them (split conformal prediction; Romano et al. 2020). The validation"
        " images also chose epochs and variant, so that it holds to an approximation."
    )
    return tag(
        "div",
        tag("h3", "Sets of labels"),
        tag("p", lead, css="lead"),
        table(titles, rows, "How often sets of labels held the truth"),
    )


def _coverage_cell(found: CoverageScore | None) -> Markup:
    if found is None:
        return tag("span", "–")
    bounds = [units.interval(found.held.interval)] if found.held.interval else []
    under = (tag("span", line, css="range") for line in (*bounds, f"{found.mean_size:.2f} labels"))
    return tag("span", units.percent(found.held.value), *under)
