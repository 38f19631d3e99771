"""The page's part about where the shipped variant's time goes: by operator, and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.records.bench import LayerTime, Profile
from edgetl.report import units
from edgetl.report.page.markup import Column, Markup, Row, columns, disclosure, meter, table, tag
from edgetl.report.run import RunReport, shipped_variant

_OPEN, _MOST = 12, 300


def layers(report: RunReport) -> Markup:
    """Time by operator and by layer; a sentence where it is not known, nothing in records that do not say."""
    measure, shipped = report.measure, shipped_variant(report.measure)
    if measure.layers is None:
        return tag("p", measure.no_layers, css="lead") if measure.no_layers else Markup("")
    found = measure.layers
    lead = (
        f"{shipped.name} under {found.engine}'s own profiler: medians of {units.counted(found.calls, 'call')}, batch 1,"
        f" {units.counted(shipped.latency.threads, 'thread')}. A profiled call takes"
        f" {units.milliseconds(found.call_ms)}, where it takes {units.milliseconds(shipped.latency.p50_ms)} else:"
        " read the shares, not the sum."
    )
    operators = tag("div", tag("h3", "By operator"), _by_operator(found))
    return Markup(
        tag("p", lead, css="lead")
        + columns(tag("div", tag("h3", "By layer, slowest first"), _by_layer(found)), operators)
    )


def _by_operator(found: Profile) -> Markup:
    heads = (
        Column(header="Operator"),
        Column(header="Nodes", number=True),
        Column(header="ms", number=True),
        Column(header="Share", number=True),
        Column(header="", wide_only=True),
    )
    rows = [
        Row(cells=(one.operator, units.count(one.nodes), *figures))
        for one, figures in _slowest_first(found.operators)
    ]
    return table(heads, rows, "Time by operator")


def _by_layer(found: Profile) -> Markup:
    heads = (
        Column(header="Layer"),
        Column(header="Operator"),
        Column(header="ms", number=True),
        Column(header="Share", number=True),
        Column(header="", wide_only=True),
    )

    rows = [Row(cells=(one.name, one.operator, *figures)) for one, figures in _slowest_first(found.layers)]
    shown = table(heads, rows[:_OPEN], "Time by layer")
    rest = rows[_OPEN:_MOST]
    if not rest:
        return shown
    title = f"The other {units.counted(len(rows) - _OPEN, 'layer')}"
    if len(rows) > _MOST:
        title += f", the first {len(rest)} listed"
    return Markup(shown + disclosure(title, table(heads, rest, "Time by layer, the others")))


def _slowest_first(times: Sequence[LayerTime]) -> list[tuple[LayerTime, tuple[str, ...]]]:
    """Each with its median, its share of all medians, and a bar.

    Where another program took the cores for a moment, a few calls say little of a layer, and its median still does.
    """
    whole = sum(one.median_ms for one in times) or 1.0
    ordered = sorted(times, key=lambda one: one.median_ms, reverse=True)
    most = ordered[0].median_ms if ordered else 0.0
    return [
        (
            one,
            (
                units.significant(one.median_ms),
                units.percent(one.median_ms / whole),
                meter(one.median_ms / most if most else 0.0),
            ),
        )
        for one in ordered
    ]
