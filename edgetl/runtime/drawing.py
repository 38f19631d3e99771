"""Predictions drawn into their pictures: boxes with classes and scores, or the answer in the corner. Pillow alone."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edgetl import files
from edgetl.inputs.drawing import Mark, caption, mark
from edgetl.inputs.image import decode, to_rgb
from edgetl.inputs.spec import PreprocessSpec
from edgetl.tasks.detection.answers import Detections

if TYPE_CHECKING:
    from edgetl.runtime.session import Channels, Picture
    from edgetl.tasks.all import Prediction

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
    if isinstance(prediction, Detections):
        mark(
            image,
            [
                Mark(box=item.box, index=item.index, text=f"{item.label} {item.score:.2f}")
                for item in prediction.items
            ],
        )
    else:
        caption(image, prediction.text)
    return image
