"""Hand-made inline SVG: scales, ticks, and a drawing whose marks carry CSS classes and tooltips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values `low..high` to pixels `start..end`, linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value; values outside are held at the ends."""
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten) inside `low..high`, about so many."""
    if not high > low:
        return [low]
    rough = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """1, 2, 5 times powers of ten inside `low..high`; only powers of ten where those are too many."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**e for e in exponents for m in multiples if low <= m * 10.0**e <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


@dataclass
class Drawing:
    """An SVG picture of `width` x `height` units that fills the width of its container."""

    width: float
    height: float
    _parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """Draw a straight line."""
        self._parts.append(f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{css}"/>')

    def path(self, points: Sequence[Point], css: str, title: str = "") -> None:
        """Draw straight lines through `points`."""
        if len(points) < 2:
            return
        d = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self._parts.append(f'<path d="{d}" class="{css}">{_title(title)}</path>')

    def rect(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        css: str,
        *,
        title: str = "",
        opacity: float = 1.0,
        radius: float = 0.0,
    ) -> None:
        """Draw a rectangle."""
        extra = f' fill-opacity="{opacity:.3g}"' if opacity < 1 else ""
        extra += f' rx="{_n(radius)}"' if radius else ""
        box = f'x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}"'
        self._parts.append(f'<rect {box} class="{css}"{extra}>{_title(title)}</rect>')

    def circle(self, x: float, y: float, r: float, css: str, title: str = "") -> None:
        """Draw a circle."""
        self._parts.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}" class="{css}">{_title(title)}</circle>'
        )

    def diamond(self, x: float, y: float, r: float, css: str, title: str = "") -> None:
        """Draw a diamond."""
        d = f"M{_n(x)} {_n(y - r)}L{_n(x + r)} {_n(y)}L{_n(x)} {_n(y + r)}L{_n(x - r)} {_n(y)}Z"
        self._parts.append(f'<path d="{d}" class="{css}">{_title(title)}</path>')

    def text(
        self,
        x: float,
        y: float,
        content: str,
        css: str = "",
        *,
        anchor: str = "start",
        turn: float = 0.0,
        title: str = "",
    ) -> None:
        """Write text with its baseline at `y`; `turn` in degrees; `anchor` is start, middle or end."""
        extra = f' text-anchor="{anchor}"' if anchor != "start" else ""
        extra += f' transform="rotate({_n(turn)} {_n(x)} {_n(y)})"' if turn else ""
        extra += f' class="{css}"' if css else ""
        self._parts.append(f'<text x="{_n(x)}" y="{_n(y)}"{extra}>{_title(title)}{escape(content)}</text>')

    def render(self, label: str, description: str = "") -> str:
        """The picture as text; `label` and `description` are read out by screen readers."""
        caption = escape(f"{label}. {description}" if description else label, quote=True)
        return (
            f'<svg viewBox="0 0 {_n(self.width)} {_n(self.height)}" role="img" aria-label="{caption}">'
            f"{''.join(self._parts)}</svg>"
        )


def text_width(content: str, size: float = 12.0) -> float:
    """Estimated width of text in a proportional system font."""
    return 0.56 * size * len(content)


def shorten(content: str, most: int) -> str:
    """At most `most` characters; what is cut is marked by an ellipsis."""
    return content if len(content) <= most else content[: max(most - 1, 1)].rstrip() + "…"


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
