"""Accuracy against latency, and the distribution of latency."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetl.records.measured import Latency
from edgetl.records.scores import score
from edgetl.records.variants import MeasureRecord
from edgetl.report import units
from edgetl.report.page.axes import NARROW, Axis, Labels, draw_axes
from edgetl.report.page.svg import Drawing, Point, Scale, linear_ticks, log_ticks, shorten
from edgetl.report.run import ratio, shipped_variant

TEACHER = "Teacher (eager torch)"
_MOST_CDF_POINTS = 160


def series_class(position: int) -> str:
    """CSS class that carries a variant's colour."""
    return f"s{position % 6}"


def accuracy_latency(measure: MeasureRecord, width: float) -> str:
    """Validation score against median latency (log scale) of the teacher and every variant.

    Error bars are 95% intervals, where the score has them.
    """
    small = width < NARROW
    drawing = Drawing(width, 350 if small else 380)
    entries = [(TEACHER, "st", measure.teacher_val, measure.teacher_latency)]
    entries += [(v.name, series_class(i), v.val, v.latency) for i, v in enumerate(measure.variants)]
    found = [score(e, measure.metric) for _, _, e, _ in entries]
    scores = [one.value for one in found]
    with_bars = all(one.interval is not None for one in found)
    bars = [one.interval or (one.value, one.value) for one in found]
    x = latency_axis([e[3].p50_ms for e in entries], 50, width - (16 if small else 24), small)
    y = score_axis(
        [b for bar in bars for b in bar] + [*scores, measure.floor], 58, drawing.height - 50, measure.metric
    )
    draw_axes(drawing, x, y)
    labels = Labels(left=50, right=width - 2, top=46, bottom=drawing.height - 50)
    _floor_line(drawing, labels, x.scale, y.scale, measure.floor)
    for (_, css, _, latency), figure, (low, high) in zip(entries, scores, bars, strict=True):
        at, center = x.scale(latency.p50_ms), y.scale(figure)
        if with_bars:
            drawing.line(at, y.scale(low), at, y.scale(high), f"{css} bar")
            for end in (low, high):
                drawing.line(at - 5, y.scale(end), at + 5, y.scale(end), f"{css} bar")
            labels.block(at - 6, y.scale(high), at + 6, y.scale(low))
        labels.block(at - 9, center - 9, at + 9, center + 9)
    for (name, css, _, latency), figure, bar in zip(entries, scores, bars, strict=True):
        at, center = x.scale(latency.p50_ms), y.scale(figure)
        caption = f"{name}: {units.percent(figure)}, {units.milliseconds(latency.p50_ms)} median"
        caption += f", 95% interval {units.interval(bar)}" if with_bars else ""
        if css == "st":
            drawing.diamond(at, center, 8, f"{css} dot", caption)
        else:
            if name == measure.default:
                drawing.circle(at, center, 11, f"{css} ring")
            drawing.circle(at, center, 6.5, f"{css} dot", caption)
        short = "Teacher" if css == "st" and small else shorten(name, 20 if small else 30)
        figures = f"{units.percent(figure)}, {units.milliseconds(latency.p50_ms)}"
        labels.place(drawing, at, center, [(short, "name"), *([] if small else [(figures, "note")])])
    _gain_bracket(drawing, x.scale, measure)
    label = f"{units.metric_title(measure.metric)} on validation against median latency"
    described = "; ".join(
        f"{name} {units.percent(s)} at {units.milliseconds(latency.p50_ms)}"
        for (name, _, _, latency), s in zip(entries, scores, strict=True)
    )
    return drawing.render(label, f"{described}; floor {units.percent(measure.floor)}")


def latency_axis(values: Sequence[float], left: float, right: float, small: bool) -> Axis:
    """Milliseconds by logarithm from `left` to `right`, with room around the values."""
    low, high = min(values), max(values)
    margin = max((high / low) ** 0.14, 1.25)
    low, high = low / margin, high * margin
    scale = Scale(low=low, high=high, start=left, end=right, log=True)
    ticks = log_ticks(low, high, 6 if small else 10)
    return Axis(scale=scale, ticks=ticks, write=lambda v: f"{v:g}", title="Median latency, ms (log scale)")


def score_axis(values: Sequence[float], top: float, bottom: float, metric: str) -> Axis:
    """A validation score from `bottom` to `top`, with room around the values."""
    low, high = min(values), max(values)
    pad = max(0.08 * (high - low), 0.004)
    low, high = max(low - pad, 0.0), min(high + pad, 1.0)
    scale = Scale(low=low, high=high, start=bottom, end=top)
    ticks = linear_ticks(low, high, 5)
    digits = 0 if all(abs(100 * t - round(100 * t)) < 1e-6 for t in ticks) else 1
    title = f"{units.metric_title(metric)}, validation"
    return Axis(scale=scale, ticks=ticks, write=lambda v: units.percent(v, digits), title=title)


def _floor_line(drawing: Drawing, labels: Labels, x: Scale, y: Scale, floor: float) -> None:
    at = y(floor)
    drawing.rect(x.start, at, x.end - x.start, max(y.start - at, 0), "under-floor")
    drawing.line(x.start, at, x.end, at, "floor")
    text = f"floor {units.percent(floor)}"
    drawing.text(x.end - 4, at + 15, text, "floor-text", anchor="end")
    labels.block(x.end - 84, at, x.end, at + 18)
    labels.block(x.start, at - 2, x.end, at + 2)


def _gain_bracket(drawing: Drawing, x: Scale, measure: MeasureRecord) -> None:
    shipped = shipped_variant(measure)
    gain = ratio(measure.teacher_latency.p50_ms, shipped.latency.p50_ms)
    here, there = x(shipped.latency.p50_ms), x(measure.teacher_latency.p50_ms)
    if gain <= 1.0 or there - here < 90:
        return
    middle, text = (here + there) / 2, f"{units.times(gain)} lower"
    half = 4.0 * len(text) + 6
    for start, end, tip in ((here, middle - half, here), (middle + half, there, there)):
        drawing.line(start, 14, end, 14, "bracket")
        drawing.line(tip, 9, tip, 19, "bracket")
    drawing.text(middle, 18.5, text, "gain", anchor="middle")


def latency_cdf(measure: MeasureRecord, width: float) -> str:
    """`cumulative` of the teacher and every variant."""
    entries = [(TEACHER, "st", measure.teacher_latency)]
    entries += [(v.name, series_class(i), v.latency) for i, v in enumerate(measure.variants)]
    return cumulative(entries, width)


def cumulative(series: Sequence[tuple[str, str, Latency]], width: float) -> str:
    """Share of calls that took at most so long, from the raw samples; empty text without samples.

    `series` holds names, the CSS classes that carry their colours, and latencies.
    """
    small = width < NARROW
    entries = [e for e in series if len(e[2].samples_ms) > 1]
    if not entries:
        return ""
    drawing = Drawing(width, 270 if small else 300)
    low = min(min(e[2].samples_ms) for e in entries)
    high = max(max(e[2].samples_ms) for e in entries)
    bottom = drawing.height - 50
    x_scale = Scale(low=low / 1.08, high=high * 1.08, start=50, end=width - 20, log=True)
    ticks = log_ticks(x_scale.low, x_scale.high, 6 if small else 10)
    x = Axis(
        scale=x_scale, ticks=ticks, write=lambda v: f"{v:g}", title="Latency of one call, ms (log scale)"
    )
    y_scale = Scale(low=0, high=1, start=bottom, end=34)
    y = Axis(
        scale=y_scale,
        ticks=[0, 0.25, 0.5, 0.75, 0.9, 1.0],
        write=lambda v: units.percent(v, 0),
        title="Share of calls",
    )
    draw_axes(drawing, x, y)
    for name, css, latency in entries:
        caption = (
            f"{name}: p50 {units.milliseconds(latency.p50_ms)}, p90 {units.milliseconds(latency.p90_ms)}, "
        )
        caption += f"p99 {units.milliseconds(latency.p99_ms)}, {latency.runs} calls"
        drawing.path(_cdf(latency, x_scale, y_scale), f"{css} curve", caption)
        drawing.circle(x_scale(latency.p50_ms), y_scale(0.5), 4, f"{css} dot", caption)
    described = "; ".join(f"{name} median {units.milliseconds(s.p50_ms)}" for name, _, s in entries)
    return drawing.render("Cumulative distribution of latency", described)


def _cdf(latency: Latency, x: Scale, y: Scale) -> list[Point]:
    samples = sorted(latency.samples_ms)
    total = len(samples)
    step = math.ceil(total / _MOST_CDF_POINTS)
    kept = sorted({*range(0, total, step), total - 1})
    points: list[Point] = [(x(samples[0]), y(0.0))]
    for i in kept:
        points += [(x(samples[i]), points[-1][1]), (x(samples[i]), y((i + 1) / total))]
    return points
