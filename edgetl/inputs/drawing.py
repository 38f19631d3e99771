"""Marks drawn into pictures: boxes with a line of text each, and captions. Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLOURS = ("#2a78d6", "#d4541c", "#168a61", "#7a4fc4", "#b3720a", "#c2417c", "#0d8296", "#545c68")
"""Of classes, in their order, again from the start where there are more."""
CAPTION = "#14181f"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box in a picture's pixels, the position of its class, and what is written at it; nothing where empty."""

    box: tuple[float, float, float, float]
    index: int
    text: str = ""


def mark(image: Image.Image, marks: Sequence[Mark]) -> None:
    """Draw boxes into an RGB picture; the first lies on top."""
    draw, width, size = ImageDraw.Draw(image), max(1, round(min(image.size) / 240)), _letters(image)
    for one in reversed(marks):
        draw.rectangle(one.box, outline=COLOURS[one.index % len(COLOURS)], width=width)
    for one in reversed(marks):
        if one.text:
            x, y = one.box[:2]
            _write(draw, (x, y - size - 4), one.text, COLOURS[one.index % len(COLOURS)], image)


def caption(image: Image.Image, text: str) -> None:
    """Write a line into the top left corner of an RGB picture."""
    _write(ImageDraw.Draw(image), (0, 0), text, CAPTION, image)


def _letters(image: Image.Image) -> int:
    return max(10, round(min(image.size) / 32))


def _write(
    draw: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, colour: str, image: Image.Image
) -> None:
    """White text on a colour, moved so that it lies inside the picture."""
    font = ImageFont.load_default(_letters(image))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = max(0.0, min(corner[0], image.width - width))
    y = max(0.0, min(corner[1], image.height - height))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill="white", font=font)
