"""Commands as people can paste them into a shell: every word quoted, whatever is in a name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def command(*words: str | Path) -> str:
    """A command of edgetl's, e.g. `command("info", path)`. A path that begins with a dash is made to look like none."""
    return join(["edgetl", *words])


def join(words: Iterable[str | Path]) -> str:
    """Words as one line for a POSIX shell. One of control characters or bytes that are no text is `$'...'`."""
    return " ".join(
        _quote(f"./{w}" if isinstance(w, Path) and str(w).startswith("-") else str(w)) for w in words
    )


def _quote(word: str) -> str:
    import shlex

    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
