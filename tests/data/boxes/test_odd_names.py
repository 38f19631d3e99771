"""Names in annotations that no file can have: faults as any others, not the system's errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetl.data.boxes.sources import find_boxes
from edgetl.errors import DataError
from tests.squares import COLOURS, drawn, encoded, write_set

NAMES = {"long": "a" * 5000 + ".png", "zero": "a\0b.png"}


def _coco(root: Path, name: str) -> Path:
    path = write_set(root, 1)
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))
    return path


def _csv(root: Path, name: str) -> Path:
    (root / "boxes.csv").write_text(f"path,label,x1,y1,x2,y2\n{name},red,1,1,9,9\n")
    return root / "boxes.csv"


def _yolo(root: Path, name: str, key: str = "val") -> Path:
    values = {"path": ".", "val": "images", key: json.dumps(name)}
    (root / "images").mkdir()
    (root / "images" / "a.png").write_bytes(encoded(drawn([])))
    text = "".join(f"{k}: {v}\n" for k, v in values.items())
    (root / "data.yaml").write_text(f"{text}names: [{', '.join(COLOURS)}]\n")
    return root / "data.yaml"


def _yolo_path(root: Path, name: str) -> Path:
    return _yolo(root, name, "path")


def _yolo_list(root: Path, name: str) -> Path:
    (root / "list.txt").write_text(name)
    return _yolo(root, "list.txt")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("write", [_coco, _csv, _yolo, _yolo_path, _yolo_list])
def test_a_name_that_no_file_can_have_is_a_fault_of_the_annotation(write, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        find_boxes(write(tmp_path, name))
