"""Pieces of sentences."""

from __future__ import annotations

from collections.abc import Sequence


def few(names: Sequence[str], most: int = 3, *, by: str = ", ") -> str:
    """The first names, and how many more there are: `a, b, c and 4 more`."""
    return by.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type's name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
