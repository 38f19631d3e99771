"""A cascade that was made, as tables in the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgetl.records.cascade import Cascade, CascadeRecord
from edgetl.report import units
from edgetl.report.terminal.tables import HeaderCell, TableLine, numbers, pairs, say, table

if TYPE_CHECKING:
    from rich.console import Console

    from edgetl.records.measured import Latency
    from edgetl.records.scores import Score


def cascade(console: Console, record: CascadeRecord) -> None:
    """The models alone and together, on images that had no part in choosing the threshold."""
    found = record.cascade
    heads = (
        HeaderCell(text="model", keep=True),
        *numbers("px", "top-1", "95%\ninterval", "mean\nms", "p99\nms"),
    )
    table(
        console,
        heads,
        [
            _line(found.small.bundle, found.small.size, found.small.top1, None),
            _line(found.large.bundle, found.large.size, found.large.top1, found.large_latency),
            _line("the cascade", found.large.size, found.top1, record.latency, strong=True),
        ],
    )
    pairs(
        console,
        [
            ("rule", rule(found)),
            (
                "judged on",
                f"{units.count(found.judged_on)} images, the threshold chosen on {found.chosen_on} others",
            ),
            (
                "left out",
                f"{units.count(record.left_out)} images that a model was trained on"
                if record.left_out
                else "",
            ),
            (
                "against the larger",
                f"{found.lost} lost, {found.won} won, p = {found.p_value:.2g} (McNemar's exact test)",
            ),
            ("bundle", f"{record.path}, {units.bytes_(record.size_bytes)}, not signed"),
            ("machine", record.machine.fingerprint),
        ],
    )
    reason = record.reason[0].upper() + record.reason[1:]
    say(console, f"{reason}.", "good" if record.holds else "bad")


def rule(found: Cascade) -> str:
    """Who answers what, in a line."""
    return (
        f"{found.small.bundle} ({found.small.size} px) answers where its best class is {_times(found.threshold)} times"
        f" likelier than the second, and hands on {units.percent(found.handed_on)} to {found.large.bundle}"
        f" ({found.large.size} px)"
    )


def _times(threshold: float) -> str:
    """A margin in natural logarithms as a factor."""
    return (
        units.significant(math.exp(threshold)) if threshold < 10 else f"{math.exp(min(threshold, 700)):.1g}"
    )


def _line(name: str, size: int, top1: Score, latency: Latency | None, *, strong: bool = False) -> TableLine:
    times = ("-", "-") if latency is None else (latency.mean_ms, latency.p99_ms)
    return TableLine(
        cells=(
            name,
            str(size),
            units.percent(top1.value),
            units.interval(top1.interval) if top1.interval else "-",
            *(one if isinstance(one, str) else units.significant(one) for one in times),
        ),
        tone="strong" if strong else "plain",
    )
