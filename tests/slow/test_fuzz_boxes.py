"""Mutated annotations of boxes in every format: an index or one of our errors, never a traceback."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgetl.data.build import index_of
from edgetl.errors import EdgetlError
from tests.data.boxes.sets import SHAPES, draw, write_boxes
from tests.data.images import Settings
from tests.slow.test_fuzz import mutate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SIDE = 32
CASES = int(os.environ.get("EDGETL_FUZZ_BOXES", "2000"))
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, float("nan"), float("inf"), "", "9" * 400, [], {}, [[]], {"id": 7}),
    *(2**70, -0.0, "a.png", "../../../etc/passwd", "\0", "\ud800"),
)


def sources(root: Path) -> list[tuple[Path, Path]]:
    """The same pictures in each format: what is asked for, and the file that says where the boxes are."""
    marked = write_boxes(root / "coco", {"train": 6, "val": 4}, side=SIDE)
    yolo, voc, rows = root / "yolo", root / "voc", ["path,label,x1,y1,x2,y2,split"]
    for folder in (voc / "JPEGImages", voc / "Annotations", voc / "ImageSets" / "Main"):
        folder.mkdir(parents=True)
    for split, numbers in (("train", range(1, 7)), ("val", range(7, 11))):
        for folder in (yolo / "images" / split, yolo / "labels" / split):
            folder.mkdir(parents=True)
        for at in numbers:
            picture, objects = draw(at, SIDE)
            for path in (yolo / "images" / split, voc / "JPEGImages", root):
                picture.save(path / f"{at}.png")
            shares = [(SHAPES.index(n), (x + w / 2), (y + h / 2), w, h) for n, (x, y, w, h) in objects]
            texts = [f"{k} " + " ".join(f"{value / SIDE:.4f}" for value in box) for k, *box in shares]
            (yolo / "labels" / split / f"{at}.txt").write_text("\n".join(texts))
            corners = [(n, x, y, x + w, y + h) for n, (x, y, w, h) in objects]
            rows += [f"{at}.png,{n},{','.join(map(str, box))},{split}" for n, *box in corners]
            rows += [] if objects else [f"{at}.png,,,,,,{split}"]
            boxes = "".join(
                f"<object><name>{n}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
                "</bndbox></object>"
                for n, a, b, c, d in corners
            )
            text = f"<annotation><filename>{at}.png</filename>{boxes}</annotation>"
            (voc / "Annotations" / f"{at}.xml").write_text(text)
        (voc / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(map(str, numbers)))
    (yolo / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [square, bar]\n")
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    found = [(marked, marked / "train" / "annotations.json"), (root / "boxes.csv", root / "boxes.csv")]
    found += [(yolo, yolo / "data.yaml"), (yolo, yolo / "labels" / "train" / "2.txt")]
    return [*found, (voc, voc / "Annotations" / "2.xml")]


def altered(content: bytes, generator: random.Random) -> bytes:
    """JSON with one of its values replaced."""
    values = json.loads(content)
    holder: Any = values
    while True:
        key = generator.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or generator.random() < 0.2:
            holder[key] = generator.choice(ODD)
            return json.dumps(values).encode("utf-8", "surrogatepass")
        holder = inner


def test_annotations_that_are_broken(tmp_path: Path) -> None:
    places = sources(tmp_path)
    originals = {path: path.read_bytes() for _, path in places}
    outcomes: Counter[str] = Counter()
    for case in range(CASES):
        generator = random.Random(case)
        source, path = places[case % len(places)]
        content = originals[path]
        if path.suffix == ".json" and generator.random() < 0.7:
            changed = altered(content, generator)
        else:
            changed = mutate(content, generator)
        path.write_bytes(changed)
        try:
            index_of(Settings(source=str(source)))
            outcomes["index"] += 1
        except EdgetlError as error:
            outcomes["error" if str(error).strip() else "silent"] += 1
        finally:
            path.write_bytes(content)
    print(dict(outcomes))
    assert not outcomes["silent"]
    assert outcomes["index"] > CASES // 50
    assert outcomes["error"] > CASES // 10


def test_pictures_that_are_broken(tmp_path: Path) -> None:
    root = write_boxes(tmp_path / "set", {"train": 6, "val": 4}, side=SIDE)
    picture = root / "train" / "images" / "2.png"
    content = picture.read_bytes()
    outcomes: Counter[str] = Counter()
    for case in range(CASES // 10):
        picture.write_bytes(mutate(content, random.Random(case)))
        try:
            index_of(Settings(source=str(root)))
            outcomes["index"] += 1
        except EdgetlError as error:
            outcomes["error" if "2.png" in str(error) else "silent"] += 1
    print(dict(outcomes))
    assert not outcomes["silent"]
    assert outcomes["error"] > CASES // 100
