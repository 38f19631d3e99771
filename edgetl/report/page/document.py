"""A whole page: its head with title and style sheet, and its body."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgetl.report.page.theme import STYLE


def document(title: str, body: Sequence[str]) -> str:
    """A whole page of the parts of `body`, under its title and style sheet."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )
