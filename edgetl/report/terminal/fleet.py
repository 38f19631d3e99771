"""A command over many devices as tables in the terminal: one row each, and under it why one is not done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.deploy.fleet.record import FleetRecord, Outcome
from edgetl.report import fleet as sides
from edgetl.report.terminal.tables import HeaderCell, TableLine, Tone, say, table

if TYPE_CHECKING:
    from rich.console import Console

_TONES: dict[Outcome, Tone] = {
    Outcome.DONE: "plain",
    Outcome.FAILED: "bad",
    Outcome.REFUSED: "bad",
    Outcome.AWAY: "faint",
    Outcome.UNSURE: "strong",
}


def fleet(console: Console, record: FleetRecord) -> None:
    """The devices side by side."""
    side = sides.side_by_side(record)
    heads = [HeaderCell(text=head.text, number=head.number, keep=head.keep) for head in side.heads]
    lines = [
        TableLine(cells=cells, tone=_TONES[device.outcome])
        for cells, device in zip(side.rows, record.devices, strict=True)
    ]
    table(console, heads, lines)
    for device in record.devices:
        if device.outcome is not Outcome.DONE:
            say(console, f"{device.device}: {device.sentence}", _TONES[device.outcome])
    say(console, sides.summary(record), "good" if record.exit_code == 0 else "plain")
