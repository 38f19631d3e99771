"""The page of a run that is under way: what it does now and since when, what is done, and its curves so far."""

from __future__ import annotations

from datetime import datetime

from edgetl.report import units
from edgetl.report.live import NOT_ASKED, LiveRun, LiveStage, LiveTask
from edgetl.report.page.curves import LOSSES, score_lines, training_curves
from edgetl.report.page.document import document
from edgetl.report.page.markup import (
    HALF,
    Column,
    Markup,
    Row,
    columns,
    figure,
    legend,
    section,
    sentence,
    table,
    tag,
    warning_box,
)
from edgetl.report.page.script import reloading
from edgetl.tasks.metrics import metric

RELOAD_S = 10


def render(run: LiveRun) -> str:
    """The run as one HTML document, which loads itself again while the run goes on."""
    parts = [
        _ended(run),
        warning_box(run.warnings),
        section("now", "Now", _now(run)) if not run.ended else "",
        section("stages", "Stages", _stages(run)),
        section("training", "Training so far", _curves(run)) if run.epochs else "",
        section("messages", "What was said", _messages(run)) if run.messages else "",
    ]
    body = [_header(run), tag("main", *(Markup(part) for part in parts)), _footer(run)]
    if not run.ended:
        body.append(reloading(RELOAD_S))
    return document(f"{run.name}: run {'ended' if run.ended else 'under way'}", body)


def _header(run: LiveRun) -> Markup:
    state = tag("span", "ended", css="pill warn") if run.ended else tag("span", "under way", css="pill run")
    about = f"Begun {_time(run.begun)}."
    if run.stages and not run.ended:
        stage, number = run.stages[-1], len(run.stages)
        about = f"Stage {number} of {number + len(run.left)}, {stage.name}"
        if stage.begun is not None:
            about += f", since {_time(stage.begun)} ({_since(stage.begun, run.written)})"
        about += f". The run began {_time(run.begun)}. Written {_time(run.written)}."
    box = tag(
        "label",
        Markup(f'<input type="checkbox" id="reload" checked> load this page again every {RELOAD_S} seconds'),
        css="about",
        hidden="hidden",
    )
    return tag(
        "header",
        tag("p", "edgetl run", css="kicker"),
        tag("div", tag("h1", run.name), state, css="title"),
        tag("p", about, css="about"),
        "" if run.ended else box,
    )


def _ended(run: LiveRun) -> Markup:
    if not run.ended:
        return Markup("")
    return tag("div", tag("p", sentence(run.ended)), css="verdict warn", role="note")


def _now(run: LiveRun) -> Markup:
    if not run.tasks:
        return tag("p", "No step of it says how far it is.", css="lead")
    return tag("ul", *(_task(task, run.written) for task in run.tasks), css="now")


def _task(task: LiveTask, written: datetime) -> Markup:
    total = max(task.total, 1)
    done = min(task.done, total)
    passed = (written - task.begun).total_seconds()
    words = f"{units.count(done)} of {units.count(total)}, {units.duration(passed)}"
    if 0 < done < total:
        words += f", about {units.duration(passed * (total - done) / done)} left"
    if task.note:
        words += f", {task.note}"
    bar = Markup(
        f'<progress max="{total}" value="{done}" aria-label="{_attribute(task.description)}"></progress>'
    )
    return tag("li", task.description, ": ", tag("span", words, css="far"), bar)


def _attribute(text: str) -> str:
    from html import escape

    return escape(text, quote=True)


def _stages(run: LiveRun) -> Markup:
    heads = (
        Column(header="Stage"),
        Column(header="Begun"),
        Column(header="Time", number=True),
        Column(header="What came out"),
    )
    rows = [_stage(stage, run) for stage in run.stages]
    rows += [Row(cells=(name, "", "", "to come" if not run.ended else "not done")) for name in run.left]
    return table(heads, rows, "Stages of the run")


def _stage(stage: LiveStage, run: LiveRun) -> Row:
    begun = _time(stage.begun) if stage.begun is not None else ""
    if stage.seconds is not None:
        up_to_date = stage.begun is None and stage.came_to not in ("", NOT_ASKED)
        came_to = stage.came_to + (", up to date" if up_to_date else "")
        return Row(cells=(stage.name, begun, units.duration(stage.seconds) if stage.seconds else "", came_to))
    passed = _since(stage.begun, run.written) if stage.begun is not None else ""
    return Row(
        cells=(stage.name, begun, passed, "not finished" if run.ended else "runs"),
        css="" if run.ended else "default",
    )


def _curves(run: LiveRun) -> Markup:
    names = [name for name in run.epochs[-1].val.scores if all(name in e.val.scores for e in run.epochs)][:2]
    lines = score_lines([metric(name) for name in names])
    loss = tag(
        "div",
        tag("h3", "Loss"),
        legend([(line.name, line.css, "line") for line in LOSSES]),
        figure(lambda width: training_curves(run.epochs, LOSSES, "Loss", False, width), wide=HALF),
    )
    score = tag(
        "div",
        tag("h3", "Validation scores"),
        legend([(line.name, line.css, "line") for line in lines]),
        figure(lambda width: training_curves(run.epochs, lines, "Validation score", True, width), wide=HALF),
    )
    lead = "Epochs that this process did. Losses of different phases are of different kinds."
    return Markup(tag("p", lead, css="lead") + columns(loss, score if lines else ""))


def _messages(run: LiveRun) -> Markup:
    return tag("ul", *(tag("li", text) for text in reversed(run.messages)), css="says log")


def _footer(run: LiveRun) -> Markup:
    goes_on = (
        ""
        if run.ended
        else " The report takes this page's place at the end. Where its time stays behind, the run was killed."
    )
    return tag("footer", f"Written by edgetl, {_time(run.written)}.{goes_on}")


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


def _since(begun: datetime, written: datetime) -> str:
    return units.duration(max((written - begun).total_seconds(), 0.0))
