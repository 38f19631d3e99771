"""The front page and the manual as tests read them: blocks, spans, headings, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FRONT = ROOT / "README.md"
FOLDER = ROOT / "edgetl" / "guide"
_BLOCK = re.compile(r"^( *)```([a-z]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Fenced text of a page: in which language, and what."""

    page: Path
    language: str
    text: str


def pages() -> list[Path]:
    """The front page, then the manual's."""
    return [FRONT, *sorted(FOLDER.glob("*.md"))]


def blocks(language: str | None = None) -> list[Block]:
    """Every block of a language, or all."""
    found = []
    for page in pages():
        for indent, kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
            plain = "\n".join(line.removeprefix(indent) for line in text.splitlines())
            found.append(Block(page=page, language=kind, text=plain))
    return [block for block in found if language in (None, block.language)]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """What a page has in backticks, each on one line."""
    flowing = re.sub(r"(?<!\n)\n *(?!\n)", " ", prose(page))
    return [found for _, found in re.findall(r"(`+)(.+?)\1", flowing)]


def shell_lines() -> Iterator[tuple[Path, str]]:
    """Every command that a page shows, in blocks and in backticks."""
    for block in blocks("sh"):
        yield from ((block.page, line) for line in block.text.splitlines() if line)
    for page in pages():
        yield from ((page, span) for span in spans(page) if re.match(r"(edgetl|make|pip) [^.]", span))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    """Where a page's links lead."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))
