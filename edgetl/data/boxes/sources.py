"""Which format a source of boxes is of, and its entries. Reads no image."""

from __future__ import annotations

from pathlib import Path

from edgetl.data.boxes import coco, table, voc, yolo
from edgetl.data.boxes.entries import FoundBoxes, split_of
from edgetl.data.sources import csv_lines
from edgetl.errors import DataError


def find_boxes(path: Path) -> FoundBoxes | None:
    """The pictures and boxes at a place; None where no annotations of boxes are there.

    A folder may hold COCO's JSON (one file per split, next to the pictures or above them), a YOLO set's YAML, or VOC's
    XML; a file may be any of these, or a CSV with the columns path, label, x1, y1, x2, y2.

    Raises:
        DataError: annotations are there, but not right; the message names each fault.
    """
    if path.is_file():
        return _of_file(path.absolute())
    if not path.is_dir():
        return None
    root = path.absolute()
    if files := coco.files_in(root):
        return coco.read(root, files)
    if file := yolo.yaml_in(root):
        return yolo.read(file)
    if files_of_xml := voc.files_in(root):
        return voc.read(root, files_of_xml)
    return None


def _of_file(file: Path) -> FoundBoxes | None:
    match file.suffix.lower():
        case ".json":
            return coco.read(file.parent, {file: split_of(file.stem)})
        case ".yaml" | ".yml":
            return yolo.read(file)
        case ".csv" | ".tsv":
            lines = csv_lines(file)
            return table.read(file) if lines and {"x1", "y2"} <= set(table.header(lines[0])) else None
        case ".xml":
            raise DataError(f"{file} is one picture's XML; give the folder that holds all of them.")
        case _:
            return None
