"""How sure answers are, as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgetl.records.scores import CoverageScore
from edgetl.records.variants import MeasureRecord
from edgetl.report import units
from edgetl.report.confidence import changes, has_heads, notes
from edgetl.report.terminal.tables import HeaderCell, TableLine, numbers, pairs, say, table, text
from edgetl.tasks.base import LOGITS

if TYPE_CHECKING:
    from rich.console import Console


def confidence(console: Console, measure: MeasureRecord) -> None:
    """Each variant's temperature and calibration, before it and with it, and how often sets hold the truth."""
    found = [(v.name, one) for v in measure.variants for one in v.confidence]
    if not found:
        return
    heads = has_heads(measure)
    asked = max((c.asked for _, one in found for c in one.coverage), default=None)
    columns = (
        HeaderCell(text="model", keep=True),
        *(text("head") if heads else ()),
        *numbers("temper-\nature", "calibration\nerror", "log-loss", "Brier\nscore"),
        *(numbers(f"sets of {asked:.0%}\nhold the truth", "labels\nin a set") if asked else ()),
    )
    lines = []
    for name, one in found:
        own = next((c for c in one.coverage if c.asked == asked), None)
        cells = (
            name,
            *((one.output,) if heads else ()),
            f"{one.temperature:.2f}",
            *changes(one),
            *(
                (units.percent(own.held.value), f"{own.mean_size:.2f}")
                if own
                else ("-", "-")
                if asked
                else ()
            ),
        )
        lines.append(TableLine(cells=cells, tone="strong" if name == measure.default else "plain"))
    split = "test" if found[0][1].split == "test" else "validation"
    table(
        console,
        columns,
        lines,
        title=f"How sure: scores on {split}, at temperature 1 -> with the temperature",
    )
    for sentence in notes(measure):
        say(console, sentence, "faint")


def coverage(console: Console, found: Sequence[CoverageScore]) -> None:
    """How often sets held the truth of labelled images."""
    entries = [
        (
            f"sets of {one.asked:.4g}" + ("" if one.output == LOGITS else f", {one.output}"),
            f"held the truth of {units.percent(one.held.value)} of {units.counted(one.images, 'image')}"
            + (f", 95% interval {units.interval(one.held.interval)}" if one.held.interval else "")
            + f"; {one.mean_size:.2f} labels in a set",
        )
        for one in found
    ]
    pairs(console, entries)
