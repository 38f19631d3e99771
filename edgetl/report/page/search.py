"""A search as a page: every trial a point of score against latency, the budget drawn in, the chosen one explained."""

from __future__ import annotations

from edgetl.records.search import SearchRecord, SearchTrial, TrialState
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
from edgetl.report.page.svg import Drawing, Point, Scale
from edgetl.report.search import budget_words, cells, is_chosen, refused_early, remarks, run_cells, tally

_TONES = {"chosen": "good", "frontier": "warn"}
_FOOT = 24.0
"""Height of the strip below the plot in which trials without a score stand."""


def render(record: SearchRecord) -> str:
    """The page as one HTML document, without a script."""
    header = tag(
        "header",
        tag("p", "edgetl search", css="kicker"),
        tag("h1", record.name),
        tag(
            "p",
            f"{budget_words(record.budget)} on {record.machine.fingerprint}. {tally(record)};"
            f" {units.duration(record.seconds)} in all.",
            css="about",
        ),
    )
    return document(
        f"{record.name}: edgetl search",
        [header, tag("main", _verdict(record), _frontier(record), _runs(record), _trials(record))],
    )


def chart(record: SearchRecord, width: float) -> str:
    """Score against median latency (log scale); trials without a score stand below. Empty where nothing was timed."""
    timed = [one for one in record.trials if one.ms is not None]
    if not timed:
        return ""
    small = width < NARROW
    drawing = Drawing(width, 400 if small else 440)
    budget, bottom = record.budget.latency_ms, drawing.height - 50 - _FOOT
    times = [one.ms for one in timed if one.ms is not None]
    x = latency_axis(
        [*times, budget, *(final.latency_ms for final in record.finals)],
        50,
        width - (16 if small else 24),
        small,
    )
    floor = record.budget.floor
    scores = [one.score for one in timed if one.score is not None]
    ends = [*scores, record.teacher.value, *(final.val.value for final in record.finals)]
    y = score_axis([*ends, *([] if floor is None else [floor])], 58, bottom, record.metric)
    draw_axes(drawing, x, y)
    labels = Labels(left=50, right=width - 2, top=46, bottom=bottom)
    at = x.scale(budget)
    drawing.rect(at, y.scale.end, max(x.scale.end - at, 0), y.scale.start - y.scale.end, "under-floor")
    drawing.line(at, y.scale.end, at, y.scale.start, "floor")
    drawing.text(at + 4, bottom - 6, f"budget {units.milliseconds(budget)}", "floor-text")
    labels.block(at, bottom - 20, at + 100, bottom)
    for value, text in ((record.teacher.value, "teacher"), (floor, "floor")):
        if value is not None:
            drawing.line(x.scale.start, y.scale(value), x.scale.end, y.scale(value), "floor")
            drawing.text(
                x.scale.start + 4, y.scale(value) - 4, f"{text} {units.percent(value)}", "floor-text"
            )
            labels.block(x.scale.start, y.scale(value) - 16, x.scale.start + 110, y.scale(value) + 2)
    best = sorted((one for one in timed if one.frontier), key=lambda one: one.ms or 0.0)
    drawing.path([_at(one, x.scale, y.scale) for one in best], "st thin")
    colours = _colours(record)
    if any(one.score is None for one in timed):
        drawing.text(50, drawing.height - 6, "refused", "note")
    for one in timed:
        across, up = _at(one, x.scale, y.scale)
        css = colours[_series(one)]
        if one.score is None:
            drawing.circle(across, drawing.height - 10, 3.5, f"{css} hollow", _caption(record, one))
            continue
        if is_chosen(record, one):
            drawing.circle(across, up, 11, f"{css} ring")
        learned = one.state is TrialState.TRAINED
        drawing.circle(across, up, 5.5, f"{css} {'dot' if learned else 'hollow'}", _caption(record, one))
        labels.block(across - 7, up - 7, across + 7, up + 7)
    for final in record.finals:
        across, up = x.scale(final.latency_ms), y.scale(final.val.value)
        caption = (
            f"Ordinary run of {final.name}: {units.percent(final.val.value)},"
            f" {units.milliseconds(final.latency_ms)} as {final.variant}"
        )
        drawing.diamond(across, up, 8, "st dot", caption)
        labels.block(across - 9, up - 9, across + 9, up + 9)
        words = [("shipped" if final.holds else "ordinary run", "name")]
        words += [(f"{units.percent(final.val.value)}, {units.milliseconds(final.latency_ms)}", "note")]
        labels.place(drawing, across, up, words[: 1 if small else 2])
    described = "; ".join(_caption(record, one) for one in timed)
    return drawing.render(f"{units.metric_title(record.metric)} of trials against median latency", described)


def _at(one: SearchTrial, x: Scale, y: Scale) -> Point:
    return x(one.ms or x.low), y(one.score if one.score is not None else y.low)


def _series(one: SearchTrial) -> str:
    return f"{one.choice.network}, {one.choice.size} px"


def _colours(record: SearchRecord) -> dict[str, str]:
    """The CSS class of each network and size."""
    names = sorted({_series(one) for one in record.trials})
    return {name: series_class(position) for position, name in enumerate(names)}


def _caption(record: SearchRecord, one: SearchTrial) -> str:
    scored = "no score" if one.score is None else units.percent(one.score)
    words = ", ".join(remarks(record, one))
    timed = "" if one.ms is None else f", {units.milliseconds(one.ms)}"
    return f"Trial {one.number}, {one.name}: {scored}{timed}{f', {words}' if words else ''}"


def _verdict(record: SearchRecord) -> Markup:
    parts = [tag("p", tag("strong", "Found: " if record.holds else "Not found: "), sentence(record.reason))]
    if record.settings:
        parts.append(verbatim("\n".join(record.settings)))
    return tag("div", *parts, css="verdict" if record.holds else "verdict bad", role="note")


def _frontier(record: SearchRecord) -> Markup:
    lead = (
        "Each point is a candidate that was cut once and taught for a few epochs. Its latency was measured through the"
        " runtime, before it learned, in float32 and INT8, with one thread and with several; the fastest counts. Scores"
        " are of the validation split."
    )
    if early := refused_early(record):
        lead += (
            " Refused without a timing, by a latency table that is fitted to those before, or since a narrower one was"
            f" too slow: {units.counted(early, 'candidate')}."
        )
    caption = (
        "Upper left is better. Filled dots learned to the end of their trial, hollow ones were stopped; those below the"
        " plot were refused by their latency or size. The thin line is the frontier, diamonds are ordinary runs, the"
        " ring marks the trial that was run to its end."
    )
    key = legend([(name, css, "dot") for name, css in _colours(record).items()])
    return section(
        "frontier",
        "Score against latency",
        key,
        figure(lambda width: chart(record, width), caption),
        lead=lead,
    )


def _runs(record: SearchRecord) -> Markup:
    if not record.finals:
        return Markup("")
    columns = (
        Column(header="Candidate"),
        Column(header="Ships"),
        Column(header="p50 ms", number=True),
        Column(header="File", number=True),
        Column(header="Validation", number=True),
        Column(header="Test", number=True, hint="nothing was chosen by it"),
        Column(header="Took", number=True),
        Column(header="Budget"),
    )
    rows = [
        Row(
            cells=run_cells(final),
            css="default" if final is record.finals[-1] else "",
        )
        for final in record.finals
    ]
    lead = "What a candidate came to with all of the recipe's steps, epochs and gates: only this is reported."
    return section("runs", "Ordinary runs", table(columns, rows, "Figures of the ordinary runs"), lead=lead)


def _trials(record: SearchRecord) -> Markup:
    columns = (
        Column(header="Trial", number=True),
        Column(header="Network"),
        Column(header="Size, px", number=True),
        Column(header="MACs kept", number=True),
        Column(header="Blocks out", number=True),
        Column(header="p50 ms", number=True),
        Column(header="As"),
        Column(header="File", number=True),
        Column(header=units.metric_title(record.metric), number=True, hint="best epoch, validation"),
        Column(header="Loss", number=True, hint="least, validation"),
        Column(header="Epochs", number=True),
        Column(header="Remarks"),
    )
    rows = []
    for one in record.trials:
        tags = [tag("span", text, css=f"tag {_TONES.get(text, 'bad')}") for text in remarks(record, one)]
        why = tag("span", one.why, css="note") if one.why else ""
        rows.append(
            Row(
                cells=(*cells(one), Markup("".join([*tags, " ", why]))),
                css="default" if is_chosen(record, one) else "",
            )
        )
    return section("trials", "Trials", table(columns, rows, "Figures of the trials"))
