"""Pretraining as a stage of the run: skipped, used where it helped, cached, and refused where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetl import config, pipeline
from edgetl.bundle.archive import open_bundle
from edgetl.config import Recipe
from edgetl.errors import ConfigError, DataError, ModelError, WeightsError
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import checkpoint
from edgetl.models.architecture import describe
from edgetl.models.backbones import create
from edgetl.pipeline import Stage
from edgetl.records.train import PairedComparison, PretrainRecord, TrainRecord
from edgetl.train import starts
from edgetl.train.pretrain.probe import Probed
from tests import squares
from tests.images import write_set
from tests.test_pipeline import tiny_recipe


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("images"), {"train": 6, "val": 4, "test": 2})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("further"), {"photos": 4}, seed=9) / "photos"


def recipe_of(data: Path, /, **pretrain: object) -> Recipe:
    return tiny_recipe(data, train={"epochs": 1}, pretrain={"epochs": 1, "batch_size": 8, **pretrain})


def trained(recipe: Recipe, folder: Path) -> tuple[PretrainRecord | None, TrainRecord, tuple[Stage, ...]]:
    outcome = pipeline.run(recipe, folder, until=Stage.TRAIN)
    return outcome.records[Stage.PRETRAIN], outcome.records[Stage.TRAIN], outcome.cached


def verdict(monkeypatch: pytest.MonkeyPatch, helped: bool) -> None:
    """What either judge shall find."""
    found = PairedComparison(
        metric="top1",
        images=12,
        before=0.5,
        after=0.75 if helped else 0.5,
        interval=(0.1, 0.4) if helped else (-0.1, 0.1),
        p_value=0.01 if helped else 0.6,
        helped=helped,
    )
    monkeypatch.setattr(Probed, "compare", lambda *_, **__: found)
    monkeypatch.setattr(starts, "compare", lambda *_, **__: found)


def weights_of(run: Path, record: TrainRecord) -> bytes:
    return (run / record.checkpoint).read_bytes()


def test_the_teacher_begins_with_the_backbone_only_where_it_helped(
    images: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing, plain, _ = trained(recipe_of(images), tmp_path / "plain")
    assert nothing is None
    assert plain.start is None
    assert [step.kind for step in plain.lineage] == ["weights", "train"]
    assert not list((tmp_path / "plain").glob("pretrain*"))
    verdict(monkeypatch, helped=False)
    first, record, _ = trained(recipe_of(images, images=str(photos)), tmp_path / "run")
    assert first is not None
    assert record.start is not None
    assert (record.start.judge, record.start.used) == ("training", False)
    assert record.start.note == (
        "Pretraining (simclr on 12 images (photos)) did not help: the trained teacher went from top-1 50.0% to 50.0% on"
        " 12 validation images (+0.0 points, 90% interval -10.0 to +10.0, p = 0.6); the one from the original weights"
        " is kept."
    )
    assert record.start.other_seconds > 0
    assert weights_of(tmp_path / "run", record) == weights_of(tmp_path / "plain", plain)
    assert record.lineage == plain.lineage
    forced, record, cached = trained(recipe_of(images, images=str(photos), always=True), tmp_path / "run")
    assert forced == first
    assert record.start is not None
    assert (record.start.comparison.helped, record.start.used, cached) == (
        False,
        True,
        (Stage.DATA, Stage.PRETRAIN),
    )
    assert "in any case (pretrain.always); a linear probe went" in record.start.note
    assert [step.kind for step in record.lineage] == ["weights", "simclr", "train"]
    begun = weights_of(tmp_path / "run", record)
    verdict(monkeypatch, helped=True)
    used, record, cached = trained(recipe_of(images, images=str(photos)), tmp_path / "run")
    assert cached == (Stage.DATA, Stage.PRETRAIN)
    assert used is not None
    assert record.start is not None
    assert record.start.used
    assert record.start.note.endswith("p = 0.01); the one after it is kept.")
    assert weights_of(tmp_path / "run", record) == begun
    assert record.lineage[:-1] == used.lineage
    everything = (Stage.DATA, Stage.PRETRAIN, Stage.TRAIN)
    assert trained(recipe_of(images, images=str(photos)), tmp_path / "run")[2] == everything


def test_where_it_is_used_in_any_case_one_training_is_enough(
    images: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict(monkeypatch, helped=True)
    recipe = recipe_of(images, images=str(photos), always=True)
    _, record, _ = trained(recipe, tmp_path / "run")
    assert record.start is not None
    assert (record.start.judge, record.start.used, record.start.other_seconds) == ("probe", True, 0)
    assert record.start.note.startswith(
        "Training begins with what was learned first (simclr on 12 images (photos)) in any case (pretrain.always); a"
    )
    assert [step.kind for step in record.lineage] == ["weights", "simclr", "train"]
    other = tiny_recipe(
        images,
        train={"epochs": 2, "lr": 1e-4},
        pretrain={"epochs": 1, "batch_size": 8, "images": str(photos), "always": True},
    )
    assert trained(other, tmp_path / "run")[2] == (Stage.DATA, Stage.PRETRAIN)


def test_a_whole_run_says_in_its_bundle_and_report_what_was_learned_first(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict(monkeypatch, helped=True)
    source = write_set(tmp_path, {"other": 4}, seed=9) / "other"
    outcome = pipeline.run(recipe_of(images, source=str(source)), tmp_path / "run")
    first = outcome.records[Stage.PRETRAIN]
    assert (first.kind, first.name, len(first.classes)) == ("source", "other", 3)
    assert outcome.bundle is not None
    provenance = open_bundle(outcome.bundle).manifest.provenance
    assert provenance.lineage == outcome.records[Stage.TRAIN].lineage
    assert [step.kind for step in provenance.lineage] == ["weights", "train", "train"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    said = report["teacher"]["start"]["note"]
    assert said == outcome.records[Stage.TRAIN].start.note
    assert report["stage_seconds"]["pretrain"] > 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="pretraining"' in page
    assert "the one after it is kept" in page


def test_what_cannot_be_learned_from_is_said_before_anything_is_trained(
    images: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    wrong = write_set(tmp_path / "wrong", {"train": 3})
    (wrong / "train" / "red" / "000.png").write_bytes(b"no image")
    for settings, said in (
        ({"images": str(tmp_path / "empty")}, r"pretrain\.images: .*empty holds no images at any depth"),
        ({"images": str(tmp_path / "gone")}, r"pretrain\.images: .*gone does not exist; give a folder"),
        ({"source": str(tmp_path / "gone")}, r"pretrain\.source: .*gone"),
        ({"source": str(wrong)}, r"pretrain\.source: 1 of 9 images in .*wrong cannot be used"),
    ):
        with pytest.raises(DataError, match=said):
            pipeline.run(recipe_of(images, **settings), tmp_path / "run", until=Stage.TRAIN)
    recipe = recipe_of(images, images=str(photos), method="features", teacher="resnet_18x")
    with pytest.raises(ModelError, match="No backbone is called 'resnet_18x'"):
        pipeline.run(recipe, tmp_path / "run", until=Stage.TRAIN)
    model = create("test_resnet", 2, "none")
    extra = checkpoint.provenance(("a", "b"), PreprocessSpec(size=32))
    weights = tmp_path / "teacher.safetensors"
    checkpoint.save(model, describe(model, "test_resnet", 2), weights, extra)
    recipe = tiny_recipe(images, train={"weights": str(weights)}, pretrain={"images": str(photos)})
    with pytest.raises(WeightsError, match=r"is a checkpoint of test_resnet .* first tensor that differs is"):
        pipeline.run(recipe, tmp_path / "run", until=Stage.TRAIN)
    assert not (tmp_path / "run" / "train").exists()


def test_settings_that_do_not_go_together_are_refused() -> None:
    for settings, said in (
        ({"source": "a", "images": "b"}, "pretrain: source and images are both set"),
        ({"images": "b", "method": "features"}, 'pretrain: method = "features" follows a larger backbone'),
        (
            {"images": "b", "teacher": "resnet50"},
            'teacher is for method = "features", and method is "simclr"',
        ),
        (
            {"images": "b", "batch_size": 1},
            'method = "simclr" compares the images of a step, and batch_size is 1',
        ),
        ({"images": "b", "method": "moco"}, "pretrain.method: input should be 'simclr', 'vicreg'"),
    ):
        with pytest.raises(ConfigError) as caught:
            config.parse({"pretrain": settings})
        assert said in str(caught.value)


def test_boxes_and_folds_are_refused_with_another_way(images: Path, photos: Path, tmp_path: Path) -> None:
    recipe = recipe_of(images, images=str(photos))
    with pytest.raises(ConfigError, match=r"does not repeat \[pretrain\] in each fold.*train\.weights"):
        pipeline.cross_validate(recipe, tmp_path / "folds", 2)
    boxes = squares.write_set(tmp_path / "boxes", 4)
    recipe = config.parse(
        {"data": {"source": str(boxes)}, "preprocess": {"size": 64}, "pretrain": {"images": str(photos)}}
    )
    with pytest.raises(ConfigError, match=r"finds no boxes.*train\.weights"):
        pipeline.run(recipe, tmp_path / "run", until=Stage.TRAIN)


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    for name in ("photos", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "t.safetensors").touch()
    path = tmp_path / "r.toml"
    path.write_text('[pretrain]\nimages = "photos"\nmethod = "features"\nteacher = "t.safetensors"\n')
    found = config.load(path).pretrain
    assert (found.images, found.teacher) == (str(tmp_path / "photos"), str(tmp_path / "t.safetensors"))
    path.write_text('[pretrain]\nsource = "other"\n')
    assert config.load(path).pretrain.source == str(tmp_path / "other")
    assert config.load(path, ["pretrain.source=digits"]).pretrain.source == "digits"
