"""Adaptation as a stage of the run: what follows it sees the target's images too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetl import config, pipeline
from edgetl.bundle.archive import open_bundle
from edgetl.config import Recipe
from edgetl.errors import ConfigError, DataError
from edgetl.pipeline import Stage
from tests import squares
from tests.images import write_set
from tests.test_pipeline import tiny_recipe


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("images"), {"train": 6, "val": 4, "test": 2})


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("other camera"), {"photos": 4}, seed=9) / "photos"


def recipe_of(data: Path, /, **adapt: object) -> Recipe:
    return tiny_recipe(data, train={"epochs": 1}, distill={"epochs": 1}, adapt={"epochs": 1, **adapt})


def test_a_whole_run_adapts_and_goes_on_with_both_domains(images: Path, target: Path, tmp_path: Path) -> None:
    recipe = recipe_of(images, images=str(target), method="coral")
    outcome = pipeline.run(recipe, tmp_path / "run")
    adapted, student = outcome.records[Stage.ADAPT], outcome.records[Stage.DISTILL]
    assert (adapted.method, adapted.images) == ("coral", 12)
    assert student.unlabelled == 12
    assert outcome.records[Stage.MEASURE].teacher_val == adapted.val
    calibrated = json.loads((tmp_path / "run" / "quantize" / "calibration.json").read_text())["images"]
    assert sorted(image["label"] for image in calibrated) == [""] * 6 + sorted(2 * ["blue", "green", "red"])
    assert outcome.bundle is not None
    lineage = open_bundle(outcome.bundle).manifest.provenance.lineage
    assert [step.kind for step in lineage] == ["weights", "train", "coral"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="adaptation"' in page
    assert "coral was asked for by name" in page
    assert json.loads((tmp_path / "run" / "report.json").read_text())["adapt"]["method"] == "coral"
    again = pipeline.run(recipe, tmp_path / "run", until=Stage.DISTILL)
    assert Stage.ADAPT in again.cached
    assert Stage.DISTILL in again.cached


def test_a_run_without_a_target_has_no_such_stage(images: Path, tmp_path: Path) -> None:
    outcome = pipeline.run(recipe_of(images), tmp_path, until=Stage.ADAPT)
    assert outcome.records[Stage.ADAPT] is None
    assert not list(tmp_path.glob("adapt*"))


def test_what_cannot_be_adapted_is_said_before_anything_is_trained(
    images: Path, target: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"adapt\.images: .*gone does not exist; give a folder"):
        pipeline.run(recipe_of(images, images=str(tmp_path / "gone")), tmp_path / "run", until=Stage.ADAPT)
    few = write_set(tmp_path / "few", {"photos": 2}) / "photos"
    with pytest.raises(ConfigError, match=r"adapt\.images holds 6 usable images, too few"):
        pipeline.run(recipe_of(images, images=str(few)), tmp_path / "run", until=Stage.ADAPT)
    head = tiny_recipe(images, train={"strategy": "head"}, adapt={"images": str(target), "method": "dann"})
    with pytest.raises(ConfigError, match=r'adapt\.method = "dann" moves the features'):
        pipeline.run(head, tmp_path / "run", until=Stage.ADAPT)
    boxes = squares.write_set(tmp_path / "boxes", 4)
    recipe = config.parse(
        {"data": {"source": str(boxes)}, "preprocess": {"size": 64}, "adapt": {"images": str(target)}}
    )
    with pytest.raises(ConfigError, match=r"adapt\.images asks for one class per image"):
        pipeline.run(recipe, tmp_path / "run", until=Stage.ADAPT)
    assert not (tmp_path / "run" / "train").exists()
    for distill, said in (
        ({"loss": "dkd"}, "distill.loss = dkd needs the label of each image"),
        ({"mix": "mixup"}, "distill.mix = mixup blends labels"),
        (
            {"soft_weight": 0.0, "features": "fitnets"},
            "teacher only, which distill.soft_weight = 0 turns off",
        ),
    ):
        with pytest.raises(ConfigError, match=f"{said}.* or leave adapt.images unset"):
            config.parse({"adapt": {"images": "a"}, "distill": distill})


def test_cross_validation_does_not_adapt(images: Path, target: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not repeat \[adapt\] in each fold.* Remove adapt\.images"):
        pipeline.cross_validate(recipe_of(images, images=str(target)), tmp_path / "run", 2)


def test_the_student_follows_the_teacher_on_further_images_and_on_the_target_s(
    images: Path, target: Path, tmp_path: Path
) -> None:
    further = write_set(tmp_path / "further", {"photos": 3}, seed=5) / "photos"
    (further / "again.png").write_bytes(next(target.rglob("*.png")).read_bytes())
    recipe = tiny_recipe(
        images,
        adapt={"images": str(target), "method": "bn"},
        prune={"enabled": False},
        distill={"epochs": 3, "unlabelled": str(further)},
        train={"epochs": 1},
    )
    outcome = pipeline.run(recipe, tmp_path / "run", until=Stage.DISTILL)
    assert outcome.records[Stage.DISTILL].unlabelled == 12 + 9


def test_the_folder_is_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    path = tmp_path / "r.toml"
    path.write_text('[adapt]\nimages = "photos"\n')
    assert config.load(path).adapt.images == str(tmp_path / "photos")
