"""How unknown images are detected, as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.records.scores import Score, UnknownEvaluation
from edgetl.records.variants import MeasureRecord
from edgetl.report import units
from edgetl.report.terminal.tables import HeaderCell, TableLine, numbers, say, table

if TYPE_CHECKING:
    from rich.console import Console


def chosen(console: Console, measure: MeasureRecord) -> None:
    """By which score each variant tells unknown images, and how it was chosen."""
    found = [(v.name, v.unknown) for v in measure.variants if v.unknown is not None]
    if not found:
        return
    heads = (
        HeaderCell(text="model", keep=True),
        HeaderCell(text="score"),
        *numbers(
            "a class\nleft out",
            "nothing\nknown",
            "softmax:\nleft out",
            "nothing\nknown",
            "false alarms\non test",
        ),
    )
    lines = []
    for name, one in found:
        own = next(trial for trial in one.trials if trial.score == one.score)
        plain = one.trials[0]
        areas = [own.near, own.far, plain.near, plain.far]
        cells = (
            name,
            one.score,
            *("-" if area is None else f"{area:.3f}" for area in areas),
            units.percent(one.false_alarms.value) if one.false_alarms else "-",
        )
        lines.append(TableLine(cells=cells, tone="strong" if name == measure.default else "plain"))
    asked = next((one.asked for _, one in found if one.asked is not None), None)
    rate = f"; false alarms where {units.percent(asked)} are asked for" if asked is not None else ""
    table(console, heads, lines, title=f"Unknown images: AUROC on validation{rate}")


def separation(console: Console, found: UnknownEvaluation) -> None:
    """How well each score tells a folder of unknown images from a set."""
    heads = (
        HeaderCell(text="score", keep=True),
        *numbers("AUROC", "95% interval", "passing where\n95% known do", "95% interval"),
    )
    lines = [
        TableLine(
            cells=(
                one.score,
                f"{one.auroc.value:.3f}",
                _bounds(one.auroc),
                units.percent(one.passing.value),
                units.interval(one.passing.interval) if one.passing.interval else "",
            ),
            tone="strong" if one.used else "plain",
        )
        for one in found.scores
    ]
    title = (
        f"{units.counted(found.images, 'unknown image')} against {units.counted(found.known, 'known one')}"
    )
    table(console, heads, lines, title=title)
    if found.note:
        say(console, found.note, "faint")


def _bounds(score: Score) -> str:
    return "" if score.interval is None else f"{score.interval[0]:.3f} to {score.interval[1]:.3f}"
