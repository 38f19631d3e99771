"""A finished run goes on with new classes: joined, held to what it knew, and shipped as any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import edgetl
from edgetl import config, pipeline
from edgetl.bundle.archive import open_bundle
from edgetl.cli import app
from edgetl.data import index as indexes
from edgetl.errors import ConfigError, DataError
from edgetl.pipeline import Stage
from edgetl.records.gate import Verdict
from tests import squares
from tests.images import write_set
from tests.test_pipeline import tiny_recipe

SHORT = ("--set", "train.epochs=3", "--set", "extend.exemplars=4")


def without(root: Path, *labels: str) -> Path:
    """The set at `root` without some classes."""
    for label in labels:
        for folder in root.glob(f"*/{label}"):
            shutil.rmtree(folder)
    return root


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    images = without(write_set(folder / "images", {"train": 12, "val": 4, "test": 4}), "blue")
    pipeline.run(tiny_recipe(images, train={"epochs": 4}), folder / "run", until=Stage.TRAIN)
    return folder / "run"


@pytest.fixture(scope="module")
def blue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_set(tmp_path_factory.mktemp("added"), {"train": 12, "val": 4, "test": 4}, seed=3)
    return without(root, "red", "green")


def test_a_run_goes_on_with_a_class_of_its_own(earlier: Path, blue: Path, tmp_path: Path) -> None:
    (blue / "train" / "blue" / "old.png").write_bytes(
        next((earlier.parent / "images" / "val").rglob("*.png")).read_bytes()
    )
    done = CliRunner().invoke(
        app, ["extend", str(earlier), "--add", str(blue), "-o", str(tmp_path / "run"), *SHORT]
    )
    assert done.exit_code in (0, 1, 3), done.output  # so few images may go either way
    lock = config.load(tmp_path / "run" / "recipe.lock.toml")
    assert (lock.name, lock.extend.run, lock.train.imbalance) == ("run", str(earlier), "sampling")
    joined = indexes.load(tmp_path / "run" / "extend" / "index.json")
    assert joined.labels == ("green", "red", "blue")
    assert joined.counts() == {
        "train": {"green": 4, "red": 4, "blue": 12},
        "val": {"green": 4, "red": 4, "blue": 4},
        "test": {"green": 4, "red": 4, "blue": 4},
    }
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    kept = report["teacher"]["kept"]
    assert kept["new"] == ["blue"]
    assert [(group["title"], group["images"]) for group in kept["groups"]] == [
        ("the run's own images", 8),
        ("images of new classes", 4),
    ]
    assert kept["groups"][1]["before"] is None
    assert [check["name"] for check in kept["checks"]] == ["accuracy", "macro-F1", "recall"]
    assert "known classes" in done.stdout
    assert 'id="extension"' in (tmp_path / "run" / "report.html").read_text()
    bundle = tmp_path / "run" / "run.edgetl"
    assert [s.kind for s in open_bundle(bundle).manifest.provenance.lineage] == ["weights", "train", "extend"]
    with edgetl.load(bundle, threads=1) as session:
        assert session.labels == ("green", "red", "blue")


def test_the_same_classes_under_new_conditions(earlier: Path, tmp_path: Path) -> None:
    dark = without(write_set(tmp_path / "dark", {"train": 6, "val": 3}, seed=5), "blue")
    recipe = config.extended(earlier, str(dark), "again", ("train.epochs=1", "extend.exemplars=100"))
    outcome = pipeline.run(recipe, tmp_path / "run", until=Stage.TRAIN)
    kept = outcome.records[Stage.TRAIN].kept
    assert kept.new == ()
    assert [group.title for group in kept.groups] == ["the run's own images", "added images of known classes"]
    assert all(group.before is not None for group in kept.groups)
    counts = outcome.records[Stage.DATA].counts["train"]  # pictures of noise may look alike by chance
    assert all(14 <= counts[label] <= 18 for label in ("green", "red"))
    assert kept.verdict in Verdict
    again = pipeline.run(recipe, tmp_path / "run", until=Stage.TRAIN)
    assert again.cached == (Stage.DATA, Stage.TRAIN)


def refused(earlier: Path, added: Path, tmp_path: Path, *settings: str) -> str:
    with pytest.raises((ConfigError, DataError)) as told:
        pipeline.run(config.extended(earlier, str(added), "x", settings), tmp_path / "run", until=Stage.TRAIN)
    assert not (tmp_path / "run" / "train").exists()
    return str(told.value)


def test_what_cannot_be_added_is_said_before_anything_is_trained(
    earlier: Path, blue: Path, tmp_path: Path
) -> None:
    images = earlier.parent / "images"
    assert "holds no new images: all 40 are in the run already" in refused(earlier, images, tmp_path / "a")
    for split in ("train", "val"):
        shutil.copytree(blue / split / "blue", tmp_path / "spelt" / split / "Green")
    assert "'green' and 'Green'\nRename its folders" in refused(earlier, tmp_path / "spelt", tmp_path / "b")
    boxes = squares.write_set(tmp_path / "boxes", 4)
    assert "one class per image, and" in refused(earlier, boxes, tmp_path / "c", "preprocess.size=64")
    assert "network of test_efficientnet, but train.backbone is test_resnet" in refused(
        earlier, blue, tmp_path / "d", "train.backbone=test_resnet"
    )
    assert "[preprocess] differs from that of the run" in refused(
        earlier, blue, tmp_path / "e", "preprocess.size=48"
    )
    with pytest.raises(ConfigError, match=r"nowhere is not the folder of a run"):
        config.extended(tmp_path / "nowhere", str(blue), "x")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(earlier / "recipe.lock.toml", unfinished)
    assert "has no trained network yet (data/index.json is missing)" in refused(
        unfinished, blue, tmp_path / "f"
    )
    shutil.copytree(earlier / "data", unfinished / "data")
    assert "(train/teacher.safetensors is missing)" in refused(unfinished, blue, tmp_path / "g")


def test_settings_that_do_not_go_with_a_run_that_goes_on() -> None:
    for section, value in (("pretrain", {"images": "a"}), ("adapt", {"images": "a"})):
        with pytest.raises(ConfigError, match=rf"\[{section}\] does not go with it"):
            config.parse({"extend": {"run": "runs/a"}, section: value})
    with pytest.raises(ConfigError, match=r"extend\.run is for one class per image"):
        config.parse({"extend": {"run": "runs/a"}, "task": {"kind": "multilabel"}})


def test_cross_validation_does_not_go_on(earlier: Path, blue: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not repeat \[extend\]"):
        pipeline.cross_validate(config.extended(earlier, str(blue), "x"), tmp_path / "run", 2)


def test_the_run_is_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    path = tmp_path / "r.toml"
    path.write_text('[extend]\nrun = "before"\n')
    assert config.load(path).extend.run == str(tmp_path / "before")
