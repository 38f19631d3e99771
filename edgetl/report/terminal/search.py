"""A search as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.records.search import SearchRecord, TrialState
from edgetl.report import units
from edgetl.report.search import budget_words, cells, is_chosen, remarks, run_cells, tally
from edgetl.report.terminal.tables import TableLine, Tone, numbers, pairs, say, table, text

if TYPE_CHECKING:
    from rich.console import Console


def search(console: Console, record: SearchRecord) -> None:
    """Every trial, by its latency; then the ordinary runs, and what came of it."""
    lines = []
    for one in sorted(record.trials, key=lambda one: (one.ms is None, one.ms or 0.0, one.number)):
        learned = one.state is TrialState.TRAINED
        tone: Tone = "strong" if is_chosen(record, one) else "plain" if learned else "faint"
        lines.append(TableLine(cells=(*cells(one), ", ".join(remarks(record, one))), tone=tone))
    title = units.metric(record.metric)
    heads = (
        *numbers("trial"),
        *text("network"),
        *numbers("px", "MACs\nkept", "blocks\nout", "p50\nms"),
        *text("as"),
        *numbers("file", f"{title},\nvalidation", "loss", "epochs"),
        *text(""),
    )
    if lines:
        table(console, heads, lines)
    runs = [
        TableLine(
            cells=run_cells(final),
            tone="good" if final.holds else "bad",
        )
        for final in record.finals
    ]
    if runs:
        run_heads = (
            *text("ordinary run", "ships"),
            *numbers("p50\nms", "file", f"{title},\nvalidation", f"{title},\ntest", "took"),
            *text(""),
        )
        table(console, run_heads, runs)
    teacher = record.teacher
    interval = f" ({units.interval(teacher.interval)})" if teacher.interval else ""
    error = "" if record.table_error is None else f"off by {record.table_error:.1%} in the median"
    pairs(
        console,
        [
            ("asked", budget_words(record.budget)),
            ("teacher", f"{units.percent(teacher.value)}{interval}"),
            ("least possible", f"{units.milliseconds(record.least_ms)}, {record.least}"),
            ("tried", tally(record)),
            ("latency table", error),
            ("kept in", f"{record.storage}, study {record.study}"),
            ("machine", record.machine.fingerprint),
            ("time", units.duration(record.seconds)),
        ],
    )
    say(
        console,
        f"{'Found' if record.holds else 'Not found'}: {record.reason}.",
        "good" if record.holds else "bad",
    )
    for line in record.settings:
        say(console, f"  {line}", "strong")
    if record.chosen is not None:
        say(console, f"Bundle: {record.chosen.bundle}")
