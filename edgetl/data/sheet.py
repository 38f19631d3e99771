"""A contact sheet: some pictures of each class side by side, with their boxes, to see whether the labels are right."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from edgetl.data.boxes.entries import Marked
from edgetl.data.depth import Window
from edgetl.data.index import DataIndex, Sample
from edgetl.data.parallel import in_threads
from edgetl.data.targets import positions
from edgetl.errors import ConfigError
from edgetl.files import write_bytes
from edgetl.inputs.drawing import COLOURS, Mark, mark
from edgetl.inputs.image import decode
from edgetl.inputs.spec import PreprocessSpec
from edgetl.progress import SILENT, Progress

PICTURES = 8
"""Of a class, at most."""
CLASSES = 60
"""On one sheet, at most: it would be too long to look at."""
ENDINGS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
_TILE, _GAP, _HEAD = 180, 8, 30
_INK, _PAPER = "#14181f", "#ffffff"


def check_ending(path: Path) -> str:
    """The kind of file that a sheet's name asks for.

    Raises:
        ConfigError: none that is written.
    """
    if (kind := ENDINGS.get(path.suffix.lower())) is None:
        raise ConfigError(f"--sheet: got {path}, expected a name that ends in {', '.join(ENDINGS)}.")
    return kind


def write_sheet(
    index: DataIndex, path: Path, *, window: Window | None = None, progress: Progress = SILENT
) -> None:
    """Draw a row for each class, its pictures spread evenly over the index's order, and write it atomically.

    A picture of several classes may stand in several rows. Rows beyond `CLASSES` are left out, which the sheet says.

    Args:
        index: the images.
        path: where to, JPEG or PNG by its ending.
        window: of numbers of more than 8 bits.
        progress: hears of the pictures.

    Raises:
        ConfigError: the ending is another one.
        ImageError: a picture cannot be read again.
        StorageError: the file cannot be written.
    """
    kind, spec = check_ending(path), PreprocessSpec(size=_TILE, window=window, sound=index.sound)
    rows = [_spread(own) for own in _by_class(index)[:CLASSES]]
    wanted = sorted({at for row in rows for at in row})
    made = in_threads(
        lambda at: _tile(index, index.samples[at], spec), wanted, description="sheet", progress=progress
    )
    tiles = dict(zip(wanted, [tile for some in made for tile in some], strict=True))
    heads = [f"{label}: {count}" for label, count in zip(index.labels, _counts(index), strict=True)]
    buffer = io.BytesIO()
    _sheet(heads, [[tiles[at] for at in row] for row in rows]).save(buffer, kind, quality=90)
    write_bytes(path, buffer.getvalue())


def _by_class(index: DataIndex) -> list[list[int]]:
    """For each class the samples that show it."""
    found: list[list[int]] = [[] for _ in index.labels]
    names = {label: at for at, label in enumerate(index.labels)}
    for at, sample in enumerate(index.samples):
        if sample.marked is not None:
            own = {names[o.label] for o in sample.marked.objects}
        else:
            own = set(positions(index.task, sample.label))
        for position in own:
            found[position].append(at)
    return found


def _counts(index: DataIndex) -> list[str]:
    counts = index.counts()
    unit = "boxes" if any(sample.marked for sample in index.samples) else "images"
    return [
        ", ".join(f"{split} {own[label]:,}" for split, own in counts.items()) + f" {unit}"
        for label in index.labels
    ]


def _spread(own: Sequence[int]) -> list[int]:
    """`PICTURES` of them at even distances."""
    if len(own) <= PICTURES:
        return list(own)
    return [own[at] for at in np.linspace(0, len(own) - 1, PICTURES).round().astype(int)]


def _tile(index: DataIndex, sample: Sample, spec: PreprocessSpec) -> Image.Image:
    """A picture in a square of `_TILE` pixels, with its boxes."""
    picture = decode(sample.path, _TILE, spec=spec)
    size = sample.marked.size if sample.marked else picture.size
    picture = ImageOps.contain(picture, (_TILE, _TILE))
    if sample.marked:
        mark(picture, _marks(index, sample.marked, picture.width / size[0], picture.height / size[1]))
    tile = Image.new("RGB", (_TILE, _TILE), "#eceef1")
    tile.paste(picture, ((_TILE - picture.width) // 2, (_TILE - picture.height) // 2))
    return tile


def _marks(index: DataIndex, marked: Marked, across: float, down: float) -> list[Mark]:
    names = {label: at for at, label in enumerate(index.labels)}
    return [
        Mark(
            box=(o.box[0] * across, o.box[1] * down, o.box[2] * across, o.box[3] * down), index=names[o.label]
        )
        for o in marked.objects
    ]


def _sheet(heads: Sequence[str], rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    row = _HEAD + _TILE + _GAP
    more = len(heads) - len(rows)
    width = PICTURES * (_TILE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(rows) * row + _GAP + (_HEAD if more else 0)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for at, (head, tiles) in enumerate(zip(heads, rows, strict=False)):
        top = at * row
        draw.rectangle((_GAP, top + 9, _GAP + 13, top + 22), fill=COLOURS[at % len(COLOURS)])
        draw.text((_GAP + 20, top + 6), head if tiles else f"{head} (no picture)", fill=_INK, font=font)
        for place, tile in enumerate(tiles):
            sheet.paste(tile, (_GAP + place * (_TILE + _GAP), top + _HEAD))
    if more:
        draw.text((_GAP, len(rows) * row + 6), f"{more} more classes are not shown.", fill=_INK, font=font)
    return sheet
