from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgetl.data import index as indexes
from edgetl.data.audit import audit
from edgetl.data.build import index_of
from edgetl.data.index import UNLABELLED, DataIndex
from edgetl.errors import DataError
from edgetl.inputs.image import PreprocessSpec, Resize
from edgetl.tasks.base import Detection
from edgetl.train.tasks.detection import DetectionTraining
from tests.cli.typed import edgetl
from tests.data.boxes.sets import SHAPES, draw, write_boxes
from tests.data.images import Recorder, Settings


def build(source: Path, progress: Recorder | None = None, **settings: Any) -> DataIndex:
    return index_of(Settings(source=str(source), **settings), progress=progress or Recorder())


def change(root: Path, split: str, alter: Callable[[Any], None]) -> None:
    path = root / split / "annotations.json"
    content = json.loads(path.read_text())
    alter(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return write_boxes(tmp_path / "shapes", {"train": 24, "val": 8, "test": 8}, side=64)


def csv(root: Path, count: int, extra: str = "") -> Path:
    """Pictures without splits, of which some hold nothing."""
    lines = ["path,label,x1,y1,x2,y2,group"]
    root.mkdir(exist_ok=True)
    for at in range(count):
        picture, objects = draw(100 + at, 64)
        picture.save(root / f"{at}.png")
        group = f"g{at // 2}"
        lines += [f"{at}.png,{n},{x},{y},{x + w},{y + h},{group}" for n, (x, y, w, h) in objects]
        lines += [] if objects else [f"{at}.png,,,,,,{group}"]
    (root / "boxes.csv").write_text("\n".join(lines) + "\n" + extra)
    return root / "boxes.csv"


def test_an_index_of_boxes_is_kept_whole(shapes: Path, tmp_path: Path) -> None:
    index = build(shapes)
    assert index.task == Detection(labels=SHAPES)
    assert [len(index.split(split)) for split in ("train", "val", "test")] == [24, 8, 8]
    first = next(s for s in index.samples if s.path == shapes / "train" / "images" / "0.png")
    [*expected] = draw(1, 64)[1]
    assert first.marked is not None
    assert first.marked.size == (64, 64)
    assert [(o.label, o.box) for o in first.marked.objects] == [
        (label, (x, y, x + w, y + h)) for label, (x, y, w, h) in expected
    ]
    assert any(s.label == UNLABELLED and s.marked and not s.marked.objects for s in index.samples)
    index.save(tmp_path / "index.json")
    loaded = indexes.load(tmp_path / "index.json")
    assert loaded == index
    assert loaded.sha256 == index.sha256
    change(shapes, "train", lambda c: c["annotations"][0]["bbox"].__setitem__(2, 11))
    assert build(shapes).sha256 != index.sha256


def test_splits_are_taken_by_content_and_keep_groups_together(tmp_path: Path) -> None:
    index = build(csv(tmp_path / "a", 40))
    where: dict[str, set[str]] = {}
    for sample in index.samples:
        where.setdefault(sample.group, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in where.values())
    counts = index.counts()
    assert all(counts[split][label] for split in ("train", "val", "test") for label in SHAPES)
    again = build(csv(tmp_path / "b", 40))
    assert {s.sha256: s.split for s in again.samples} == {s.sha256: s.split for s in index.samples}


def test_the_most_training_pictures(tmp_path: Path) -> None:
    index = build(csv(tmp_path, 40), max_train_images=12)
    assert len(index.split("train")) == 12
    assert len(index.split("val")) < 8


def test_boxes_outside_their_pictures_are_named(shapes: Path) -> None:
    change(shapes, "train", lambda c: c["annotations"][0].__setitem__("bbox", [640, 10, 5, 5]))
    with pytest.raises(
        DataError, match=r"1 boxes that lie outside .*\n.*\.png: .* at \(640, 10, 645, 15\) in 64x64"
    ):
        build(shapes)


def test_boxes_in_shares_of_the_picture_are_named(shapes: Path) -> None:
    def shrink(content: Any) -> None:
        for annotation in content["annotations"]:
            annotation["bbox"] = [value / 64 for value in annotation["bbox"]]

    for split in ("train", "val", "test"):
        change(shapes, split, shrink)
    with pytest.raises(DataError, match=r"all \d+ boxes lie within the first pixel .* Give pixels"):
        build(shapes)


def test_a_picture_of_one_pixel_and_a_class_of_one_box(shapes: Path) -> None:
    """The one is refused; the other is odd, and stops nothing."""
    path = shapes / "train" / "images" / "dot.png"
    Image.new("RGB", (1, 1), "white").save(path)

    def add(content: Any) -> None:
        content["images"].append({"id": 99, "file_name": "dot.png"})
        content["categories"].append({"id": 5, "name": "dot"})
        content["annotations"].append({"image_id": 99, "category_id": 5, "bbox": [0, 0, 1, 1]})

    change(shapes, "train", add)
    with pytest.raises(DataError, match=r"dot\.png: is 1x1 pixels; at least 4x4 are needed"):
        build(shapes)
    Image.new("RGB", (4, 4), "white").save(path)
    index = build(shapes)
    assert index.labels == (*SHAPES, "dot")
    assert audit(index).boxes.single == ("dot",)  # type: ignore[union-attr]
    [dot] = [s for s in index.samples if s.path.name == "dot.png"]
    task = DetectionTraining(spec=Detection(labels=index.labels))
    targets = task.targets([dot], PreprocessSpec(size=64, resize=Resize.PAD))
    assert targets[0, 1, :5].tolist() == [0, 0, 16, 16, 2]


def test_a_turned_picture_is_as_large_as_it_is_seen(shapes: Path) -> None:
    path = shapes / "train" / "images" / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), "white").save(path, exif=exif)
    change(shapes, "train", lambda c: c["images"].append({"id": 99, "file_name": "turned.jpg"}))
    [turned] = [s for s in build(shapes).samples if s.path == path]
    assert turned.marked is not None
    assert turned.marked.size == (40, 80)


def test_classes_without_boxes_are_left_out_and_said(shapes: Path) -> None:
    for split in ("train", "val", "test"):
        change(shapes, split, lambda c: c["categories"].append({"id": 9, "name": "things"}))
    progress = Recorder()
    assert build(shapes, progress).labels == SHAPES
    assert any("no box has, which are left out: things" in text for text in progress.warnings)


def test_a_class_that_train_lacks(shapes: Path) -> None:
    def rename(content: Any) -> None:
        content["categories"][1]["name"] = "rod"

    change(shapes, "val", rename)
    with pytest.raises(DataError, match=r"cannot be learned:\n  rod: .* none in train"):
        build(shapes)


def test_no_boxes_to_choose_a_model_by(shapes: Path) -> None:
    change(shapes, "val", lambda c: c["annotations"].clear())
    with pytest.raises(DataError, match="no boxes in a validation split"):
        build(shapes)


def test_an_audit_of_boxes(shapes: Path) -> None:
    report = audit(build(shapes))
    assert report.boxes is not None
    assert report.boxes.images == {"train": 24, "val": 8, "test": 8}
    assert report.boxes.empty["train"] == sum(not draw(seed, 64)[1] for seed in range(1, 25)) > 0
    assert report.boxes.beyond == report.boxes.twice == report.boxes.absent == ()
    known = report.problems()

    def spoil(content: Any) -> None:
        first = content["annotations"][0]
        content["annotations"] += [first, {**first, "bbox": [50, 2, 20, 10]}]
        content["categories"] += [{"id": 2, "name": "Bar"}, {"id": 3, "name": "crumb"}]
        bar = {**first, "category_id": 2, "bbox": [1, 50, 8, 8]}
        content["annotations"] += [bar, {**bar, "bbox": [20, 50, 8, 8]}]
        small = {**first, "category_id": 3}
        content["annotations"].append({**small, "bbox": [1, 1, 3, 3]})

    change(shapes, "train", spoil)
    report = audit(build(shapes))
    assert report.boxes is not None
    assert len(report.boxes.twice) == 1
    [beyond] = report.boxes.beyond
    assert beyond.endswith("at (50, 2, 70, 12) in 64x64")
    assert report.boxes.single == ("crumb",)
    assert set(report.boxes.absent) == {(a, b) for a in ("Bar", "crumb") for b in ("val", "test")}
    text = "\n".join(set(report.problems()) - set(known))
    for part in (
        "1 boxes reach over the edge",
        "1 boxes mark an object a second time",
        "1 classes have one box (crumb)",
        "4 times, a split lacks a class",
        "'bar' and 'Bar'",
    ):
        assert part in text


def test_copies_with_other_boxes_are_a_conflict(shapes: Path) -> None:
    copy = shapes / "train" / "images" / "copy.png"
    copy.write_bytes((shapes / "train" / "images" / "0.png").read_bytes())
    change(shapes, "train", lambda c: c["images"].append({"id": 99, "file_name": "copy.png"}))
    progress = Recorder()
    report = audit(build(shapes, progress))
    assert report.conflicts == (("train/images/0.png", "train/images/copy.png"),) or report.conflicts == (
        ("train/images/copy.png", "train/images/0.png"),
    )
    assert any("1 images have copies with other boxes" in text for text in progress.warnings)


def test_the_commands_from_a_look_to_a_trained_detector(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = edgetl("data", "check", "shapes")
    assert shown.returncode == 0
    assert "images without boxes" in shown.stdout
    record = json.loads(edgetl("data", "check", "shapes", "--json").stdout)
    assert record["boxes"]["images"] == {"train": 24, "val": 8, "test": 8}
    begun = edgetl("init", "shapes", "-o", "r.toml")
    assert begun.returncode == 0, begun.stderr
    assert "Next: edgetl run r.toml" in begun.stdout
    assert "size = 320" in (tmp_path / "r.toml").read_text()
    quick = ("preprocess.size=64", "train.epochs=1", "train.head_epochs=1", "train.batch_size=8")
    tiny = ("train.backbone=test_efficientnet", "train.weights=none")
    settings = [word for setting in (*quick, *tiny) for word in ("--set", setting)]
    refused = edgetl("finetune", "r.toml", *settings, "--set", "train.select=top1")
    assert "train.select: got 'top1', expected a metric of this data: map, map50, recall" in refused.stderr
    done = edgetl("finetune", "r.toml", *settings, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert set(record["test"]["scores"]) == {"map", "map50", "recall"}
    assert [one["label"] for one in record["val"]["detail"]["classes"]] == list(SHAPES)
