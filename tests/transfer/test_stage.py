"""Ranking from images to a proposal, on a tiny network whose weights lie in a file."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from edgetl import config
from edgetl.config import LatencyTarget, PreprocessConfig
from edgetl.data.build import index_of
from edgetl.data.index import DataIndex, Sample
from edgetl.data.sources import labelling_in
from edgetl.errors import ConfigError, DataError, ModelError, WeightsError
from edgetl.inputs.image import PreprocessSpec, load_pixels
from edgetl.models import backbones
from edgetl.progress import SILENT
from edgetl.records.transfer import BackboneRanking, Skipped
from edgetl.tasks.base import Classification, Detection, MultiHead
from edgetl.train.features import plain_views
from edgetl.train.sets import PixelSet
from edgetl.train.tasks.all import training_task
from edgetl.transfer import networks, stage
from edgetl.transfer.networks import Source, export_all, features_of
from edgetl.transfer.pixels import open_sizes
from edgetl.transfer.stage import RankingConfig
from tests.data.images import Recorder, Settings
from tests.images import write_set
from tests.sounds import PREPROCESS, SPEC, write_tones
from tests.test_multilabel import write_marks

TINY = "test_efficientnet"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(dict(backbones.create(TINY, 10, "none", seed=3).state_dict()), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("images"), {"train": 12, "val": 6, "test": 2})


def indexed(source: Path) -> DataIndex:
    return index_of(Settings(str(source)), labelling=labelling_in(str(source)))


def looked(source: Path, weights: Path, index: DataIndex | None = None, **values: object) -> BackboneRanking:
    asked = RankingConfig(sources=(Source(backbone=TINY, weights=str(weights)),), threads=1, **values)
    return stage.run(asked, index or indexed(source), PreprocessConfig(size=64, crop_fraction=1.0))


@pytest.fixture(scope="module")
def record(images: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> BackboneRanking:
    own = shutil.copytree(images, tmp_path_factory.mktemp("own") / "images")
    index = indexed(own)
    shutil.rmtree(own / "test")  # whatever looks at it fails
    return looked(own, weights, index, sizes=(32, 48))


def test_every_size_is_ranked_and_the_choice_is_stated_for_the_recipe(
    record: BackboneRanking, weights: Path
) -> None:
    assert (record.metric, record.classes, record.train_images, record.val_images) == ("top1", 3, 36, 18)
    assert sorted(one.size for one in record.candidates) == [32, 48]
    small, large = sorted(record.candidates, key=lambda one: one.size)
    assert small.network.parameters == large.network.parameters
    assert 0 < small.network.macs < large.network.macs
    assert all(one.score.value > 0.9 and one.score.interval for one in record.candidates)  # colours are easy
    assert all(one.latency.runs >= 30 and one.latency.threads == 1 for one in record.candidates)
    assert record.settings == (
        f'train.backbone = "{TINY}"',
        f'train.weights = "{weights}"',
        f"preprocess.size = {record.choice.size}",
    )


def test_recordings_are_ranked_by_their_pictures(tmp_path: Path, weights: Path) -> None:
    root = write_tones(tmp_path / "tones", {"train": 8, "val": 4})
    index = index_of(Settings(str(root)), sound=SPEC)
    asked = RankingConfig(sources=(Source(backbone=TINY, weights=str(weights)),), threads=1)
    found = stage.run(asked, index, PreprocessConfig(size=48, resize="squash"))
    assert [one.size for one in found.candidates] == [48]  # more pixels would show no more
    assert found.choice.score.value > 0.6
    val = index.split("val")[:2]
    [pixels] = open_sizes(val, [PREPROCESS], tmp_path)
    np.testing.assert_array_equal(pixels, [load_pixels(one.path, PREPROCESS) for one in val])


def test_the_lines_make_a_recipe(record: BackboneRanking) -> None:
    slow = replace(record.choice, weights="pretrained", within_budget=False)
    text = "\n".join(stage._settings(slow, 0.5))
    read = config.parse(tomllib.loads(text))
    assert (read.train.backbone, read.preprocess.size) == (TINY, slow.size)
    assert read.prune.target == LatencyTarget(kind="latency", ms=0.5)


def test_features_are_those_that_the_last_layer_gets(images: Path, weights: Path, tmp_path: Path) -> None:
    index, task = indexed(images), training_task(Classification(labels=("blue", "green", "red")))
    spec = PreprocessSpec(size=32, crop_fraction=1.0)
    [exported], skipped = export_all([Source(backbone=TINY, weights=str(weights))], [spec], task)
    [pixels] = open_sizes(index.split("val"), [exported.spec], tmp_path)
    assert skipped == []
    with SILENT.task("", 1) as bar:
        found = features_of(exported, pixels, bar, threads=1)
    network = task.network(TINY, str(weights), seed=0, size=32).eval()
    seen: list[torch.Tensor] = []
    (name,) = task.output_layers(network)
    network.get_submodule(name).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    rows = PixelSet(pixels, np.zeros(len(pixels), np.int64), exported.spec)
    with torch.inference_mode():
        for batch in plain_views(rows, len(pixels)):
            network(batch)
    assert found == pytest.approx(torch.cat(seen).numpy(), abs=1e-4)


def test_pixels_of_each_size_are_those_of_a_run(images: Path, tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 1000, (60, 70)).astype(np.uint16)).save(deep)
    samples = [*indexed(images).split("val"), Sample(deep, 0, "val", "")]
    specs = [PreprocessSpec(size=size, window=(100.0, 900.0), guess_floats=False) for size in (24, 48)]
    for pixels, spec in zip(open_sizes(samples, specs, tmp_path), specs, strict=True):
        assert (pixels == np.stack([load_pixels(s.path, spec) for s in samples])).all()


def test_a_network_whose_sides_must_be_whole_patches_is_named_with_what_it_takes() -> None:
    task = training_task(Classification(labels=("a", "b")))
    network = task.network("test_vit", "none", seed=0, size=64)
    with pytest.raises(
        ModelError, match=r"test_vit does not take images of 40 pixels .* Name these with --sizes"
    ):
        networks._exported(network, Source(backbone="test_vit"), PreprocessSpec(size=40), task)


def test_any_number_of_classes(tmp_path: Path, weights: Path) -> None:
    record = looked(write_marks(tmp_path, 64), weights, sizes=(32,))
    assert (record.metric, record.train_images, record.val_images) == ("map", 32, 16)
    assert record.candidates[0].score.value > 0.6


def test_fewer_images_are_drawn_evenly(images: Path, weights: Path) -> None:
    record = looked(images, weights, sizes=(32,), images=20)
    assert (record.train_images, record.val_images) == (12, 8)


def test_what_cannot_be_had_is_skipped_with_its_reason(
    images: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    sources = [Source(backbone="resnet18"), Source(backbone="test_vit", weights="none")]
    task = training_task(Classification(labels=("a", "b")))
    exported, skipped = export_all(sources, [PreprocessSpec(size=40)], task)
    assert exported == []
    assert [one.name for one in skipped] == ["resnet18", "test_vit at 40 px"]
    assert skipped[0].reason.startswith("Cannot get the pretrained weights of resnet18: no network.")
    assert "test_vit cannot be built for images of 40 pixels per side" in skipped[1].reason


def test_default_backbones_that_would_have_to_be_fetched_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "absence", lambda name: None if name == "efficientnet_lite0" else "No.")
    sources, skipped = stage._sources(RankingConfig())
    assert sources == (Source(backbone="efficientnet_lite0"),)
    assert {one.name for one in skipped} == {*backbones.SMALL} - {"efficientnet_lite0"}


def test_without_any_weights_it_says_what_to_do(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "absence", lambda name: f"{name} is not here.")
    with pytest.raises(WeightsError, match="no pretrained weights can be had:") as stated:
        stage.run(RankingConfig(), indexed(images), PreprocessConfig())
    assert "\n  efficientnet_lite0: efficientnet_lite0 is not here.\n" in str(stated.value)
    assert str(stated.value).endswith("or name a local file with --backbones NAME=FILE.")


def test_a_named_file_that_does_not_fit_is_an_error(images: Path, weights: Path) -> None:
    asked = RankingConfig(sources=(Source(backbone="test_resnet", weights=str(weights)),), sizes=(32,))
    with pytest.raises(WeightsError, match="does not fit"):
        stage.run(asked, indexed(images), PreprocessConfig())


def test_a_size_that_no_backbone_takes_is_an_error() -> None:
    left = [Skipped(name="vit at 20 px", reason="Takes 224.")]
    assert isinstance(stage._nothing_left(left), ConfigError)


def test_boxes_heads_and_too_few_images_are_refused(images: Path, weights: Path) -> None:
    with pytest.raises(
        DataError, match="this set marks boxes: take the backbone and size that `edgetl init`"
    ):
        stage.check_task(Detection(labels=("a",)))
    with pytest.raises(DataError, match="a CSV with one of the columns as `label`"):
        stage.check_task(MultiHead(heads={"kind": Classification(labels=("a", "b"))}))
    index = indexed(images)
    few = replace(index, samples=tuple(s for s in index.samples if s.split != "val"))
    with pytest.raises(DataError, match=r"gave 0 validation images and 36 training images of 3\. Allow more"):
        looked(images, weights, few)


def test_progress_is_shown(images: Path, weights: Path) -> None:
    shown = Recorder()
    asked = RankingConfig(
        sources=(Source(backbone=TINY, weights=str(weights)),), sizes=(32,), images=20, threads=1
    )
    stage.run(asked, indexed(images), PreprocessConfig(), progress=shown)
    assert shown.steps == 1 + 20 + 4 + 7
