"""Pictures with boxes drawn over them, each one self-contained: a small JPEG inside an SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from edgetl.inputs.spec import PreprocessSpec
from edgetl.report.page.markup import Markup

_SIDE = 420
"""Pixels of the longer side of a picture on the page."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box (x1, y1, x2, y2) in the picture's pixels, the CSS class that draws it, and what it says when pointed at."""

    box: tuple[float, float, float, float]
    css: str
    title: str


def boxed(
    path: Path | None,
    size: tuple[int, int],
    marks: Sequence[Mark],
    label: str,
    spec: PreprocessSpec | None = None,
) -> Markup:
    """A picture with marks over it; the marks on an empty one where it cannot be read.

    Args:
        path: the picture, or None.
        size: its width and height in pixels, which the boxes are in.
        marks: the first lies on top.
        label: what a screen reader says of it.
        spec: whose window shows numbers of more than 8 bits as the network sees them.
    """
    width, height = (max(1, side) for side in size)
    parts = [f'<rect width="{width}" height="{height}" class="paper"/>']
    if shown := thumbnail(path, _SIDE, spec):
        parts.append(f'<image href="{shown}" width="{width}" height="{height}" preserveAspectRatio="none"/>')
    for mark in reversed(marks):
        x1, y1, x2, y2 = mark.box
        side = f'x="{x1:.1f}" y="{y1:.1f}" width="{max(0.0, x2 - x1):.1f}" height="{max(0.0, y2 - y1):.1f}"'
        parts.append(f'<rect {side} class="{mark.css}"><title>{escape(mark.title)}</title></rect>')
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" class="boxed" role="img" '
        f'aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg>'
    )


def thumbnail(path: Path | None, side: int, spec: PreprocessSpec | None = None) -> str:
    """A small picture as a `data:` address; empty where there is none that can be read."""
    from edgetl.errors import ImageError
    from edgetl.inputs.image import decode

    if path is None:
        return ""
    try:
        image = decode(path, side, spec=spec)
    except (ImageError, OSError):
        return ""
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
