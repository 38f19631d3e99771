"""The page's gallery of the mistakes that the shipped variant is most sure of: picture, map, and what was said."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.inputs.spec import PreprocessSpec, SoundSpec
from edgetl.records.codec import from_json
from edgetl.records.mistakes import Mistake, MistakesRecord
from edgetl.report import units
from edgetl.report.page.markup import Markup, tag

if TYPE_CHECKING:
    from PIL import Image

_SIDE = 240
"""Pixels of the longer side of a picture on the page: eight of them with their maps take about 200 KB."""
_QUALITY = 78


def gallery(record: MistakesRecord | None) -> Markup:
    """The worst mistakes; nothing where there are none."""
    if record is None or not record.mistakes:
        return Markup("")
    lead = "Wrong answers of the highest probability."
    if record.no_maps:
        lead += f" Without maps: {record.no_maps}"
    else:
        lead += (
            " The second picture shows what speaks for the wrong class, from violet to yellow; where it stays plain,"
            " nothing does, or the network did not see it."
        )
    sound = None if record.sound is None else from_json(SoundSpec, record.sound)
    items = tag("ul", *(_item(one, sound) for one in record.mistakes), css="flips pictures")
    return Markup(tag("h3", "Surest mistakes") + tag("p", lead, css="lead") + items)


def _item(one: Mistake, sound: SoundSpec | None) -> Markup:
    name = Path(one.file).name
    pictures = [
        tag("img", src=shown, alt=f"{name}: {one.truth} that was taken for {one.answer}{what}")
        for shown, what in zip(
            _images(one, sound), ("", ", under the map of what speaks for that"), strict=False
        )
    ]
    return tag(
        "li",
        tag("div", *pictures, css="pair-of-pictures") if pictures else tag("span", "no picture", css="none"),
        tag("span", f"{one.answer} {units.percent(one.score)}", css="wrong"),
        tag("span", f", is {one.truth}; teacher: "),
        tag(
            "span",
            f"{one.teacher} {units.percent(one.teacher_score)}",
            css="right" if one.teacher == one.truth else "wrong",
        ),
        tag("span", name, css="path"),
    )


def _images(one: Mistake, sound: SoundSpec | None) -> list[str]:
    """The picture, and it under its map where there is one, as `data:` addresses; nothing where it cannot be read."""
    from edgetl.errors import ImageError
    from edgetl.inputs.image import decode

    try:
        spec = PreprocessSpec(size=_SIDE, sound=sound)
        image = decode(Path(one.file), _SIDE, spec=spec)
    except (ImageError, OSError):
        return []
    if sound is not None:
        image = image.resize((_SIDE, _SIDE * image.height // image.width))
    image.thumbnail((_SIDE, _SIDE))
    return [_address(image), *([_address(_mapped(image, one))] if one.map else [])]


def _mapped(image: Image.Image, one: Mistake) -> Image.Image:
    import numpy as np

    from edgetl.inputs.frame import Frame
    from edgetl.inputs.overlay import overlaid
    from edgetl.runtime.explain import ActivationMap

    found = ActivationMap(
        label=one.answer,
        index=0,
        values=np.array(one.map, dtype=np.float32),
        side=one.side,
        frame=Frame(size=one.size, scale=one.scale, offset=one.offset),
    )
    return overlaid(image, found.strength(image.size))


def _address(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
