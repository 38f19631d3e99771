"""A ranking of backbones as a page: one self-contained file with a plot of score against latency and the table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from edgetl.records.transfer import BackboneRanking
from edgetl.report import units
from edgetl.report.page.axes import NARROW, Labels, draw_axes
from edgetl.report.page.charts import latency_axis, score_axis, series_class
from edgetl.report.page.document import document
from edgetl.report.page.markup import (
    Column,
    Markup,
    Row,
    figure,
    legend,
    section,
    sentence,
    table,
    tag,
    verbatim,
)
from edgetl.report.page.svg import Drawing, Point
from edgetl.report.transfer import cells, remarks

_STEPS = 60
"""Places of a line that text keeps clear of."""
_TONES = {"proposed": "good", "frontier": "warn"}


def render(record: BackboneRanking) -> str:
    """The page as one HTML document, without a script."""
    classes = units.counted(record.classes, "class")
    header = tag(
        "header",
        tag("p", "edgetl suggest", css="kicker"),
        tag("h1", record.source),
        tag(
            "p",
            f"{units.counted(len(record.candidates), 'candidate')} for {classes}, by linear probes on"
            f" {units.counted(record.val_images, 'validation image')} and the clock of {record.machine.fingerprint}.",
            css="about",
        ),
    )
    proposal = tag(
        "div",
        tag("p", tag("strong", "Proposed: "), sentence(record.reason)),
        verbatim("\n".join(record.settings)),
        css="verdict",
        role="note",
    )
    parts = [proposal, _measured(record), _skipped(record)]
    return document(f"{record.source}: edgetl suggest", [header, tag("main", *parts)])


def chart(record: BackboneRanking, width: float) -> str:
    """Score against median latency (log scale): a colour a backbone, its sizes joined, the frontier dashed."""
    small = width < NARROW
    drawing = Drawing(width, 350 if small else 400)
    bounds = [one.score.interval or (one.score.value, one.score.value) for one in record.candidates]
    times = [one.latency.p50_ms for one in record.candidates]
    budget = record.latency_ms
    x = latency_axis([*times, *([budget] if budget else [])], 50, width - (16 if small else 24), small)
    y = score_axis([end for ends in bounds for end in ends], 58, drawing.height - 50, record.metric)
    draw_axes(drawing, x, y)
    labels = Labels(left=50, right=width - 2, top=46, bottom=drawing.height - 50)
    if budget is not None:
        at = x.scale(budget)
        drawing.line(at, y.scale.end, at, y.scale.start, "floor")
        drawing.text(at + 4, y.scale.end + 12, f"budget {units.milliseconds(budget)}", "floor-text")
        labels.block(at, y.scale.end, at + 100, y.scale.end + 16)
    for name, css in _colours(record).items():
        own = sorted((one for one in record.candidates if one.title == name), key=lambda one: one.size)
        joined = [(x.scale(one.latency.p50_ms), y.scale(one.score.value)) for one in own]
        drawing.path(joined, f"{css} curve")
        _keep_clear(labels, joined)
    best = sorted((one for one in record.candidates if one.frontier), key=lambda one: one.latency.p50_ms)
    joined = [(x.scale(one.latency.p50_ms), y.scale(one.score.value)) for one in best]
    drawing.path(joined, "st thin")
    _keep_clear(labels, joined)
    for one in record.candidates:
        at, centre = x.scale(one.latency.p50_ms), y.scale(one.score.value)
        labels.block(at - 9, centre - 9, at + 9, centre + 9)
    for position, (one, (low, high)) in enumerate(zip(record.candidates, bounds, strict=True)):
        css = _colours(record)[one.title]
        at, centre = x.scale(one.latency.p50_ms), y.scale(one.score.value)
        if one.score.interval:
            drawing.line(at, y.scale(low), at, y.scale(high), f"{css} bar")
        caption = (
            f"{one.name}: {units.percent(one.score.value)}, {units.milliseconds(one.latency.p50_ms)} median"
        )
        caption += f", LogME {one.logme:.3f}"
        if position == record.proposed:
            drawing.circle(at, centre, 11, f"{css} ring")
        drawing.circle(at, centre, 6, f"{css} {'dot' if one.frontier else 'hollow'}", caption)
        labels.place(drawing, at, centre, [(f"{one.size}", "note")])
    described = "; ".join(
        f"{one.name} {units.percent(one.score.value)} at {units.milliseconds(one.latency.p50_ms)}"
        for one in record.candidates
    )
    title = f"{units.metric_title(record.metric)} of linear probes against median latency"
    return drawing.render(title, described)


def _keep_clear(labels: Labels, points: Sequence[Point]) -> None:
    """Keep text off straight lines through `points`."""
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        for step in range(1, _STEPS):
            x, y = x1 + (x2 - x1) * step / _STEPS, y1 + (y2 - y1) * step / _STEPS
            labels.block(x - 4, y - 4, x + 4, y + 4)


def _colours(record: BackboneRanking) -> dict[str, str]:
    """The CSS class of each backbone, in the order of the ranking."""
    names = dict.fromkeys(one.title for one in record.candidates)
    return {name: series_class(position) for position, name in enumerate(names)}


def _measured(record: BackboneRanking) -> Markup:
    threads = units.counted(record.choice.latency.threads, "thread")
    lead = (
        f"Each backbone stayed as it was pretrained. A linear probe learnt from its features of {record.train_images}"
        f" training images and was scored on {record.val_images} of validation; test images were not looked at."
        " The ridge of each probe was chosen by the same images, which makes all scores a little too high."
        f" Latency is that of one image in float32 with {threads}, before anything is cut or quantized."
    )
    caption = (
        "Upper left is better. Figures are sizes in pixels; filled dots lie on the frontier (dashed), the ring marks"
        " the proposal, bars are 95% intervals of the scores."
    )
    columns = (
        Column(header="Backbone"),
        Column(header="Size, px", number=True),
        Column(header=f"Probe {units.metric(record.metric)}", number=True, hint="on validation images"),
        Column(header="95% interval", number=True, wide_only=True),
        Column(header="LogME", number=True, hint="on training images; higher is better"),
        Column(header="p50 ms", number=True),
        Column(header="MACs", number=True),
        Column(header="Parameters", number=True),
        Column(header="Remarks"),
    )
    rows = [
        Row(
            cells=(*cells(one), _tags(remarks(record, position))),
            css="default" if position == record.proposed else "",
        )
        for position, one in enumerate(record.candidates)
    ]
    key = legend([(name, css, "dot") for name, css in _colours(record).items()])
    plot = figure(lambda width: chart(record, width), caption)
    return section(
        "candidates", "Score against latency", key, plot, table(columns, rows, "Candidates"), lead=lead
    )


def _tags(texts: tuple[str, ...]) -> Markup:
    return Markup("".join(tag("span", text, css=f"tag {_TONES.get(text, 'bad')}") for text in texts))


def _skipped(record: BackboneRanking) -> Markup:
    if not record.skipped:
        return Markup("")
    items = (tag("li", f"{one.name}: {sentence(one.reason)}") for one in record.skipped)
    return section("skipped", "Skipped", tag("ul", *items, css="says"))
