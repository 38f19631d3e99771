"""A class that was added on a device, or forgotten, as tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.records.enrol import EnrolRecord
from edgetl.report import units
from edgetl.report.terminal.tables import HeaderCell, TableLine, numbers, pairs, say, table

if TYPE_CHECKING:
    from rich.console import Console


def enrolled(console: Console, record: EnrolRecord) -> None:
    """What the new bundle answers, and what adding the class does to the others."""
    done = (
        f"{record.label} is forgotten"
        if record.forgotten
        else f"{record.label} is added, from {units.counted(record.pictures, 'picture')}"
    )
    pairs(
        console,
        [
            ("wrote", f"{record.path}, not signed"),
            ("classes", ", ".join(record.labels)),
            (
                "answered with an added class",
                f"{record.false_alarms:.2%} of trained classes' images, by calibration",
            ),
            ("time", units.duration(record.seconds)),
        ],
        title=done,
    )
    heads = (
        HeaderCell(text="variant", keep=True),
        *numbers(
            "validation\nimages",
            "top-1\nbefore",
            "top-1\nnow",
            "answered\nwith added",
            "pictures\nfound again",
        ),
    )
    lines = [
        TableLine(
            cells=(
                one.name,
                units.count(one.images),
                units.percent(one.before),
                units.percent(one.after),
                units.percent(one.added),
                "-" if one.found is None else f"{one.found} of {record.pictures}",
            )
        )
        for one in record.variants
    ]
    table(console, heads, lines)
    if record.left_out:
        pairs(console, [(f"without {name}", reason) for name, reason in record.left_out])
    for note in record.notes:
        say(console, f"Warning: {note}", "bad")
