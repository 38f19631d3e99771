"""Small pieces of HTML: escaped text, tables, figures, legends, definition lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDE, NARROW = 1040.0, 360.0
HALF = 510.0
_WORTH_SORTING = 3
"""Rows from which on a table can be sorted."""


class Markup(str):
    """Text that is HTML already; plain `str` is escaped where it is put on the page."""

    __slots__ = ()


def html(content: str) -> Markup:
    """`content` as HTML: escaped unless it is `Markup`."""
    return content if isinstance(content, Markup) else Markup(escape(content, quote=True))


def tag(name: str, *children: str, css: str = "", **attributes: str) -> Markup:
    """An element; children and attribute values are escaped, underscores in attribute names become dashes."""
    pairs = {"class": css, **{key.replace("_", "-"): value for key, value in attributes.items()}}
    written = "".join(f' {key}="{escape(value, quote=True)}"' for key, value in pairs.items() if value)
    return Markup(f"<{name}{written}>{''.join(html(c) for c in children)}</{name}>")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A table column. `number` aligns right; `hint` is a tooltip; `wide_only` hides it on small screens."""

    header: str
    number: bool = False
    hint: str = ""
    wide_only: bool = False

    @property
    def css(self) -> str:
        """The cells' CSS classes."""
        return " ".join(name for name, on in (("n", self.number), ("wide-only", self.wide_only)) if on)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A table row: its cells, the first being its name, and a CSS class."""

    cells: tuple[str, ...]
    css: str = ""


def table(columns: Sequence[Column], rows: Sequence[Row], caption: str) -> Markup:
    """A table that scrolls sideways on small screens, and can be sorted. `caption` is read out, not shown."""
    head = [
        tag("th", c.header, css=c.css, title=c.hint, scope="col") if c.header else tag("td", css=c.css)
        for c in columns
    ]
    body = []
    for row in rows:
        cells = [tag("th", row.cells[0], css=columns[0].css, scope="row")]
        cells += [tag("td", c, css=k.css) for c, k in zip(row.cells[1:], columns[1:], strict=True)]
        body.append(tag("tr", *cells, css=row.css))
    content = (tag("caption", caption), tag("thead", tag("tr", *head)), tag("tbody", *body))
    css = "sortable" if len(rows) >= _WORTH_SORTING else ""
    return tag(
        "div", tag("table", *content, css=css), css="scroll", tabindex="0", role="region", aria_label=caption
    )


def figure(
    draw: Callable[[float], str], caption: str = "", *, wide: float = WIDE, narrow: float = NARROW
) -> Markup:
    """A drawing made for wide and for small screens, of which one is shown; empty without a drawing."""
    large = draw(wide)
    if not large:
        return Markup("")
    parts = [tag("div", Markup(large), css="wide"), tag("div", Markup(draw(narrow)), css="narrow")]
    if caption:
        parts.append(tag("figcaption", caption))
    return tag("figure", *parts, style=f"max-width:{1.1 * wide:.0f}px")


def legend(entries: Sequence[tuple[str, str, str]]) -> Markup:
    """Names of series: (name, class that carries the colour, mark: dot, line, hollow, diamond or cell)."""
    items = [
        tag("li", tag("i", css=f"key {kind} {css}", aria_hidden="true"), name) for name, css, kind in entries
    ]
    return tag("ul", *items, css="legend")


def definitions(pairs: Sequence[tuple[str, str]]) -> Markup:
    """Names and values; pairs without a value are left out, and markup gets a line of its own."""
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", value), css="long" if isinstance(value, Markup) else "")
            for name, value in pairs
            if value
        ),
    )


def section(anchor: str, title: str, *children: str, lead: str = "") -> Markup:
    """A titled part of the page."""
    inner = [tag("h2", title, id=f"{anchor}-title")]
    if lead:
        inner.append(tag("p", lead, css="lead"))
    return tag("section", *inner, *children, id=anchor, aria_labelledby=f"{anchor}-title")


def verbatim(text: str) -> Markup:
    """Lines as they are, which scroll by the keyboard too where they are wider than the page."""
    return tag("pre", text, tabindex="0")


def columns(*children: str) -> Markup:
    """Children side by side where there is room."""
    return tag("div", *children, css="columns")


def disclosure(summary: str, *children: str) -> Markup:
    """Content that opens on a click, without a script."""
    return tag("details", tag("summary", summary), *children)


def meter(share: float, css: str = "") -> Markup:
    """A small bar whose length is `share` of its cell."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}%"
    return tag("span", tag("span", style=f"width:{width}"), css=f"meter {css}".strip(), aria_hidden="true")


def sentence(text: str) -> str:
    """`text` with a full stop."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) or not text else f"{text}."


def warning_box(warnings: Sequence[str]) -> Markup:
    """Warnings as a box with a list; empty where there are none."""
    if not warnings:
        return Markup("")
    items = tag("ul", *(tag("li", sentence(text)) for text in warnings))
    return tag("div", tag("h2", "Warnings"), items, css="warnings", role="note")
