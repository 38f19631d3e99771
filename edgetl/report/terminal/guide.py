"""A page of the manual in the terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgetl.guide import Page
from edgetl.shell import command

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 100
"""Longer lines of prose are hard to read."""
_TO_PAGE = re.compile(r"\[([^\]]+)\]\(([a-z-]+)\.md(?:#[a-z0-9-]+)?\)")
_TO_FILE = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")


def guide(console: Console, shown: Page) -> None:
    """Print a page: laid out on a terminal, elsewhere as the Markdown that it is, for pagers, `grep` and copies."""
    if not console.is_terminal:
        console.file.write(shown.text)
        return
    from rich.markdown import Markdown

    text = _typed(shown.text) if shown.topic else shown.text
    text = _TO_FILE.sub(r"\1", text)
    laid_out = Markdown(text, code_theme="ansi_dark", hyperlinks=False)
    console.print(laid_out, width=min(_WIDTH, console.width))


def _typed(text: str) -> str:
    """Links to other pages as what to type for them; the index says so itself, in its list."""

    def as_command(found: re.Match[str]) -> str:
        label, name = found[1], found[2]
        return f"{label} (`{command('guide', name)}`)"

    return _TO_PAGE.sub(as_command, text)
