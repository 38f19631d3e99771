"""A history of benchmarks as a page: one self-contained file, a chart a subject."""

from __future__ import annotations

from html import escape

from edgetl.records.bench import HistoryRecord, Trend
from edgetl.report import units
from edgetl.report.page.axes import NARROW, Axis, draw_axes
from edgetl.report.page.markup import HALF, Column, Markup, Row, figure, section, table, tag
from edgetl.report.page.svg import Drawing, Scale, linear_ticks
from edgetl.report.page.theme import STYLE

_ROWS_SHOWN = 30


def render(record: HistoryRecord) -> str:
    """The history as one HTML document, without a script."""
    body = [
        tag("header", tag("p", "edgetl history", css="kicker"), tag("h1", record.path)),
        tag("main", *(_subject(number, trend) for number, trend in enumerate(record.trends))),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(record.path)}: edgetl history</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def chart(trend: Trend, width: float) -> str:
    """Median latency over the runs, p90 above it, a dashed line where the level moved; empty without runs."""
    if not trend.runs:
        return ""
    drawing = Drawing(width, 250 if width < NARROW else 290)
    bottom, top = drawing.height - 50, 30.0
    values = [value for run in trend.runs for value in (run.p50_ms, run.p90_ms)]
    x_scale = Scale(low=0.5, high=len(trend.runs) + 0.5, start=56, end=width - 12)
    y_scale = Scale(low=0.0, high=1.05 * max(values) or 1.0, start=bottom, end=top)
    whole = sorted({max(round(tick), 1) for tick in linear_ticks(1, max(len(trend.runs), 2), 6)})
    ticks = [tick for tick in whole if tick <= len(trend.runs)]
    x = Axis(scale=x_scale, ticks=ticks, write=lambda v: f"{v:.0f}", title="Run")
    y = Axis(
        scale=y_scale, ticks=linear_ticks(0.0, y_scale.high), write=lambda v: f"{v:g}", title="Latency, ms"
    )
    draw_axes(drawing, x, y)
    for change in trend.changes:
        at = x_scale(change.index + 0.5)
        drawing.line(at, top, at, bottom, "floor")
    for css, name in (("c-train", "p90_ms"), ("c-val", "p50_ms")):
        points = [(x_scale(n), y_scale(getattr(run, name))) for n, run in enumerate(trend.runs, start=1)]
        drawing.path(points, f"{css} curve")
        for point, run in zip(points, trend.runs, strict=True):
            caption = f"{run.time} {run.commit[:9]}: median {run.p50_ms:.4g} ms, p90 {run.p90_ms:.4g} ms"
            drawing.circle(*point, 2.6, f"{css} dot small", caption)
    last = trend.runs[-1]
    return drawing.render(
        f"Latency of {trend.name} over {len(trend.runs)} runs", f"The last median is {last.p50_ms:.4g} ms"
    )


def _subject(number: int, trend: Trend) -> Markup:
    about = (
        f"{trend.machine}. {trend.scenario}, batch {trend.batch}, {units.counted(trend.threads, 'thread')}, "
        f"{units.counted(len(trend.runs), 'run')}."
    )
    if trend.spread is not None:
        about += f" Between runs the median differs by {units.percent(trend.spread)}."
    moved = {change.index for change in trend.changes}
    heads = (
        Column(header="Time (UTC)"),
        Column(header="Commit"),
        Column(header="Median, ms", number=True),
        Column(header="p90, ms", number=True),
        Column(header="Images/s", number=True, wide_only=True),
    )
    rows = [
        Row(
            cells=(
                run.time,
                run.commit[:9],
                units.significant(run.p50_ms),
                units.significant(run.p90_ms),
                units.significant(run.throughput),
            ),
            css="default" if index in moved else "",
        )
        for index, run in list(enumerate(trend.runs))[-_ROWS_SHOWN:]
    ]
    return section(
        f"trend-{number}",
        f"{trend.name}, variant {trend.variant} on {trend.target}",
        figure(
            lambda width: chart(trend, width),
            "Median (blue) and 90th percentile (grey) of each run; dashed where the level moved.",
            wide=HALF,
        ),
        *(tag("p", f"Level moved: {change.sentence}") for change in trend.changes),
        table(heads, rows, "The latest runs"),
        lead=about,
    )
