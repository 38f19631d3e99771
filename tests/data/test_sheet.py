"""Contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from edgetl.config import DataConfig
from edgetl.data import sheet
from edgetl.data.build import index_of
from edgetl.inputs.drawing import COLOURS
from tests.cli.typed import edgetl
from tests.data.boxes.sets import write_boxes
from tests.images import write_set

_ROW = sheet._HEAD + sheet._TILE + sheet._GAP


def test_each_class_has_a_row_of_its_pictures(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"train": 9, "val": 2, "test": 1})
    done = edgetl("data", "check", root, "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 0
    assert f"Wrote {tmp_path / 'sheet.png'}." in done.stderr
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    assert pixels.shape == (
        3 * _ROW + sheet._GAP,
        sheet.PICTURES * (sheet._TILE + sheet._GAP) + sheet._GAP,
        3,
    )
    for row, strongest in enumerate((2, 1, 0)):  # blue, green, red
        for place in range(sheet.PICTURES):
            y, x = row * _ROW + sheet._HEAD + 90, sheet._GAP + place * (sheet._TILE + sheet._GAP) + 90
            assert pixels[y - 20 : y + 20, x - 20 : x + 20].mean(axis=(0, 1)).argmax() == strongest


def test_boxes_lie_where_the_objects_are(tmp_path: Path) -> None:
    root = write_boxes(tmp_path / "set", {"train": 8, "val": 4, "test": 4}, side=2 * sheet._TILE)
    index = index_of(DataConfig(source=str(root)))
    sheet.write_sheet(index, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as made:
        tile = np.asarray(made.convert("RGB"))[sheet._HEAD :, sheet._GAP :]
    first = next(
        s.marked
        for s in index.samples
        if s.marked and any(o.label == index.labels[0] for o in s.marked.objects)
    )
    for o in first.objects:
        left, top, right, bottom = (round(v / 2) for v in o.box)
        colour = ImageColor.getrgb(COLOURS[index.labels.index(o.label)])
        for y, x in ((top, left), (top, right), (bottom, left), (bottom, right)):
            assert (tile[y - 1 : y + 2, x - 1 : x + 2] == colour).all(axis=2).any()


def test_more_classes_than_fit_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "CLASSES", 2)
    index = index_of(DataConfig(source=str(write_set(tmp_path / "set", {"train": 2, "val": 1, "test": 1}))))
    sheet.write_sheet(index, tmp_path / "sheet.jpg")
    with Image.open(tmp_path / "sheet.jpg") as made:
        assert made.height == 2 * _ROW + sheet._GAP + sheet._HEAD


def test_another_ending_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    done = edgetl("data", "check", tmp_path, "--sheet", "sheet.gif")
    assert (done.returncode, done.stdout) == (2, "")
    assert "sheet.gif, expected a name that ends in .jpg, .jpeg, .png" in done.stderr


def test_a_sheet_that_cannot_be_written_costs_no_report(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"train": 2, "val": 1, "test": 1})
    (tmp_path / "file").write_text("")
    done = edgetl("data", "check", root, "--sheet", tmp_path / "file/sheet.png")
    assert done.returncode == 2
    assert "images" in done.stdout
    assert "sheet.png" in done.stderr
