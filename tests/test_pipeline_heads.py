"""Several heads go the whole way: a CSV with a column each and missing labels, one network, one bundle, one gate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgetl
from edgetl import pipeline
from edgetl.bundle.archive import open_bundle
from edgetl.errors import DataError
from edgetl.gate.capture import measure_accuracies
from edgetl.records.gate import Verdict
from edgetl.runtime.evaluate import choose_images, evaluate
from edgetl.tasks.base import Classification, MultiHead, MultiLabel, ScoreLimits
from tests.test_pipeline import tiny_recipe

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
HEADS = {
    "colour": {"kind": "classification", "column": "colour"},
    "shape": {"kind": "classification", "column": "shape"},
    "marks": {"kind": "multilabel", "column": "marks"},
}


def shapes(folder: Path) -> Path:
    """Squares and bars of three colours, some with marks at the edges; labels are missing here and there, and a picture
    without marks is labelled so."""
    rng, rows = np.random.default_rng(0), ["path,colour,shape,marks,split"]
    for split, count in {"train": 24, "val": 12, "test": 12}.items():
        for at in range(count):
            colour, shape = list(COLOURS)[at % 3], ("square", "bar")[at // 3 % 2]
            pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
            pixels[8:24, 8:24] = COLOURS[colour]
            if shape == "bar":
                pixels[8:24, 12:20] = 0
            marks = [mark for mark, every in (("top", 2), ("left", 3)) if at % every == 0]
            pixels[:4] += np.uint8(150 * ("top" in marks))
            pixels[4:, :4] += np.uint8(150 * ("left" in marks))
            name = f"{split}-{at}.png"
            Image.fromarray(pixels).save(folder / name)
            known = at % 4 if split == "train" else 0
            cells = ("" if known == 1 else colour, "" if known == 2 else shape, "|".join(marks) or "none")
            rows.append(",".join((name, *cells, split)))
    path = folder / "shapes.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def finished(table: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Outcome:
    recipe = tiny_recipe(
        table,
        task={"kind": "multihead", "heads": HEADS, "sharing": "soft"},
        train={"epochs": 1},
        distill={"epochs": 1},
        prune={"start_epochs": 0},
    )
    return pipeline.run(recipe, tmp_path_factory.mktemp("runs") / "tiny")


def test_a_recipe_of_heads_becomes_a_bundle_with_an_output_for_each(
    finished: pipeline.Outcome, table: Path
) -> None:
    assert finished.bundle is not None
    bundle = open_bundle(finished.bundle)
    task = bundle.manifest.task
    assert isinstance(task, MultiHead)
    marks = task.heads.pop("marks")
    assert task.heads == {
        "colour": Classification(labels=("blue", "green", "red")),
        "shape": Classification(labels=("bar", "square")),
    }
    assert isinstance(marks, MultiLabel)
    assert marks.labels == ("left", "top")
    assert len(marks.thresholds) == 2, "chosen on the validation split"
    bundle = open_bundle(finished.bundle)
    with edgetl.load(finished.bundle) as session:
        picture = table.parent / "test-0.png"
        answer = session.predict(picture)
        assert set(answer.heads) == {"colour", "shape", "marks"}
        assert session.variant.temperatures == {"colour": 1.0, "shape": 1.0, "marks": 1.0}, "too few images"
        sets = session.predict(picture, coverage=0.9).heads
        assert all(one.possible is not None for one in sets.values())
        images = choose_images(table, [bundle])
        assert images.samples[0].label == {"colour": 2, "shape": 1, "marks": [0, 1]}
        assert images.samples[1].label["marks"] == [], "labelled, and none of them"
        found = evaluate(session, images.samples)
    assert list(found.scores)[:4] == ["mean", "colour/top1", "shape/top1", "marks/map"]


def test_a_bundle_of_heads_predicts_without_torch(finished: pipeline.Outcome, table: Path) -> None:
    code = (
        "import sys, edgetl; s = edgetl.load(sys.argv[1]); print(sorted(s.predict(sys.argv[2]).heads));"
        "assert not {'torch', 'onnx', 'pydantic'} & set(sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, str(finished.bundle), str(table.parent / "test-0.png")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == "['colour', 'marks', 'shape']"


def test_eval_names_the_heads(finished: pipeline.Outcome, table: Path) -> None:
    command = [sys.executable, "-m", "edgetl", "eval", str(finished.bundle), str(table), "--json"]
    scored = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert {"mean", "colour/top1", "shape/top1", "marks/map"} <= scored["scores"].keys()


def test_a_gate_names_the_head(finished: pipeline.Outcome, table: Path, tmp_path: Path) -> None:
    assert finished.bundle is not None
    with edgetl.load(finished.bundle) as session:
        [kept] = measure_accuracies([session], table)
        task, few = session.task, tmp_path / "few.csv"
        few.write_text(
            "path,colour,shape,marks,split\n"
            + "".join(
                f"{table.parent / f'test-{at}.png'},red,{('bar', '')[at % 2]},top,test\n" for at in range(4)
            )
        )
        with pytest.raises(
            DataError, match="has no images of colour/blue, colour/green, shape/square and 1 more"
        ):
            measure_accuracies([session], few)
    truths = task.read(kept.truth)
    shapes_lost = [{**truth, "shape": 1 - truth["shape"]} for truth in kept.truth]
    checks = task.judge(truths, truths, task.read(shapes_lost), ScoreLimits())
    assert {check.name for check in checks if check.verdict is Verdict.FAIL} == {
        "shape accuracy",
        "shape macro-F1",
    }
    assert {check.name.partition(" ")[0] for check in checks} == {"colour", "shape", "marks"}
