"""Names of classes: which cannot be used, and which look like one another."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from edgetl.text import few

LONGEST = 200
"""Characters of a class's name; a longer one is a mistake, and fits no table."""


def fault(label: str) -> str:
    """Why a name cannot be a class's, since files of one name a line would break; nothing where it can.

    Line breaks and other control characters are refused, and bytes of a folder's name that are not UTF-8 text.
    """
    if not _key(label):
        return f"the class name {label!r} is empty"
    if len(label) > LONGEST:
        return f"the class name {label[:40]!r}... has {len(label)} characters; at most {LONGEST} are taken"
    for character in label:
        match unicodedata.category(character):
            case "Cc" | "Zl" | "Zp":
                return f"the class name {label!r} holds a control character or line break"
            case "Cs":
                return f"the class name {label!r} is not UTF-8 text"
    return ""


def alike(labels: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of names that a reader may take for one: they differ in case, spaces, invisible characters or form."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[_key(label)].append(label)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def question(groups: Iterable[tuple[str, ...]]) -> str:
    """What to ask about such groups, in one sentence; invisible characters are shown."""
    texts = [" and ".join(repr(label) for label in group) for group in groups]
    return f"These classes look alike: {few(texts, 5, by='; ')}. Are they meant to be different? If not, join them."


def _key(label: str) -> str:
    """The same for names that look the same: compatibility form, no case, no invisible characters, single spaces."""
    text = unicodedata.normalize("NFKC", label).casefold()
    return " ".join("".join(c for c in text if unicodedata.category(c) != "Cf").split())
