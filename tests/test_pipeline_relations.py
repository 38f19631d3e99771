"""A tree of classes goes the whole way: it teaches, weighs mistakes, and lets a device answer with a group."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgetl
from edgetl import pipeline
from edgetl.bundle.archive import open_bundle
from edgetl.config import Recipe
from edgetl.errors import ConfigError
from edgetl.keys import key_of
from edgetl.pipeline import Stage, flow
from edgetl.progress import SILENT
from edgetl.report.terminal import device
from edgetl.runtime.inputs import ImageResult
from edgetl.tasks.base import Classification
from edgetl.tasks.relations import Tree
from tests.cli.typed import edgetl as typed
from tests.images import write_set
from tests.report.test_terminal import shown
from tests.test_pipeline import tiny_recipe

TREE = 'cold = ["blue", "green"]\ncolour = ["red", "cold"]\n'
PARENTS = {"blue": "cold", "cold": "colour", "green": "cold", "red": "colour"}


def recipe_for(source: Path, tree: Path, loss: str = "hierarchical") -> Recipe:
    return tiny_recipe(
        source,
        labels={"tree": str(tree), "loss": loss},
        train={"epochs": 1, "mix": "both"},
        distill={"epochs": 1, "mix": "mixup"},
        prune={"start_epochs": 0},
        quantize={"images": 12, "max_drop": 0.9, "recovery": "qat", "qat_epochs": 1},
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("images"), {"train": 8, "val": 4, "test": 4})


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Outcome:
    tree = tmp_path_factory.mktemp("tree") / "tree.toml"
    tree.write_text(TREE)
    return pipeline.run(recipe_for(images, tree), tmp_path_factory.mktemp("runs") / "tiny")


def test_the_tree_and_its_figures_are_in_the_bundle_and_the_report(finished: pipeline.Outcome) -> None:
    assert finished.bundle is not None
    manifest = open_bundle(finished.bundle).manifest
    tree = Tree(parents=PARENTS)
    assert manifest.task == Classification(labels=("blue", "green", "red"), relation=tree)
    assert "a tree of 2 groups" in shown(device.bundle, manifest)
    test = finished.records[Stage.TRAIN].test
    assert 0.0 <= test.scores["label_distance"].low <= test.scores["label_distance"].high <= 1.0
    page = (finished.run_dir / "report.html").read_text()
    assert "label distance" in page
    epoch = finished.records[Stage.DISTILL].epochs[0]
    assert "label_distance" in epoch.val.scores


def test_an_unsure_device_answers_a_group(finished: pipeline.Outcome, images: Path) -> None:
    picture = images / "test" / "green" / "000.png"
    with edgetl.load(finished.bundle, threads=1) as session:
        plain = session.predict(picture)
        assert session.predict(picture, sure=plain.score) == plain
        [group] = session.predict([picture], sure=1.0)
        assert (group.label, group.index) == ("colour", plain.index)
        assert sorted(group.classes) == ["blue", "green", "red"]
        table = shown(device.predictions, [ImageResult(path="a.png", prediction=group)])
        assert "colour, either" in table
        for wrong in (0.0, 1.5):
            with pytest.raises(
                ConfigError, match=r"^sure: got .*, expected a probability above 0 and at most 1"
            ):
                session.predict(picture, sure=wrong)


def test_predict_climbs_without_torch(finished: pipeline.Outcome, images: Path) -> None:
    picture = images / "test" / "green" / "000.png"
    code = (
        "import sys, edgetl; s = edgetl.load(sys.argv[1]); print(s.predict(sys.argv[2], sure=1.0).label);"
        "assert not {'torch', 'onnx', 'pydantic'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(finished.bundle), str(picture)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "colour\n"
    done = typed("predict", finished.bundle, picture, "--sure", "1.0", "--json")
    [answer] = json.loads(done.stdout)
    assert answer["prediction"]["label"] == "colour"
    assert sorted(answer["prediction"]["classes"]) == ["blue", "green", "red"]


def test_eval_weighs_the_mistakes(finished: pipeline.Outcome, images: Path) -> None:
    done = typed("eval", finished.bundle, images, "--json")
    assert done.returncode == 0, done.stderr
    scored = json.loads(done.stdout)["scores"]
    assert {"low", "high", "value"} <= scored["label_distance"].keys()


def test_what_follows_the_data_depends_on_what_the_file_says(images: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree.toml"
    tree.write_text(TREE)
    recipe, keys = recipe_for(images, tree, "plain"), []
    for text in (TREE, TREE.replace("cold", "cool")):
        tree.write_text(text)
        run = flow.Run(recipe, tmp_path / "run", SILENT)
        run.until(Stage.DATA)
        keys.append(key_of(run.train_inputs()))
        assert run.cached == ([Stage.DATA] if len(keys) == 2 else [])
    assert keys[0] != keys[1]
    tree.write_text(TREE.replace("blue", "bleu"))
    with pytest.raises(
        ConfigError, match=r"labels.tree = .*: bleu is no class of the data \(did you mean blue\?\)"
    ):
        pipeline.run(recipe, tmp_path / "run", until=Stage.DATA)


def test_a_tree_that_cannot_be_read_leaves_no_folder_behind(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: it cannot be read"):
        pipeline.run(recipe_for(images, tmp_path / "gone.toml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_check_reads_the_relation_of_a_recipe(images: Path, tmp_path: Path) -> None:
    (tmp_path / "tree.toml").write_text('colour = ["red", "blue"]\n')
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[data]\nsource = "{images}"\n[labels]\ntree = "tree.toml"\n')
    done = typed("data", "check", recipe)
    assert done.returncode == 2
    assert "the tree lacks green of the data's classes; add what is missing." in done.stderr
