"""A CSV with one line per box: path, label, x1, y1, x2, y2 in pixels and, if you like, split and group."""

from __future__ import annotations

import os
from pathlib import Path

from edgetl.data.boxes.entries import (
    BoxEntry,
    Faults,
    FoundBoxes,
    Object,
    box_fault,
    class_name,
    is_there,
    together,
)
from edgetl.data.sources import SPLIT_NAMES, Split, csv_lines
from edgetl.errors import DataError

COLUMNS = ("path", "label", "x1", "y1", "x2", "y2")
_OTHER_NAMES = {
    "image": "path",
    "filename": "path",
    "file": "path",
    "class": "label",
    "xmin": "x1",
    "ymin": "y1",
    "xmax": "x2",
    "ymax": "y2",
}


def header(line: list[str]) -> list[str]:
    """The first line's columns by our names."""
    words = [cell.strip().casefold() for cell in line]
    return [_OTHER_NAMES.get(word, word) if _OTHER_NAMES.get(word) not in words else word for word in words]


def read(file: Path) -> FoundBoxes:
    """Read a CSV. A line without label and box names a picture without objects.

    Raises:
        DataError: columns are missing, or lines are wrong.
    """
    lines = csv_lines(file)
    columns = header(lines[0]) if lines else []
    if missing := [name for name in COLUMNS if name not in columns]:
        raise DataError(
            f"{file} lacks the columns {', '.join(missing)}; expected path,label,x1,y1,x2,y2 and, if "
            "you like, split and group."
        )
    faults = Faults(file)
    objects: dict[Path, list[Object]] = {}
    about: dict[Path, tuple[Split | None, str]] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        values = {name: cells[at].strip() if at < len(cells) else "" for at, name in enumerate(columns)}
        if not values["path"]:
            faults.add(f"line {number}: the path is empty")
            continue
        path = Path(os.path.normpath(file.parent / values["path"]))
        split, text = None, values.get("split", "")
        if text and (split := SPLIT_NAMES.get(text.casefold())) is None:
            faults.add(f"line {number}: the split is {text!r}; expected train, val or test")
            continue
        if not (is_there(path) and path.is_file()):
            faults.add(f"line {number}: there is no picture {values['path']}")
            continue
        if about.setdefault(path, (split, values.get("group", ""))) != (split, values.get("group", "")):
            faults.add(f"line {number}: {values['path']} was listed before with another split or group")
            continue
        mine, label = objects.setdefault(path, []), class_name(values["label"])
        box = [values[name] for name in COLUMNS[2:]]
        if not label and not any(box):
            continue
        if not label:
            faults.add(f"line {number}: the label is empty")
        elif reason := box_fault(box):
            faults.add(f"line {number}: {reason}")
        else:
            x1, y1, x2, y2 = map(float, box)
            mine.append(Object((x1, y1, x2, y2), label))
    faults.check()
    labels = tuple(sorted({o.label for mine in objects.values() for o in mine}))
    entries = tuple(BoxEntry(path, tuple(objects[path]), *about[path]) for path in objects)
    return together(file.parent, labels, [entries])
