"""A plot's frame (grid, ticks, axis titles) and labels that keep clear of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgetl.report.page.svg import Drawing, Scale, text_width

NARROW = 480.0
"""Drawings narrower than this are for small screens: fewer ticks, shorter labels."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: its scale, ticks, how a tick is written, and its title."""

    scale: Scale
    ticks: Sequence[float]
    write: Callable[[float], str]
    title: str


def draw_axes(drawing: Drawing, x: Axis, y: Axis) -> None:
    """Draw grid lines, tick labels and titles; the plot's corners are the scales' ends."""
    left, right = sorted((x.scale.start, x.scale.end))
    top, bottom = sorted((y.scale.start, y.scale.end))
    for tick in y.ticks:
        at = y.scale(tick)
        drawing.line(left, at, right, at, "grid")
        drawing.text(left - 7, at + 4, y.write(tick), "tick", anchor="end")
    for tick in x.ticks:
        at = x.scale(tick)
        drawing.line(at, bottom, at, bottom + 4, "axis")
        drawing.text(at, bottom + 17, x.write(tick), "tick", anchor="middle")
    drawing.line(left, bottom, right, bottom, "axis")
    drawing.text((left + right) / 2, bottom + 36, x.title, "title", anchor="middle")
    if y.title:
        drawing.text(left - 7, top - 12, y.title, "title")


@dataclass
class Labels:
    """Places text next to points so that it covers neither points nor other text."""

    left: float
    right: float
    top: float
    bottom: float
    _taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def block(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Keep text out of a box."""
        self._taken.append((x1, y1, x2, y2))

    def place(self, drawing: Drawing, x: float, y: float, lines: Sequence[tuple[str, str]]) -> None:
        """Write `lines` (text, css class) next to the point where they cover least."""
        width, height = max(text_width(text) for text, _ in lines), 15.0 * len(lines)
        options = [
            (x + 12, y - height / 2, "start"),
            (x - 12 - width, y - height / 2, "end"),
            *((x + 12, y - height / 2 + shift, "start") for shift in (-height, height)),
            *((x - 12 - width, y - height / 2 + shift, "end") for shift in (-height, height)),
            (x - width / 2, y - height - 16, "middle"),
            (x - width / 2, y + 16, "middle"),
            *(
                (x + 12, y - height / 2 + shift, "start")
                for shift in (-2 * height, 2 * height, 3 * height, 4 * height)
            ),
        ]
        box_x, box_y, anchor = min(options, key=lambda o: self._overlap(o[0], o[1], width, height))
        self.block(box_x, box_y, box_x + width, box_y + height)
        at = {"start": box_x, "end": box_x + width, "middle": box_x + width / 2}[anchor]
        for i, (text, css) in enumerate(lines):
            drawing.text(at, box_y + 12 + 15 * i, text, css, anchor=anchor)

    def _overlap(self, x: float, y: float, width: float, height: float) -> float:
        out = max(self.left - x, 0) + max(x + width - self.right, 0)
        out += max(self.top - y, 0) + max(y + height - self.bottom, 0)
        area = out * 1000.0
        for x1, y1, x2, y2 in self._taken:
            area += max(min(x2, x + width) - max(x1, x), 0) * max(min(y2, y + height) - max(y1, y), 0)
        return area
