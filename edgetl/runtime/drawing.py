"""Predictions drawn into their pictures: boxes with classes and scores, or the answer in the corner. Pillow alone."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edgetl import files
from edgetl.inputs.drawing import Mark, caption, mark
from edgetl.inputs.image import decode, to_rgb
from edgetl.inputs.overlay import overlaid
from edgetl.inputs.spec import PreprocessSpec
from edgetl.tasks.detection.answers import Detections

if TYPE_CHECKING:
    from edgetl.runtime.explain import ActivationMap
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

    def save(
        self,
        name: str,
        picture: Picture,
        channels: Channels,
        prediction: Prediction,
        maps: Sequence[ActivationMap] = (),
    ) -> Path:
        """Write one picture atomically, or one for each map.

        Args:
            name: what results call it.
            picture: as `Session.predict` takes it.
            channels: of an array.
            prediction: its answer.
            maps: what speaks for its classes; each is laid over the picture in a file of its own, `NAME.jpg` where
                there is one, `NAME-CLASS.jpg` of several.

        Returns:
            The file, the last of several.

        Raises:
            ImageError: the picture cannot be read again.
            StorageError: the file cannot be written.
        """
        image = self._upright(picture, channels)
        if not maps:
            return self._write(drawn(image, prediction), self._free(name))
        stem = self._free(name)
        for one in maps:
            several = len(maps) > 1
            text = f"{one.head}: {one.label}" if one.head else one.label
            shown = overlaid(image, one.strength())
            caption(shown, text if several else prediction.text)
            path = self._write(shown, self._unique(f"{stem}-{text}") if several else stem)
        return path

    def _write(self, image: Image.Image, stem: str) -> Path:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=_QUALITY)
        path = self._folder / f"{stem}.jpg"
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
        return self._unique(Path(path).stem + (f"-{number:0>6}" if mark else ""))

    def _unique(self, stem: str) -> str:
        """It in plain letters, with a number where it is taken."""
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
