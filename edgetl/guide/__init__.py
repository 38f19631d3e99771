"""The manual: Markdown pages beside this module. `README.md` is its index, in whose order the topics stand.

The pages are read as they are, on a code host or in an editor; `edgetl guide` shows the same files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from edgetl.errors import ConfigError
from edgetl.shell import command

INDEX = "README"
_LINE = re.compile(r"^- \[([a-z-]+)\]\(\1\.md\): (.+)$", re.MULTILINE)
_MOST_PAGES = 3


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One page: its name, which is what `edgetl guide` takes, and what it is about in one sentence."""

    name: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page's Markdown; `topic` is None for the index."""

    topic: Topic | None
    text: str


def topics() -> tuple[Topic, ...]:
    """Every page of the manual but the index, in the order of the index."""
    return tuple(Topic(name=name, summary=summary) for name, summary in _LINE.findall(_read(INDEX)))


def page(name: str | None = None) -> Page:
    """The page of a topic, by its name or its title and whatever the case of the letters; the index for None.

    Raises:
        ConfigError: there is none; the message names the topic that is meant, or the pages that have the word.
    """
    if name is None:
        return Page(topic=None, text=_read(INDEX))
    known = {topic.name: topic for topic in topics()}
    word = name.casefold().removesuffix(".md")
    if word not in known:
        texts = {each: _read(each).casefold() for each in known}
        by_title = {text.partition("\n")[0].removeprefix("# "): each for each, text in texts.items()}
        if word not in by_title:
            raise ConfigError(f"There is no topic {name!r}. {_suggestion(word, by_title, texts)}")
        word = by_title[word]
    return Page(topic=known[word], text=_read(word))


def _suggestion(word: str, by_title: Mapping[str, str], texts: Mapping[str, str]) -> str:
    """What else to type: the nearest name or title, else the pages that have the word, else all."""
    if close := difflib.get_close_matches(word, [*texts, *by_title], n=1, cutoff=0.7):
        found = by_title.get(close[0], close[0])
        return f"Did you mean {found}? Type: {command('guide', found)}"
    # By its share of the page: the long pages of reference have every word.
    shares = {name: text.count(word) / len(text) for name, text in texts.items()} if len(word) > 2 else {}
    if holding := sorted(filter(shares.get, shares), key=lambda name: -shares[name]):
        return f"The word stands in {', '.join(holding[:_MOST_PAGES])}. Type: {command('guide', holding[0])}"
    return f"There are {', '.join(texts)}."


def _read(name: str) -> str:
    return (resources.files("edgetl.guide") / f"{name}.md").read_text(encoding="utf-8")
