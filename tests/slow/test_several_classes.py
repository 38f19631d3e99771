"""Any number of classes per image, on real pictures: four of cifar10 side by side."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from edgetl import config, pipeline
from edgetl.data.sources import find
from edgetl.records.scores import value

IMAGES = 2000


def compose(source: Path, folder: Path) -> Path:
    """Pictures of 2x2 of a set's images, and a CSV of their classes; no image is in two pictures."""
    entries = [entry for entry in find(str(source)).entries if entry.split in (None, "train")]
    drawn = random.Random(0).sample(entries, 4 * IMAGES)
    rows = ["path,labels"]
    for at in range(IMAGES):
        four = drawn[4 * at : 4 * at + 4]
        picture = Image.new("RGB", (64, 64))
        for place, entry in enumerate(four):
            with Image.open(entry.path) as image:
                picture.paste(image.convert("RGB").resize((32, 32)), (32 * (place % 2), 32 * (place // 2)))
        picture.save(folder / f"{at:04}.png")
        rows.append(f"{at:04}.png,{'|'.join(name for entry in four for name in entry.names)}")
    table = folder / "labels.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


@pytest.mark.slow
def test_four_pictures_side_by_side(real_set: Callable[[str], Path], tmp_path: Path) -> None:
    table = compose(real_set("cifar10"), tmp_path)
    recipe = config.parse(
        {
            "data": {"source": str(table)},
            "task": {"kind": "multilabel"},
            "preprocess": {"size": 128, "crop_fraction": 1.0},
        }
    )
    measured = pipeline.run(recipe, tmp_path / "run").records[pipeline.Stage.MEASURE]
    shipped = next(v for v in measured.variants if v.name == measured.default)
    assert shipped.test is not None
    teacher, student = value(measured.teacher_test, "map"), value(shipped.test, "map")
    print(f"mAP on test: teacher {teacher:.3f}, shipped {shipped.name} {student:.3f}")
    assert teacher > 0.5  # a class is in about a third of the pictures: chance is 0.34
    assert student > teacher - 0.05
