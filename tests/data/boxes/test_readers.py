from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgetl.data.boxes.sources import find_boxes
from edgetl.errors import DataError


def picture(path: Path, size: tuple[int, int] = (80, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(path)
    return path


def coco_content() -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 5, 20, 10], "area": 150.0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 8, 8], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "cell"}, {"id": 3, "name": "speck"}],
    }


def coco(root: Path, content: Any, split: str = "train") -> Path:
    for name in "ab":
        picture(root / split / "images" / f"{name}.png")
    (root / split / "annotations.json").write_text(json.dumps(content))
    return root


YAML = "train: images/train\nval: images/val\nnames: [cell, speck]\n"


def yolo(root: Path, lines: str, yaml: str = YAML) -> Path:
    for split in ("train", "val"):
        picture(root / "images" / split / "a.png")
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        (root / "labels" / split / "a.txt").write_text(lines)
    picture(root / "images" / "train" / "empty.png")
    (root / "data.yaml").write_text(yaml)
    return root


VOC = (
    "<annotation><filename>a.png</filename><object><name>speck</name><bndbox><xmin>10</xmin><ymin>5</ymin>"
    "<xmax>30</xmax><ymax>15</ymax></bndbox></object></annotation>"
)


def voc(root: Path, text: str = VOC) -> Path:
    picture(root / "JPEGImages" / "a.png")
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "Annotations" / "a.xml").write_text(text)
    (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    return root


def table(root: Path, lines: str, header: str = "path,label,x1,y1,x2,y2,split") -> Path:
    picture(root / "a.png")
    picture(root / "b.png")
    (root / "boxes.csv").write_text(f"{header}\n{lines}\n")
    return root / "boxes.csv"


def test_the_four_formats_say_the_same(tmp_path: Path) -> None:
    found = {
        "coco": find_boxes(coco(tmp_path / "coco", coco_content())),
        "yolo": find_boxes(yolo(tmp_path / "yolo", "1 0.25 0.25 0.25 0.25\n")),
        "voc": find_boxes(voc(tmp_path / "voc")),
        "csv": find_boxes(table(tmp_path / "csv", "a.png,speck,10,5,30,15,train\nb.png,,,,,,train")),
    }
    for name, one in found.items():
        assert one is not None, name
        entry = one.entries[0]
        assert (entry.path.name, entry.split) == ("a.png", "train"), name
        assert [(o.label, o.box) for o in entry.objects if o.label == "speck"] == [
            ("speck", (10, 5, 30, 15))
        ], name
    assert found["coco"].labels == found["yolo"].labels == ("cell", "speck")
    assert [o.crowd for o in found["coco"].entries[0].objects] == [False, True]
    assert [len(e.objects) for e in found["yolo"].entries] == [1, 0, 1]
    assert [len(e.objects) for e in found["csv"].entries] == [1, 0]


def test_a_folder_of_classes_holds_no_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    assert find_boxes(tmp_path) is None
    (tmp_path / "labels.csv").write_text("path,label\ncat/a.png,cat\n")
    assert find_boxes(tmp_path / "labels.csv") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"annotations": [{"image_id": 7, "category_id": 9, "bbox": [0, 0, 4, 4]}]},
            "the category 9 is not listed",
        ),
        (
            {"annotations": [{"image_id": 9, "category_id": 3, "bbox": [0, 0, 4, 4]}]},
            "the image 9 is not listed",
        ),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 0, 4]}]}, r"of no area \(0 x 4\)"),
        (
            {"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, float("nan"), 4]}]},
            "finite numbers",
        ),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": "0 0 4 4"}]}, "bbox is not four numbers"),
        ({"annotations": []}, "no box anywhere"),
        ({"images": [{"id": 7, "file_name": "gone.png"}]}, "there is no picture gone.png"),
        (
            {"images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "a.png"}]},
            "annotates pictures twice",
        ),
        ({"categories": [{"id": 1, "name": "cell"}, {"id": 3, "name": "cell"}]}, "is listed twice"),
        ({"categories": {"1": "cell"}}, "no COCO|expected"),
    ],
)
def test_coco_faults_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    root = coco(tmp_path, coco_content() | change)
    with pytest.raises(DataError, match=message):
        find_boxes(root / "train" / "annotations.json")


@pytest.mark.parametrize(
    ("lines", "yaml", "message"),
    [
        ("5 0.5 0.5 0.1 0.1", YAML, "the class 5 is not in names"),
        ("1 40 20 10 10", YAML, "are these pixels"),
        ("1 0.5 0.5 0.1", YAML, "3 numbers follow the class"),
        ("speck 0.5 0.5 0.1 0.1", YAML, "expected a class and four numbers"),
        ("1 0.5 0.5 0 0.1", YAML, "of no area"),
        ("1 0.5 0.5 0.1 0.1", YAML.replace("images/val", "images/nowhere"), "there is no folder or list"),
        ("1 0.5 0.5 0.1 0.1", "train: images/train\nnames: 3\n", "lacks names"),
        ("", YAML, "no box anywhere"),
    ],
)
def test_yolo_faults_are_named(tmp_path: Path, lines: str, yaml: str, message: str) -> None:
    root = yolo(tmp_path, lines, yaml)
    with pytest.raises(DataError, match=message):
        find_boxes(root / "data.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VOC.replace("<xmax>30</xmax>", "<xmax>5</xmax>"), "of no area"),
        (VOC.replace("<name>speck</name>", ""), "object 1 has no name"),
        (VOC[:60], "is not XML"),
        (VOC.replace("a.png", "gone.png").replace("annotation>", "annotation >"), ""),
        (f"<!DOCTYPE x [<!ENTITY a 'b'>]>{VOC}", "defines entities"),
    ],
)
def test_voc_faults_are_named(tmp_path: Path, text: str, message: str) -> None:
    root = voc(tmp_path, text)
    if not message:  # the picture of the same name stands in
        assert len(find_boxes(root).entries) == 1
        return
    with pytest.raises(DataError, match=message):
        find_boxes(root)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("gone.png,speck,0,0,4,4,train", "there is no picture gone.png"),
        ("a.png,speck,4,4,2,2,train", "of no area"),
        ("a.png,,0,0,2,2,train", "the label is empty"),
        ("a.png,speck,0,0,2,2,morning", "the split is 'morning'"),
        ("a.png,speck,0,0,2,2,train\na.png,speck,0,0,2,2,val", "another split or group"),
        ("a.png,speck,0,0,2,2,train\nb.png,speck,0,0,2,2,", "have no split while others have one"),
        ("a.png,,,,,,train", "no box anywhere"),
    ],
)
def test_csv_faults_are_named(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_boxes(table(tmp_path, lines))


@pytest.mark.parametrize(
    ("name", "images", "boxes", "classes"), [("bccd", 364, 4886, 3), ("cards", 363, 670, 6)]
)
def test_real_sets_are_read_whole(real_set, name: str, images: int, boxes: int, classes: int) -> None:
    found = find_boxes(real_set(name))
    assert found is not None
    assert (len(found.entries), sum(len(e.objects) for e in found.entries)) == (images, boxes)
    assert len(found.labels) == classes
    assert set(Counter(entry.split for entry in found.entries)) == {"train", "val", "test"}
