"""The page's part about the teacher's adaptation to another domain: what was tried, and what was chosen why."""

from __future__ import annotations

from edgetl.records.adapt import NO_METHOD, AdaptTry
from edgetl.report import units
from edgetl.report.page.markup import Column, Markup, Row, definitions, table, tag
from edgetl.report.run import RunReport


def adaptation(report: RunReport) -> Markup:
    """The figures of each method and the choice; nothing where nothing was adapted."""
    record = report.adapt
    if record is None:
        return Markup("")
    labels = record.labelled > 0
    heads = (
        Column(header="method"),
        Column(header=f"{units.metric(record.metric)}, validation", number=True),
        Column(
            header=units.without_labels(record),
            number=True,
            hint="of validation images as the target's camera would take them"
            if record.retaken
            else "source images count by how much like the target they are (Sugiyama et al. 2007)",
        ),
        Column(
            header="neighbourhood density",
            number=True,
            hint="in nats, of the answers on the target's images (Saito et al. 2021); more is better",
        ),
        *(
            [
                Column(header="top-1, labelled target", number=True),
                Column(
                    header="p", number=True, hint="McNemar's, one-sided, times the methods that were tried"
                ),
            ]
            if labels
            else []
        ),
        Column(header="time", number=True, wide_only=True),
    )
    rows = [_row(one, chosen=one.method == record.method, labels=labels) for one in record.tries]
    facts = definitions(
        [
            ("Asked for", record.asked),
            ("Images of the target", _images(record.images, record.held_out)),
            *(
                []
                if record.explained is None
                else [
                    (
                        "Of the distance between the domains, explained by the camera",
                        units.percent(max(0.0, record.explained)),
                    )
                ]
            ),
            (
                "Learned from validation or test images too",
                "yes, without labels" if record.transductive else "no",
            ),
        ]
    )
    notes = [tag("li", f"{one.method}: {one.note}") for one in record.tries if one.note]
    return Markup(
        tag("p", record.reason, css="lead")
        + table(heads, rows, "Methods of adaptation")
        + (tag("ul", *notes) if notes else Markup(""))
        + facts
    )


def _row(one: AdaptTry, *, chosen: bool, labels: bool) -> Row:
    name = "teacher as it was" if one.method == NO_METHOD else one.method
    if one.val is None or one.density is None:
        return Row(cells=(name, *([""] * (6 if labels else 4))))
    judged = [
        "" if one.target is None else units.percent(one.target),
        "" if one.p_value is None else f"{one.p_value:.2g}",
    ]
    return Row(
        cells=(
            name,
            units.percent(one.val),
            "" if one.weighted is None else units.percent(one.weighted),
            f"{one.density:.3f}",
            *(judged if labels else []),
            units.duration(one.seconds),
        ),
        css="chosen" if chosen else "",
    )


def _images(count: int, held_out: int) -> str:
    beside = (
        f"; {units.count(held_out)} in the validation or test split, or near-copies, were left out"
        if held_out
        else ""
    )
    return f"{units.count(count)}{beside}"
