"""YOLO's text: one file per picture, one line per object: class, then centre and size as shares of the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.data.boxes.entries import (
    BoxEntry,
    Faults,
    FoundBoxes,
    Object,
    box_fault,
    class_name,
    is_there,
    read_text,
    together,
)
from edgetl.data.sources import SPLIT_NAMES, Split
from edgetl.data.walk import images_below, is_image
from edgetl.errors import DataError, ImageError
from edgetl.inputs.image import upright_size

_BEYOND = 0.02
"""Rounding takes boxes this far over the edge of a picture; more is another unit."""


def read(file: Path) -> FoundBoxes:
    """Read a set by its YAML.

    Raises:
        DataError: the YAML or a text is not YOLO's, or names what is not there.
    """
    content = _yaml(file)
    names = _names(file, content.get("names"))
    base = file.parent
    if isinstance(content.get("path"), str) and is_there(folder := base / content["path"]):
        base = folder
    parts, faults = [], Faults(file)
    for key, split in SPLIT_NAMES.items():
        values = content.get(key)
        for value in values if isinstance(values, list) else [values] if values else []:
            pictures = _pictures(file, base, value)
            if pictures is None:
                faults.add(f"{key}: there is no folder or list {value!r} below {base}")
            else:
                parts.append(tuple(_entry(path, split, names) for path in pictures))
    faults.check()
    if not parts:
        raise DataError(f"{file} names no split; expected train and, if you like, val and test.")
    return together(file.parent, tuple(names.values()), parts)


def _yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        from edgetl.packages import missing

        raise missing("yaml") from error
    try:
        content = yaml.safe_load(read_text(file))
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{file} is not YAML that can be read: {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is not a YOLO set's YAML; expected names, train and val.")
    return content


def _names(file: Path, value: Any) -> dict[int, str]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value or not all(type(key) is int for key in value):
        raise DataError(f"{file} lacks names, a list of the classes.")
    names = {key: class_name(str(name)) for key, name in sorted(value.items())}
    if len(set(names.values())) != len(names) or not all(names.values()):
        raise DataError(f"{file}: names holds an empty name, or one twice.")
    return names


def _pictures(file: Path, base: Path, value: Any) -> list[Path] | None:
    if not isinstance(value, str):
        return None
    # What is exported elsewhere often says `../train/images` of its own neighbour.
    tried = [base / value, file.parent / value, file.parent / value.removeprefix("../")]
    place = next((path for path in tried if is_there(path)), None)
    if place is None:
        return None
    if place.is_dir():
        return list(images_below(place)[0])
    lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
    found = [place.parent / line for line in lines]
    missing = [str(path) for path in found if not (is_there(path) and is_image(path))]
    if missing:
        raise DataError(f"{place} lists {len(missing)} pictures that are not there, such as {missing[0]}.")
    return found


def _entry(picture: Path, split: Split, names: dict[int, str]) -> BoxEntry:
    text = _text_of(picture)
    if text is None:
        return BoxEntry(picture, (), split)
    lines = [line.split() for line in read_text(text).splitlines() if line.strip()]
    if not lines:
        return BoxEntry(picture, (), split)
    try:
        width, height = upright_size(picture)
    except (ImageError, OSError):
        return BoxEntry(picture, (), split)  # The check of pictures names it.
    faults, objects = Faults(text), []
    for number, cells in enumerate(lines, start=1):
        try:
            index, values = int(cells[0]), [float(cell) for cell in cells[1:]]
        except ValueError:
            faults.add(f"line {number}: expected a class and four numbers, got {' '.join(cells)[:60]!r}")
            continue
        if index not in names:
            faults.add(f"line {number}: the class {index} is not in names (0 to {max(names)})")
            continue
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            faults.add(f"line {number}: {len(values)} numbers follow the class, expected four")
            continue
        left, top, right, bottom = _corners(values)
        if max(abs(left), abs(top), right, bottom) > 1 + _BEYOND or min(left, top) < -_BEYOND:
            faults.add(f"line {number}: shares of the picture above 1; are these pixels?")
            continue
        box = (
            max(left, 0.0) * width,
            max(top, 0.0) * height,
            min(right, 1.0) * width,
            min(bottom, 1.0) * height,
        )
        if reason := box_fault(box):
            faults.add(f"line {number}: {reason}")
            continue
        objects.append(Object(box, names[index]))
    faults.check()
    return BoxEntry(picture, tuple(objects), split)


def _corners(values: list[float]) -> tuple[float, float, float, float]:
    """Of a centre and a size, or of a polygon's points."""
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def _text_of(picture: Path) -> Path | None:
    """`images/.../a.jpg` has `labels/.../a.txt`, or the text lies next to it."""
    parts = list(picture.parts)
    places = [at for at, part in enumerate(parts) if part.casefold() == "images"]
    tried = [picture.with_suffix(".txt")]
    if places:
        tried.insert(0, Path(*parts[: places[-1]], "labels", *parts[places[-1] + 1 :]).with_suffix(".txt"))
    return next((path for path in tried if is_there(path)), None)


def yaml_in(root: Path) -> Path | None:
    """The YAML of a set in a folder, if it is YOLO's."""
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        try:
            content = _yaml(path)
        except DataError:
            continue
        if "names" in content and "train" in content:
            return path
    return None
