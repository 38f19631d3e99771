"""Two runs or bundles side by side in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.comparison.record import Comparison
from edgetl.report import units
from edgetl.report.comparison import facts, paired, summary, timing
from edgetl.report.terminal.device import flipped_images, turned_images
from edgetl.report.terminal.tables import TableLine, numbers, say, table, text

if TYPE_CHECKING:
    from rich.console import Console

_SETTINGS_SHOWN = 30


def comparison(console: Console, record: Comparison) -> None:
    """Settings, metrics, the first images that flipped, sizes and latency."""
    first, second = record.first.name, record.second.name
    say(console, f"{first} and {second}", "strong")
    say(console, summary(record))
    console.print()
    if record.settings is not None:
        rows = [
            TableLine(cells=(one.key, one.first, one.second)) for one in record.settings[:_SETTINGS_SHOWN]
        ]
        title = (
            f"{units.counted(len(record.settings), 'setting')} differ"
            if len(record.settings) != 1
            else "1 setting differs"
        )
        if rows:
            table(console, text("setting", first, second), rows, title=title)
        else:
            say(console, "No setting differs.")
    origins = [
        one for one in record.origins if not one.key.startswith("preprocess.") or record.settings is None
    ]
    if origins:
        rows = [TableLine(cells=(one.key, one.first, one.second)) for one in origins]
        table(console, text("made from", first, second), rows)
    heads = (*text("metric"), *numbers(first, second, "change", "interval", "level"))
    table(console, heads, [TableLine(cells=cells) for cells in paired(record)])
    table(
        console,
        (*text(""), *numbers(first, second, "change")),
        [TableLine(cells=cells) for cells in facts(record)],
    )
    if words := timing(record):
        say(console, words)
    if record.flips is not None:
        flipped_images(console, record.flips, (first, second))
    if record.boxes is not None:
        turned_images(console, record.boxes)
    for note in record.notes:
        say(console, f"- {note}", "faint")
