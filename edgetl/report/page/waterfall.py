"""The page's waterfall: accuracy, size and latency from the teacher to what ships, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgetl.report import units
from edgetl.report.page.markup import Column, Markup, Row, figure, legend, table, tag
from edgetl.report.page.svg import Drawing, Scale, shorten
from edgetl.report.run import RunReport, in_doubt, ratio
from edgetl.report.waterfall import Step, steps

_LEFT_OF_PANELS = 760.0
"""Drawings at least so wide have the three panels side by side."""
_HEIGHT, _TOP, _FOOT = 210.0, 44.0, 26.0
_LEAST_RANGE = 0.02


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One figure over the stages.

    Attributes:
        title: what it is.
        values: of each stage; None where it was not measured.
        write: a value as text.
        change: a value less the one before it as text.
        higher_is_better: which way is good.
        low: where the axis begins.
    """

    title: str
    values: tuple[float | None, ...]
    write: Callable[[float], str]
    change: Callable[[float, float], str]
    higher_is_better: bool
    low: float


def waterfall(report: RunReport) -> Markup:
    """Three panels, and the same figures as a table."""
    found = steps(report)
    metric = units.metric_title(report.measure.metric)
    panels = _panels(found, f"{metric} on validation")
    lead = (
        "From the records of the stages; what a stage did not time is left open. The teacher's latency is that of eager"
        " torch, so the first step of latency holds the change of engine, too"
    )
    if report.prune is not None and (timed := report.prune.latency) is not None:
        lead += f" (the same teacher in ONNX Runtime: {units.milliseconds(timed.teacher_ms)}, during pruning)"
    lead += ". Compare ratios."
    if doubt := in_doubt(report.measure):
        lead += f" Latencies are in doubt, as {doubt}."
    marks = legend(
        [("whole", "st", "cell"), ("better than before", "c-f1", "cell"), ("worse", "c-cut", "cell")]
    )
    chart = figure(lambda width: draw(found, panels, width))
    return Markup(tag("p", lead, css="lead") + marks + chart + _table(found, metric))


def _panels(found: Sequence[Step], metric: str) -> tuple[Panel, ...]:
    scores = [step.score for step in found]
    low = min(scores) - max(0.35 * (max(scores) - min(scores)), _LEAST_RANGE)
    return (
        Panel(
            title=metric,
            values=tuple(scores),
            write=units.percent,
            change=lambda new, old: units.points(100 * (new - old)),
            higher_is_better=True,
            low=max(low, 0.0),
        ),
        Panel(
            title="Size of the file",
            values=tuple(float(step.size_bytes) for step in found),
            write=lambda value: units.bytes_(round(value)),
            change=_times,
            higher_is_better=False,
            low=0.0,
        ),
        Panel(
            title="Median latency, batch 1",
            values=tuple(step.latency_ms for step in found),
            write=units.milliseconds,
            change=_times,
            higher_is_better=False,
            low=0.0,
        ),
    )


def draw(found: Sequence[Step], panels: Sequence[Panel], width: float) -> str:
    """The panels, side by side where there is room, else one below the other."""
    beside = width >= _LEFT_OF_PANELS
    drawing = Drawing(width, _HEIGHT if beside else _HEIGHT * len(panels))
    gap = 28.0
    wide = (width - gap * (len(panels) - 1)) / len(panels) if beside else width
    for at, panel in enumerate(panels):
        left, top = (at * (wide + gap), 0.0) if beside else (0.0, at * _HEIGHT)
        _draw_panel(drawing, found, panel, left, top, wide)
    described = "; ".join(
        f"{panel.title}: "
        + ", ".join(
            f"{step.name} {panel.write(value) if value is not None else 'not measured'}"
            for step, value in zip(found, panel.values, strict=True)
        )
        for panel in panels
    )
    return drawing.render("What each stage did to accuracy, size and latency", described)


def _draw_panel(
    drawing: Drawing, found: Sequence[Step], panel: Panel, left: float, top: float, wide: float
) -> None:
    known = [value for value in panel.values if value is not None]
    bottom = top + _HEIGHT - _FOOT
    y = Scale(low=panel.low, high=max(max(known), panel.low + 1e-9), start=bottom, end=top + _TOP)
    step_width = wide / len(found)
    bar = min(step_width - 8, 52.0)
    drawing.text(left, top + 14, panel.title, "name")
    drawing.line(left, bottom, left + wide, bottom, "axis")
    before: float | None = None
    for at, (step, value) in enumerate(zip(found, panel.values, strict=True)):
        middle = left + (at + 0.5) * step_width
        drawing.text(middle, bottom + 17, shorten(step.name, 10), "tick tight", anchor="middle")
        if value is None:
            if before is not None:
                drawing.line(middle - step_width / 2, y(before), middle + step_width / 2, y(before), "chance")
                drawing.text(middle, y(before) - 6, "–", "tick", anchor="middle")
            continue
        start, css = (panel.low, "st fill") if before is None else (before, _css(panel, value, before))
        high, low = sorted((y(start), y(value)))
        caption = f"{step.name} ({step.what}): {panel.write(value)}"
        if before is not None:
            caption += f", {panel.change(value, before)}"
            drawing.line(middle - step_width + bar / 2, y(before), middle - bar / 2, y(before), "grid")
        if step.ships:
            drawing.rect(middle - bar / 2, y(value), bar, bottom - y(value), "shipped", radius=3)
        drawing.rect(
            middle - bar / 2,
            high,
            bar,
            max(low - high, 2.0),
            css,
            title=caption,
            radius=2 if low > high else 0,
        )
        falls = before is not None and value < before and low + 16 < bottom
        drawing.text(
            middle, low + 12 if falls else high - 5, panel.write(value), "tick tight", anchor="middle"
        )
        before = value


def _css(panel: Panel, value: float, before: float) -> str:
    if value == before:
        return "st fill"
    better = value > before if panel.higher_is_better else value < before
    return "c-f1 fill" if better else "c-cut fill"


def _table(found: Sequence[Step], metric: str) -> Markup:
    heads = (
        Column(header="After"),
        Column(header="Figures of"),
        Column(header=metric, number=True, hint="on the validation split"),
        Column(header="Points", number=True, hint="less the stage before, in percentage points"),
        Column(header="Size", number=True),
        Column(header="Times", number=True, hint="against the stage before"),
        Column(header="p50 ms", number=True),
        Column(header="Times", number=True, hint="against the last stage that was timed"),
        Column(header="Timed in", wide_only=True),
    )
    rows = []
    score: float | None = None
    size: float | None = None
    latency: float | None = None
    for step in found:
        rows.append(
            Row(
                cells=(
                    step.name,
                    step.what,
                    units.percent(step.score),
                    "" if score is None else units.points(100 * (step.score - score)).removesuffix(" points"),
                    units.bytes_(step.size_bytes),
                    "" if size is None else _times(step.size_bytes, size),
                    "–" if step.latency_ms is None else units.significant(step.latency_ms),
                    "" if latency is None or step.latency_ms is None else _times(step.latency_ms, latency),
                    step.timed or "not timed",
                ),
                css="default" if step.ships else "",
            )
        )
        score, size, latency = step.score, step.size_bytes, step.latency_ms or latency
    return table(heads, rows, "What each stage did to accuracy, size and latency")


def _times(new: float, old: float) -> str:
    """`3.1x less`, `1.2x more`, `equal`."""
    word = units.times(ratio(max(new, old), min(new, old)))
    if not new or not old or word == "1.0x":
        return "equal"
    return f"{word} {'less' if new < old else 'more'}"
