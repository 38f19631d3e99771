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
    most = max((one.share for one in found.operators), default=0.0)
    rows = [
        Row(cells=(one.operator, units.count(one.nodes), *_figures(one, most))) for one in found.operators
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

    def rows(of: Sequence[LayerTime]) -> list[Row]:
        most = found.layers[0].share
        return [Row(cells=(one.name, one.operator, *_figures(one, most))) for one in of]

    shown = table(heads, rows(found.layers[:_OPEN]), "Time by layer")
    rest = found.layers[_OPEN:_MOST]
    if not rest:
        return shown
    left = found.layers[_OPEN:]
    title = f"The other {units.counted(len(left), 'layer')}: {units.percent(sum(one.share for one in left))}"
    if len(left) > len(rest):
        title += f", the first {len(rest)} listed"
    return Markup(shown + disclosure(title, table(heads, rows(rest), "Time by layer, the others")))


def _figures(one: LayerTime, most: float) -> tuple[str, ...]:
    share = meter(one.share / most if most else 0.0)
    return (units.significant(one.median_ms), units.percent(one.share), share)
