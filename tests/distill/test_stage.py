from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.config import Augment, DataConfig, DistillConfig, DistillFeatures, DistillLoss, Mix
from edgetl.data import unlabelled
from edgetl.data.index import DataIndex, build_index, load
from edgetl.distill import stage
from edgetl.distill.objective import Distillation
from edgetl.distill.teacher import Ensemble, load_other_teacher
from edgetl.errors import ConfigError, Interrupted, ModelError, WeightsError
from edgetl.inputs.image import PreprocessSpec, normalise
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.models.size import network_size
from edgetl.models.two_four import apply_, sparse_layers
from edgetl.progress import SilentProgress
from edgetl.records.codec import from_json, to_json
from edgetl.records.scores import value
from edgetl.records.train import TrainRecord
from edgetl.train.evaluate import score
from edgetl.train.loop import NO_START
from edgetl.train.objective import Batch
from edgetl.train.sets import open_sets
from edgetl.train.tasks.all import training_task
from tests.distill.guides import guide_of
from tests.images import write_set
from tests.train.tiny import TASK, same

BACKBONE = "mobilenetv3_small_050"
CONFIG = DistillConfig(epochs=2, augment=Augment.BASIC)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> stage.DistillInputs:
    root = write_set(tmp_path_factory.mktemp("images"), {"train": 6, "val": 3, "test": 2})
    for seed, name in enumerate(("teacher", "pruned")):
        model = backbones.create(BACKBONE, 3, "none", seed=seed)
        checkpoint.save(model, describe(model, BACKBONE, 3), root / f"{name}.safetensors")
    return stage.DistillInputs(
        guide=guide_of(root / "teacher.safetensors"),
        pruned=root / "pruned.safetensors",
        index=build_index(DataConfig(source=str(root)), seed=0),
        spec=PreprocessSpec(size=32),
        pixels_dir=root / "pixels",
        seed=1,
    )


@pytest.fixture(scope="module")
def finished(
    inputs: stage.DistillInputs, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainRecord]:
    """The folder and record of a stage that ran through."""
    out = folder(tmp_path_factory.mktemp("run"))
    return out, stage.run(CONFIG, inputs, out=out)


def folder(tmp_path: Path, name: str = "distill") -> Path:
    (tmp_path / name).mkdir(parents=True)
    return tmp_path / name


def test_the_pruned_student_is_taught_and_recorded(
    inputs: stage.DistillInputs, finished: tuple[Path, TrainRecord]
) -> None:
    out, record = finished
    assert record.checkpoint == "distill/student.safetensors"
    assert [p.name for p in out.iterdir()] == ["student.safetensors"]
    assert record.backbone == BACKBONE
    assert [(e.phase, e.epoch) for e in record.epochs] == [("distill", 1), ("distill", 2)]
    assert value(record.val, "top1") == max(value(e.val, "top1") for e in record.epochs)
    assert record.test is not None
    assert from_json(TrainRecord, to_json(record)) == record
    model, _ = checkpoint.load(out.parent / record.checkpoint)
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir)
    assert sets.test is not None
    again = score(training_task(inputs.index.task), model, sets.test)
    assert again.detail == record.test.detail
    assert value(again, "calibration_error") == pytest.approx(
        value(record.test, "calibration_error"), abs=1e-5
    )


@pytest.mark.parametrize("loss", [DistillLoss.DKD, DistillLoss.DIST])
def test_the_student_may_be_another_backbone_and_the_loss_another(
    inputs: stage.DistillInputs, tmp_path: Path, loss: DistillLoss
) -> None:
    config = DistillConfig(student="torchvision/mobilenet_v3_small", weights="none", epochs=1, loss=loss)
    alone = dataclasses.replace(inputs, pruned=None)
    record = stage.run(config, alone, out=folder(tmp_path))
    assert record.backbone == "torchvision/mobilenet_v3_small"
    assert checkpoint.load(tmp_path / record.checkpoint)[1].backbone == "torchvision/mobilenet_v3_small"


def test_two_four_sparsity_of_the_pruned_network_is_kept_with_a_moving_average_and_after_a_stop(
    inputs: stage.DistillInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "fit", functools.partial(stage.fit, start=NO_START))
    model, _ = checkpoint.load(inputs.guide.teacher)
    layers = apply_(model, ("classifier",)).layers
    pruned = tmp_path / "sparse.safetensors"
    checkpoint.save(model, describe(model, BACKBONE, 3), pruned)
    sparse, out = dataclasses.replace(inputs, pruned=pruned), folder(tmp_path)
    config = CONFIG.model_copy(update={"ema": 0.5})
    with pytest.raises(Interrupted):
        stage.run(config, sparse, out=out, progress=StopsAt())
    record = stage.run(config, sparse, out=out)
    student, _ = checkpoint.load(tmp_path / record.checkpoint)
    assert sparse_layers(student) == layers
    assert len(layers) > 20
    assert not all(
        torch.equal(student.get_parameter(f"{n}.weight"), model.get_parameter(f"{n}.weight")) for n in layers
    )


class Said(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


class StopsAt(SilentProgress):
    def message(self, text: str) -> None:
        if text.startswith("distill 1/2"):
            raise KeyboardInterrupt


def test_a_stopped_stage_goes_on_and_writes_the_same_bytes(
    inputs: stage.DistillInputs, finished: tuple[Path, TrainRecord], tmp_path: Path
) -> None:
    (whole, expected), broken = finished, folder(tmp_path)
    with pytest.raises(Interrupted, match="Epoch 1 is saved; the same command goes on"):
        stage.run(CONFIG, inputs, out=broken, progress=StopsAt())
    record = stage.run(CONFIG, inputs, out=broken)
    assert (broken / stage.CHECKPOINT).read_bytes() == (whole / stage.CHECKPOINT).read_bytes()
    assert (record.val, record.test) == (expected.val, expected.test)


def test_a_stopped_stage_with_projectors_goes_on_and_writes_the_same_bytes(
    inputs: stage.DistillInputs, finished: tuple[Path, TrainRecord], tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"features": DistillFeatures.FITNETS})
    whole, broken = folder(tmp_path, "a/distill"), folder(tmp_path, "b/distill")
    stage.run(config, inputs, out=whole)
    with pytest.raises(Interrupted):
        stage.run(config, inputs, out=broken, progress=StopsAt())
    stage.run(config, inputs, out=broken)
    assert (broken / stage.CHECKPOINT).read_bytes() == (whole / stage.CHECKPOINT).read_bytes()
    kept, _ = checkpoint.load(whole / stage.CHECKPOINT)
    other, _ = checkpoint.load(finished[0] / stage.CHECKPOINT)
    assert kept.state_dict().keys() == other.state_dict().keys()
    assert not same(kept, other)


@pytest.fixture(scope="module")
def further(inputs: stage.DistillInputs, tmp_path_factory: pytest.TempPathFactory) -> DataIndex:
    """Fifteen images without labels, of which six teach nothing: they are those of the test split."""
    root = write_set(tmp_path_factory.mktemp("further"), {"some": 3}, seed=9)
    for sample in inputs.index.split("test"):
        shutil.copy(sample.path, root / f"{sample.sha256}.png")
    given = unlabelled.UnlabelledInputs(index=inputs.index, bad_images="refuse")
    unlabelled.run(str(root), given, out=root)
    return load(root / "index.json")


FURTHER = CONFIG.model_copy(update={"unlabelled": "photos"})


def test_unlabelled_images_teach_and_a_stopped_stage_goes_on_with_the_same_bytes(
    inputs: stage.DistillInputs,
    finished: tuple[Path, TrainRecord],
    further: DataIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, int]] = []
    plain = Distillation.loss

    def spy(objective: Distillation, model: nn.Module, batch: Batch) -> torch.Tensor:
        assert batch.labelled is not None
        seen.append((len(batch), int((~batch.labelled).sum())))
        return plain(objective, model, batch)

    monkeypatch.setattr(Distillation, "loss", spy)
    taught = dataclasses.replace(inputs, unlabelled=further)
    whole, broken = folder(tmp_path, "a/distill"), folder(tmp_path, "b/distill")
    said = Said()
    record = stage.run(FURTHER, taught, out=whole, progress=said)
    assert (
        "distill: 9 unlabelled images, of which 9 teach; 18 are drawn per epoch, in addition to 18 labelled ones"
        in (said.messages)
    )
    assert record.unlabelled == 9
    # 18 labelled images, four a step, of which the last two come with as many others
    assert seen == [*[(8, 4)] * 4, (4, 2)] * 2
    with pytest.raises(Interrupted, match="Epoch 1 is saved"):
        stage.run(FURTHER, taught, out=broken, progress=StopsAt())
    again = stage.run(FURTHER, taught, out=broken)
    assert (broken / stage.CHECKPOINT).read_bytes() == (whole / stage.CHECKPOINT).read_bytes()
    assert (again.val, again.test, again.unlabelled) == (record.val, record.test, 9)
    assert (finished[0] / stage.CHECKPOINT).read_bytes() != (whole / stage.CHECKPOINT).read_bytes()
    assert finished[1].unlabelled == 0


def test_unlabelled_images_teach_features_too_and_only_those_drawn_are_counted(
    inputs: stage.DistillInputs, further: DataIndex, tmp_path: Path
) -> None:
    taught = dataclasses.replace(
        inputs, unlabelled=further, guide=dataclasses.replace(inputs.guide, teacher_size=48, batch_size=16)
    )
    changes = {
        "epochs": 1,
        "soft_weight": 0.0,
        "features": DistillFeatures.RELATIONAL,
        "unlabelled_share": 0.2,
    }
    record = stage.run(FURTHER.model_copy(update=changes), taught, out=folder(tmp_path))
    assert record.unlabelled == 4  # beside 13 and 5 labelled images


def test_unlabelled_images_that_cannot_teach_are_refused(
    inputs: stage.DistillInputs, further: DataIndex, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"distill\.unlabelled is photos, but its images were not indexed; pass the index"
    ):
        stage.run(FURTHER, inputs, out=folder(tmp_path, "a"))
    lonely = dataclasses.replace(
        inputs, unlabelled=further, guide=dataclasses.replace(inputs.guide, batch_size=1)
    )
    with pytest.raises(
        ConfigError,
        match=r"a labelled and an unlabelled image in each step; train\.batch_size is 1, set it to",
    ):
        stage.run(FURTHER, lonely, out=folder(tmp_path, "b"))


def test_a_teacher_or_pruned_network_of_other_classes_is_refused(
    inputs: stage.DistillInputs, tmp_path: Path
) -> None:
    model = backbones.create(BACKBONE, 2, "none")
    other = tmp_path / "other.safetensors"
    checkpoint.save(model, describe(model, BACKBONE, 2), other)
    with pytest.raises(
        WeightsError,
        match=r"The teacher .*other\.safetensors has 2 classes, but the data has 3 \(blue, green, red\)",
    ):
        stage.run(CONFIG, dataclasses.replace(inputs, guide=guide_of(other)), out=folder(tmp_path, "a"))
    with pytest.raises(WeightsError, match=r"The pruned network .* has 2 classes"):
        stage.run(CONFIG, dataclasses.replace(inputs, pruned=other), out=folder(tmp_path, "b"))


def test_further_teachers_of_other_backbone_and_size_take_part(
    inputs: stage.DistillInputs, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    model = backbones.create("torchvision/mobilenet_v3_small", 3, "none", seed=5)
    spec = PreprocessSpec(size=40, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    architecture, labels = describe(model, "torchvision/mobilenet_v3_small", 3), inputs.index.labels
    checkpoint.save(model, architecture, other, checkpoint.provenance(labels, spec))
    own = dataclasses.replace(inputs, spec=PreprocessSpec(size=24))
    settings = {"teachers": (str(other),), "features": DistillFeatures.ATTENTION}
    config = CONFIG.model_copy(update={"epochs": 1, **settings})
    assert len(stage.run(config, own, out=folder(tmp_path, "a")).epochs) == 1
    turned = tmp_path / "turned.safetensors"
    checkpoint.save(model, architecture, turned, checkpoint.provenance(("green", "blue", "red"), spec))
    config = CONFIG.model_copy(update={"teachers": (str(turned),)})
    with pytest.raises(
        WeightsError, match=r"other classes .* its output 0 is 'green', the data's is 'blue'\."
    ):
        stage.run(config, own, out=folder(tmp_path, "b"))
    config = CONFIG.model_copy(update={"teachers": (str(inputs.guide.teacher),)})
    with pytest.raises(WeightsError, match=r"teacher\.safetensors does not say its classes and its prepro"):
        stage.run(config, own, out=folder(tmp_path, "c"))


def test_an_ensemble_averages_softened_probabilities(inputs: stage.DistillInputs, tmp_path: Path) -> None:
    members = [nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 3)) for _ in range(3)]
    images = torch.randn(5, 3, 4, 4)
    expected = torch.stack([torch.softmax(m(images) / 3.0, 1) for m in members]).mean(0)
    torch.testing.assert_close(torch.softmax(Ensemble(members, 3.0, TASK)(images) / 3.0, 1), expected)
    # a further teacher sees what it was trained on, whatever the run's means and deviations
    model = backbones.create(BACKBONE, 3, "none", seed=5).eval()
    spec, path = (
        PreprocessSpec(size=32, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2)),
        tmp_path / "g.safetensors",
    )
    labels = inputs.index.labels
    checkpoint.save(model, describe(model, BACKBONE, 3), path, checkpoint.provenance(labels, spec))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    other_teacher = load_other_teacher(labels, path, inputs.spec)
    given, own = (torch.from_numpy(normalise(pixels, s)) for s in (inputs.spec, spec))
    torch.testing.assert_close(other_teacher.network(given), model(own), atol=1e-4, rtol=1e-4)
    with pytest.raises(
        WeightsError, match=r"through the window None, these images are seen through \(0\.0, 9\.0\)"
    ):
        load_other_teacher(labels, path, dataclasses.replace(inputs.spec, window=(0.0, 9.0)))


def test_a_missing_pruned_network_is_named(inputs: stage.DistillInputs, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"Run the prune stage first, or name a backbone in distill\.student"
    ):
        stage.run(CONFIG, dataclasses.replace(inputs, pruned=None), out=folder(tmp_path, "a"))
    gone = dataclasses.replace(inputs, pruned=tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match=r"No checkpoint at .*gone\.safetensors"):
        stage.run(CONFIG, gone, out=folder(tmp_path, "b"))


def test_an_unknown_student_is_refused(inputs: stage.DistillInputs, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"student": "mobilenet_v9"})
    with pytest.raises(ModelError, match="mobilenet_v9"):
        stage.run(config, inputs, out=folder(tmp_path))


@pytest.mark.parametrize("size", [24, 48])
def test_the_student_may_have_another_input_size(
    inputs: stage.DistillInputs, tmp_path: Path, size: int
) -> None:
    own = dataclasses.replace(inputs, spec=dataclasses.replace(inputs.spec, size=size))
    record = stage.run(CONFIG.model_copy(update={"epochs": 1}), own, out=folder(tmp_path))
    model, _ = checkpoint.load(tmp_path / record.checkpoint)
    assert record.size == network_size(model, size)
    sets = open_sets(inputs.index, own.spec, inputs.pixels_dir)
    assert sets.val.pixels.shape[1] == size
    assert score(training_task(inputs.index.task), model, sets.val).detail == record.val.detail


def test_a_student_that_does_not_take_the_size_is_refused(
    inputs: stage.DistillInputs, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"student": "inception_v3", "weights": "none"})
    own = dataclasses.replace(inputs, guide=dataclasses.replace(inputs.guide, teacher_size=48))
    with pytest.raises(ModelError, match=r"inception_v3 does not take images of 32 pixels per side"):
        stage.run(config, own, out=folder(tmp_path))


def test_mixing_teaches_on_blends_and_is_refused_with_dkd(
    inputs: stage.DistillInputs, finished: tuple[Path, TrainRecord], tmp_path: Path
) -> None:
    _, plain = finished
    mixed = stage.run(CONFIG.model_copy(update={"mix": Mix.BOTH}), inputs, out=folder(tmp_path, "mixed"))
    assert [e.loss for e in mixed.epochs] != [e.loss for e in plain.epochs]
    clash = CONFIG.model_copy(update={"mix": Mix.MIXUP, "loss": DistillLoss.DKD})
    with pytest.raises(
        ConfigError, match=r"distill\.mix blends labels, which distill\.loss = dkd cannot take"
    ):
        stage.run(clash, inputs, out=folder(tmp_path, "clash"))
