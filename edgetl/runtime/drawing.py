"""Predictions drawn into their pictures: boxes with classes and scores, or the answer in the corner. Pillow alone."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgetl import files
from edgetl.inputs.image import decode, to_rgb
from edgetl.inputs.spec import PreprocessSpec
from edgetl.tasks.detection.answers import Detections

if TYPE_CHECKING:
    from edgetl.runtime.session import Channels, Picture
    from edgetl.tasks.all import Prediction

COLOURS = ("#2a78d6", "#d4541c", "#168a61", "#7a4fc4", "#b3720a", "#c2417c", "#0d8296", "#545c68")
"""Of classes, in their order, again from the start where there are more."""
_QUALITY = 92
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Saver:
    """Writes each picture with its answer into a folder, as `NAME.jpg`; a name that is taken gets a number.

    Args:
        folder: where to write; made where it is not there.
        spec: the bundle's, whose window shows numbers of more than 8 bits as the network sees them.
    """

    def __init__(self, folder: Path, spec: PreprocessSpec) -> None:
        self._folder, self._spec = folder, spec
        self._taken: set[str] = set()

    def save(self, name: str, picture: Picture, channels: Channels, prediction: Prediction) -> Path:
        """Write one picture atomically.

        Args:
            name: what results call it.
            picture: as `Session.predict` takes it.
            channels: of an array.
            prediction: its answer.

        Returns:
            The file.

        Raises:
            ImageError: the picture cannot be read again.
            StorageError: the file cannot be written.
        """
        buffer = io.BytesIO()
        drawn(self._upright(picture, channels), prediction).save(buffer, "JPEG", quality=_QUALITY)
        path = self._folder / f"{self._free(name)}.jpg"
        files.write_bytes(path, buffer.getvalue())
        return path

    def _upright(self, picture: Picture, channels: Channels) -> Image.Image:
        if isinstance(picture, np.ndarray) and channels == "bgr":
            picture = np.ascontiguousarray(picture[..., ::-1])
        if isinstance(picture, np.ndarray | Image.Image):
            return to_rgb(picture, self._spec)
        return decode(picture if isinstance(picture, bytes) else Path(picture), spec=self._spec)

    def _free(self, name: str) -> str:
        """A file's name without its ending, that of a frame with its number."""
        path, mark, number = name.rpartition("#") if "#" in name else (name, "", "")
        stem = Path(path).stem + (f"-{number:0>6}" if mark else "")
        plain = _UNSAFE.sub("_", stem).strip("._") or "picture"
        found, count = plain, 1
        while found.casefold() in self._taken:
            count += 1
            found = f"{plain}-{count}"
        self._taken.add(found.casefold())
        return found


def drawn(picture: Image.Image, prediction: Prediction) -> Image.Image:
    """A copy of an upright RGB picture with its answer drawn into it."""
    image = picture.copy()
    draw = ImageDraw.Draw(image)
    size = max(10, round(min(image.size) / 32))
    font = ImageFont.load_default(size)
    if not isinstance(prediction, Detections):
        _caption(draw, (0, 0), prediction.text, "#14181f", font, image.size)
        return image
    width = max(1, round(min(image.size) / 240))
    for item in reversed(prediction.items):  # The best lies on top.
        colour = COLOURS[item.index % len(COLOURS)]
        draw.rectangle(item.box, outline=colour, width=width)
    for item in reversed(prediction.items):
        x, y = item.box[:2]
        colour = COLOURS[item.index % len(COLOURS)]
        _caption(draw, (x, y - size - 4), f"{item.label} {item.score:.2f}", colour, font, image.size)
    return image


def _caption(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """White text on a colour, moved so that it lies inside the picture."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = max(0.0, min(corner[0], size[0] - width))
    y = max(0.0, min(corner[1], size[1] - height))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill="white", font=font)
