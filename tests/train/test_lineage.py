"""A network that begins with another run's: new classes, the rest taken, and the chain of what it learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgetl.config import DataConfig, TrainConfig
from edgetl.data.index import build_index
from edgetl.errors import WeightsError
from edgetl.files import sha256_file
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import checkpoint
from edgetl.models.architecture import describe
from edgetl.models.backbones import create
from edgetl.models.detector import create_detector
from edgetl.records.lineage import LineageStep, lineage_words
from edgetl.train import stage
from edgetl.train.lineage import lineage_before
from tests.images import write_set

NAME = "test_efficientnet"
CONFIG = TrainConfig(backbone=NAME, weights="none", head_epochs=0, epochs=1, batch_size=8)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> stage.TrainInputs:
    root = write_set(tmp_path_factory.mktemp("colours") / "photos", {"train": 4, "val": 2})
    return stage.TrainInputs(
        index=build_index(DataConfig(source=str(root)), seed=0),
        spec=PreprocessSpec(size=32),
        pixels_dir=root / "pixels",
        seed=3,
    )


def saved(path: Path, labels: tuple[str, ...], *, backbone: str = NAME, seed: int = 7) -> Path:
    """A checkpoint as a run writes it."""
    model = create(backbone, len(labels), "none", seed=seed)
    extra = checkpoint.provenance(labels, PreprocessSpec(size=32))
    checkpoint.save(model, describe(model, backbone, len(labels)), path, extra)
    return path


@pytest.mark.parametrize("labels", [("a", "b"), ("x", "y", "z")], ids=["another number", "as many"])
def test_a_checkpoint_of_other_classes_gives_all_but_the_classifier(
    labels: tuple[str, ...], tmp_path: Path
) -> None:
    path = saved(tmp_path / "teacher.safetensors", labels)
    given = load_file(path)
    found = create(NAME, 3, path, labels=("blue", "green", "red"), seed=1).state_dict()
    rest = [name for name in found if not name.startswith("classifier.")]
    assert len(rest) > 20
    assert all(torch.equal(found[name], given[name]) for name in rest)
    assert found["classifier.weight"].shape[0] == 3
    assert found["classifier.weight"].abs().max() < 0.1  # a new one begins near zero
    assert not found["classifier.bias"].any()


def test_a_checkpoint_of_the_same_classes_gives_the_classifier_too(tmp_path: Path) -> None:
    path = saved(tmp_path / "teacher.safetensors", ("blue", "red"))
    found = create(NAME, 2, path, labels=("blue", "red")).state_dict()
    assert torch.equal(found["classifier.weight"], load_file(path)["classifier.weight"])
    turned = create(NAME, 2, path, labels=("red", "blue")).state_dict()
    assert not torch.equal(turned["classifier.weight"], load_file(path)["classifier.weight"])


def test_a_checkpoint_of_another_architecture_is_refused_by_its_first_other_tensor(tmp_path: Path) -> None:
    path = saved(tmp_path / "teacher.safetensors", ("a", "b"), backbone="test_resnet")
    with pytest.raises(WeightsError) as caught:
        create(NAME, 3, path, labels=("x", "y", "z"))
    assert str(caught.value) == (
        f"{path} is a checkpoint of test_resnet and does not fit {NAME}; the first tensor that differs is"
        " conv_stem.weight, which the file lacks. Name a checkpoint of the same network, or take its backbone."
    )


def test_a_detectors_checkpoint_gives_all_but_the_classes(tmp_path: Path) -> None:
    model = create_detector("mobilenetv3_small_050", 2, seed=1)
    path = tmp_path / "teacher.safetensors"
    extra = checkpoint.provenance(("cat", "dog"), PreprocessSpec(size=64))
    checkpoint.save(model, describe(model, "mobilenetv3_small_050", 2), path, extra)
    given = load_file(path)
    found = create_detector("mobilenetv3_small_050", 2, path, seed=2, labels=("hen", "pig")).state_dict()
    same = {name for name in given if torch.equal(found[name], given[name])}
    assert {name.partition(".")[0] for name in given.keys() - same} == {"class_out"}
    with pytest.raises(
        WeightsError, match="is a checkpoint of detector on mobilenetv3_small_050 and does not"
    ):
        create("mobilenetv3_small_050", 2, path, labels=("cat", "dog"))


def test_a_chain_is_kept_in_the_record_and_in_the_checkpoint(
    inputs: stage.TrainInputs, tmp_path: Path
) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        folder.mkdir()
    other = dataclasses.replace(inputs, index=dataclasses.replace(inputs.index, labels=("i", "ii", "iii")))
    before = stage.run(CONFIG, other, out=first)
    weights = first / stage.CHECKPOINT
    config = CONFIG.model_copy(update={"weights": str(weights)})
    record = stage.run(config, inputs, out=second)
    own = LineageStep(
        kind="train", name="photos", images=9, classes=("blue", "green", "red"), data=inputs.index.sha256
    )
    assert record.lineage == (
        LineageStep(kind="weights", name="none"),
        dataclasses.replace(before.lineage[-1], file=sha256_file(weights)),
        own,
    )
    assert lineage_before(second / stage.CHECKPOINT)[:-1] == record.lineage[:-1]
    assert lineage_words(record.lineage) == (
        "random weights, then 9 images of 3 classes (photos), then 9 images of 3 classes (photos)"
    )


def test_other_files_are_named_and_a_broken_chain_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    digest = sha256_file(tmp_path / "w.pth")
    assert lineage_before(tmp_path / "w.pth") == (LineageStep(kind="weights", name="w.pth", file=digest),)
    model = create(NAME, 2, "none")
    for content in ("[]", "{", '[{"kind": 3}]'):
        path = tmp_path / "teacher.safetensors"
        checkpoint.save(model, describe(model, NAME, 2), path, {checkpoint.LINEAGE: content})
        with pytest.raises(WeightsError, match=r"teacher\.safetensors does not say what its network learned"):
            lineage_before(path)
