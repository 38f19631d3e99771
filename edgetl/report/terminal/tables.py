"""Rich tables of plain text: nothing in a label or path is taken for markup or for a terminal's control code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Tone = Literal["plain", "good", "bad", "strong", "faint"]

_STYLES: dict[Tone, str] = {"plain": "", "good": "green", "bad": "red", "strong": "bold", "faint": "dim"}


@dataclass(frozen=True, kw_only=True)
class HeaderCell:
    """A column: its header (may have two lines), whether it holds figures (aligned right), whether it must not wrap.

    Figures never wrap.
    """

    text: str
    number: bool = False
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class TableLine:
    """A row of cells with a tone."""

    cells: tuple[str, ...]
    tone: Tone = "plain"


def text(*headers: str) -> tuple[HeaderCell, ...]:
    """Columns of text."""
    return tuple(HeaderCell(text=h) for h in headers)


def numbers(*headers: str) -> tuple[HeaderCell, ...]:
    """Columns of figures."""
    return tuple(HeaderCell(text=h, number=True) for h in headers)


def table(console: Console, heads: Sequence[HeaderCell], lines: Sequence[TableLine], title: str = "") -> None:
    """Print a table, with its title on a line before it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if title:
        say(console, title, "strong")
    grid = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )
    rows = [[printable(cell) for cell in line.cells] for line in lines]
    for i, head in enumerate(heads):
        justify: Literal["left", "right"] = "right" if head.number else "left"
        whole = head.number or head.keep
        # A figure that lost digits would lie, so such a column never shrinks.
        least = max([*map(len, head.text.split("\n")), *(len(row[i]) for row in rows)]) if whole else None
        grid.add_column(
            head.text, justify=justify, no_wrap=whole, min_width=least, overflow="fold", vertical="top"
        )
    for row, line in zip(rows, lines, strict=True):
        grid.add_row(*map(Text, row), style=_STYLES[line.tone])
    _show(console, grid)


def pairs(console: Console, entries: Sequence[tuple[str, str]], title: str = "") -> None:
    """Print names and values in two columns; pairs without a value are left out."""
    from rich.table import Table
    from rich.text import Text

    if title:
        say(console, title, "strong")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in entries:
        if value:
            grid.add_row(name, Text(printable(value)))
    _show(console, grid)


def _show(console: Console, grid: Table) -> None:
    """Print with an empty line after it and without the spaces that rich leaves at line ends."""
    with console.capture() as captured:
        console.print(grid, crop=False)
    console.file.write("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")) + "\n\n")


def say(console: Console, content: str, tone: Tone = "plain") -> None:
    """Print one paragraph."""
    from rich.text import Text

    console.print(Text(printable(content), style=_STYLES[tone]))


def printable(content: str) -> str:
    """`content` with line breaks as spaces and everything else that is not printable as `?`."""
    content = " ".join(content.splitlines()) if len(content.splitlines()) > 1 else content.rstrip("\r\n")
    return content if content.isprintable() else "".join(c if c.isprintable() else "?" for c in content)
