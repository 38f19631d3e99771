"""A ranking of backbones and input sizes as a table in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.records.transfer import BackboneRanking
from edgetl.report import units
from edgetl.report.terminal.tables import TableLine, Tone, numbers, pairs, say, table, text
from edgetl.report.transfer import cells, remarks

if TYPE_CHECKING:
    from rich.console import Console


def suggest(console: Console, record: BackboneRanking) -> None:
    """Every candidate, the best first; then what is proposed, and the lines for the recipe."""
    lines = []
    for position, one in enumerate(record.candidates):
        tone: Tone = (
            "strong" if position == record.proposed else "faint" if one.within_budget is False else "plain"
        )
        lines.append(TableLine(cells=(*cells(one), ", ".join(remarks(record, position))), tone=tone))
    heads = (
        *text("backbone"),
        *numbers(
            "px",
            f"probe\n{units.metric(record.metric)}",
            "95%\ninterval",
            "LogME",
            "p50\nms",
            "MACs",
            "parameters",
        ),
        *text(""),
    )
    table(console, heads, lines)
    timed = f"{units.counted(record.choice.latency.threads, 'thread')}, {record.machine.fingerprint}"
    pairs(
        console,
        [
            ("images", f"{record.train_images} to learn from, {record.val_images} to score on; none of test"),
            ("latency", f"one image, float32, neither cut nor quantized; {timed}"),
            ("time", units.duration(record.seconds)),
        ],
    )
    for left_out in record.skipped:
        say(console, f"Skipped {left_out.name}: {left_out.reason}", "faint")
    if record.skipped:
        say(console, "")
    say(console, f"Proposed: {record.reason}.")
    for line in record.settings:
        say(console, f"  {line}", "strong")
