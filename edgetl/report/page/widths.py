"""Widths that a target of the clock chose: group by group, predicted and measured."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.records.prune import GroupWidth, PruneLatency
from edgetl.report import units
from edgetl.report.page.markup import Column, Markup, Row, disclosure, meter, table, tag
from edgetl.report.run import ratio

_OPEN = 12


def summary(measured: PruneLatency) -> str:
    """Target, prediction and measurement in one line."""
    reached = units.times(ratio(measured.teacher_ms, measured.measured_ms))
    return (
        f"{units.milliseconds(measured.target_ms)} wanted, {units.milliseconds(measured.predicted_ms)} predicted,"
        f" {units.milliseconds(measured.measured_ms)} measured in float32: {reached} as fast as the teacher"
        f" ({units.milliseconds(measured.teacher_ms)} in the same runtime)"
    )


def origin(measured: PruneLatency) -> str:
    """What the predictions stand on."""
    return (
        f"fitted to {units.counted(measured.networks, 'network')} that were timed; median error"
        f" {units.percent(measured.table_error)} on those it had not seen"
    )


def channels(group: GroupWidth) -> str:
    """`96 to 40`, or `96` where nothing went."""
    if group.channels_after == group.channels_before:
        return str(group.channels_before)
    return f"{group.channels_before} to {group.channels_after}"


def chosen(measured: PruneLatency) -> Markup:
    """The table of widths, with the whole network's prediction held against its measurement."""
    heads = (
        Column(
            header="Channels of", hint="the layer at the root of a group of layers that share their channels"
        ),
        Column(header="Before and after", number=True),
        Column(header="Kept"),
        Column(
            header="Predicted before", number=True, hint="milliseconds of the layers that make these channels"
        ),
        Column(header="Predicted after", number=True),
    )
    rows = [
        Row(
            cells=(
                group.name,
                channels(group),
                meter(ratio(group.channels_after, group.channels_before)),
                units.significant(group.before_ms),
                units.significant(group.after_ms),
            )
        )
        for group in measured.groups
    ]
    ends = [
        _end("Everything else", measured.rest_before_ms, measured.rest_ms),
        _end("Whole network, predicted", measured.predicted_before_ms, measured.predicted_ms, "total"),
        _end("Whole network, measured", measured.measured_before_ms, measured.measured_ms, "total"),
    ]
    shown = table(heads, [*rows, *ends] if len(rows) <= _OPEN else ends, "Widths chosen for the target")
    if len(rows) > _OPEN:
        every = table(heads, rows, "Widths of every group")
        shown = Markup(shown + disclosure(f"All {len(rows)} groups of channels", every))
    lead = f"{summary(measured)}. The latency table was {origin(measured)}. Times are in milliseconds, at batch 1."
    return tag("div", tag("h3", "Widths for the target"), tag("p", lead, css="lead"), shown)


def _end(name: str, before: float, after: float, css: str = "") -> Row:
    return Row(cells=(name, "", "", units.significant(before), units.significant(after)), css=css)


def lines(measured: PruneLatency) -> Sequence[tuple[str, str, str, str]]:
    """The same as plain rows: group, channels, milliseconds before and after."""
    ends = (
        ("everything else", "", measured.rest_before_ms, measured.rest_ms),
        ("whole network, predicted", "", measured.predicted_before_ms, measured.predicted_ms),
        ("whole network, measured", "", measured.measured_before_ms, measured.measured_ms),
    )
    groups = [(g.name, channels(g), g.before_ms, g.after_ms) for g in measured.groups]
    return [(n, c, units.significant(b), units.significant(a)) for n, c, b, a in (*groups, *ends)]
