"""A check for drift as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.records.drift import DriftState, Moved
from edgetl.records.gate import Verdict
from edgetl.report import units
from edgetl.report.terminal.tables import TableLine, Tone, numbers, say, table, text

if TYPE_CHECKING:
    from rich.console import Console

_TONES: dict[Verdict, Tone] = {Verdict.PASS: "good", Verdict.FAIL: "bad", Verdict.UNSURE: "plain"}


def drift(console: Console, state: DriftState) -> None:
    """What moved and by how much, or that nothing did."""
    if state.moved:
        lines = [
            TableLine(
                cells=(
                    one.label or one.name,
                    _figure(one, one.before),
                    _figure(one, one.now),
                    str(one.images),
                    str(one.since),
                )
            )
            for one in state.moved
        ]
        table(
            console, (*text("what moved"), *numbers("reference", "now", "of the last", "since image")), lines
        )
    say(console, state.sentence, _TONES[state.verdict])
    for sentence in state.unwatched:
        say(console, sentence)
    say(
        console,
        f"Against {units.counted(state.reference, 'validation image')}, with a chance of a false alarm of at most"
        f" {units.percent(state.rate)}, for images drawn as these were.",
        "faint",
    )


def _figure(one: Moved, value: float) -> str:
    return f"{value:.0%}" if one.label else f"{value:.3g}"
