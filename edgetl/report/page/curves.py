"""Training curves over all phases, and pruning step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from edgetl.records.prune import PruneRecord
from edgetl.records.scores import value
from edgetl.records.train import EpochRecord, TrainRecord
from edgetl.report import units
from edgetl.report.page.axes import NARROW, Axis, draw_axes
from edgetl.report.page.svg import Drawing, Point, Scale, linear_ticks, text_width
from edgetl.report.run import ratio
from edgetl.tasks.base import MetricSpec

_DOTS_UP_TO = 80


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve over the epochs: its name, CSS classes and the figure that it shows."""

    name: str
    css: str
    value: Callable[[EpochRecord], float]


LOSSES = (
    Line(name="training", css="c-train", value=lambda e: e.loss),
    Line(name="validation", css="c-val", value=lambda e: e.val_loss),
)


def score_lines(metrics: Sequence[MetricSpec]) -> tuple[Line, ...]:
    """The curves of a task's first two metrics on the validation split."""

    def line(css: str, metric: MetricSpec) -> Line:
        return Line(name=metric.title, css=css, value=lambda epoch: value(epoch.val, metric.name))

    return tuple(line(css, metric) for css, metric in zip(("c-val", "c-f1"), metrics, strict=False))


def all_epochs(
    teacher: TrainRecord, prune: PruneRecord | None, student: TrainRecord
) -> tuple[EpochRecord, ...]:
    """Every epoch of the run in the order of the flow."""
    return teacher.epochs + (prune.epochs if prune else ()) + student.epochs


def phase_group(phase: str) -> str:
    """The name of the band that a phase belongs to: all recoveries are one band."""
    if phase.startswith("recover"):
        return "prune recovery"
    return "sparse training" if phase == "sparse" else phase


def training_curves(
    epochs: Sequence[EpochRecord], lines: Sequence[Line], title: str, share: bool, width: float
) -> str:
    """Curves over all epochs with a shaded band a phase. Lines break between phases, whose losses differ.

    `share`: the figures are in 0..1 and are written in per cent.
    """
    if not epochs:
        return ""
    drawing = Drawing(width, 250 if width < NARROW else 290)
    bottom, top = drawing.height - 50, 30.0
    x_scale = Scale(low=0.5, high=len(epochs) + 0.5, start=50, end=width - 12)
    values = [line.value(e) for e in epochs for line in lines]
    low, high = (min(values), 1.0) if share else (0.0, max(values))
    low = max(low - 0.06 * (high - low), 0.0)
    y_scale = Scale(low=low, high=high if high > low else low + 1, start=bottom, end=top)
    _bands(drawing, epochs, x_scale, top, bottom)
    ticks = sorted({max(round(t), 1) for t in linear_ticks(1, max(len(epochs), 2), 6)})
    x = Axis(
        scale=x_scale,
        ticks=[t for t in ticks if t <= len(epochs)],
        write=lambda v: f"{v:.0f}",
        title="Epoch of the run",
    )
    write = _share_writer(linear_ticks(low, high)) if share else units_plain
    y = Axis(scale=y_scale, ticks=linear_ticks(low, y_scale.high), write=write, title="")
    draw_axes(drawing, x, y)
    for line in lines:
        _curve(drawing, epochs, line, x_scale, y_scale, units.percent if share else units_plain)
    exact = units.percent if share else units_plain
    last = ", ".join(f"{line.name} {exact(line.value(epochs[-1]))}" for line in lines)
    return drawing.render(f"{title} over {len(epochs)} epochs", f"At the end: {last}")


def units_plain(value: float) -> str:
    """A loss as short text."""
    return f"{value:.3g}"


def _share_writer(ticks: Sequence[float]) -> Callable[[float], str]:
    digits = 0 if all(abs(100 * t - round(100 * t)) < 1e-6 for t in ticks) else 1
    return lambda value: units.percent(value, digits)


def _curve(
    drawing: Drawing,
    epochs: Sequence[EpochRecord],
    line: Line,
    x: Scale,
    y: Scale,
    write: Callable[[float], str],
) -> None:
    numbered = list(enumerate(epochs, start=1))
    for _, run in groupby(numbered, key=lambda item: item[1].phase):
        points: list[Point] = []
        for number, epoch in run:
            points.append((x(number), y(line.value(epoch))))
            if len(epochs) <= _DOTS_UP_TO:
                caption = (
                    f"epoch {number} ({epoch.phase} {epoch.epoch}): {line.name} {write(line.value(epoch))}"
                )
                drawing.circle(*points[-1], 2.6, f"{line.css} dot small", caption)
        drawing.path(points, f"{line.css} curve")
        if len(points) == 1 and len(epochs) > _DOTS_UP_TO:
            drawing.circle(*points[0], 2, f"{line.css} dot small")


def _bands(drawing: Drawing, epochs: Sequence[EpochRecord], x: Scale, top: float, bottom: float) -> None:
    done, text_end = 0, 0.0
    texts: list[tuple[float, str]] = []
    for i, (name, run) in enumerate(groupby(epochs, key=lambda e: phase_group(e.phase))):
        length = len(list(run))
        left, right = x(done + 0.5), x(done + length + 0.5)
        drawing.rect(
            left,
            top - 20,
            right - left,
            bottom - top + 20,
            f"band b{i % 2}",
            title=f"{name}: {length} epochs",
        )
        # A band too thin for its name says the last word of it, or nothing.
        for text in (name, name.rpartition(" ")[2]):
            size = text_width(text, 11)
            start = max((left + right - size) / 2, text_end)
            if start + size <= right + 3:
                texts.append((start, text))
                text_end = start + size + 4
                break
        done += length
    for start, text in texts:
        drawing.text(start, top - 7, text, "phase")


def pruning_steps(
    prune: PruneRecord, teacher: TrainRecord, student: TrainRecord, chance: float | None, width: float
) -> str:
    """The validation score against the share of MACs left: right after each cut, after recovery, and in one shot.

    `chance` is what guessing would score, where that is known.
    """
    if not prune.steps:
        return ""
    drawing = Drawing(width, 290 if width < NARROW else 320)
    bottom, whole = drawing.height - 50, prune.before.macs
    shares = [ratio(s.macs, whole) for s in prune.steps]
    end_share, end = ratio(student.size.macs, whole), value(student.val, prune.metric)
    once = prune.one_shot
    low_x = max(min([*shares, end_share, *([ratio(once.macs, whole)] if once else [])]) - 0.06, 0.0)
    x_scale = Scale(low=low_x, high=1.03, start=width - 20, end=50)
    y_scale = Scale(low=0, high=1, start=bottom, end=34)
    x = Axis(
        scale=x_scale,
        ticks=linear_ticks(low_x, 1.0, 5 if width < NARROW else 8),
        write=lambda v: units.percent(v, 0),
        title=f"Multiply-accumulates left (of the {'uncut' if prune.network else 'teacher'}'s)",
    )
    y = Axis(
        scale=y_scale,
        ticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0],
        write=lambda v: units.percent(v, 0),
        title=f"{units.metric_title(prune.metric)}, validation",
    )
    draw_axes(drawing, x, y)
    if chance is not None:
        drawing.line(50, y_scale(chance), width - 20, y_scale(chance), "chance")
        drawing.text(54, y_scale(chance) - 5, f"chance {units.percent(chance)}", "note")
    begun = value(teacher.val, prune.metric)
    before = (x_scale(1.0), y_scale(begun))
    alive = [before]
    for step, share in zip(prune.steps, shares, strict=True):
        cut, back = (x_scale(share), y_scale(step.cut)), (x_scale(share), y_scale(step.score))
        drawing.path([alive[-1], cut, back], "c-cut thin")
        alive.append(back)
    drawing.path(alive, "c-val curve")
    if once is not None:
        spot = (x_scale(ratio(once.macs, whole)), y_scale(once.cut))
        drawing.path([before, spot], "c-once thin")
        caption = (
            f"one cut to {units.percent(ratio(once.macs, whole))} of the MACs: {units.percent(once.cut)}"
        )
        drawing.diamond(*spot, 6, "c-once dot", caption)
    drawing.diamond(*before, 6.5, "st dot", f"teacher: {units.percent(begun)}")
    for step, share in zip(prune.steps, shares, strict=True):
        at = f"step {step.step}, {units.percent(share)} of the MACs"
        drawing.circle(
            x_scale(share),
            y_scale(step.cut),
            4,
            "c-cut hollow",
            f"{at}, after the cut: {units.percent(step.cut)}",
        )
        drawing.circle(
            x_scale(share),
            y_scale(step.score),
            4.5,
            "c-val dot",
            f"{at}, after recovery: {units.percent(step.score)}",
        )
    if student.epochs:
        caption = (
            f"student after distillation: {units.percent(end)} at {units.percent(end_share)} of the MACs"
        )
        drawing.circle(x_scale(end_share), y_scale(end), 6.5, "c-f1 dot", caption)
    described = "; ".join(
        f"step {s.step} {units.percent(s.cut)} after the cut, {units.percent(s.score)} after recovery"
        for s in prune.steps
    )
    if once is not None:
        described += f"; one cut to the target {units.percent(once.cut)}"
    return drawing.render("Pruning step by step", described)
