"""A detector goes the whole way: boxes, one network, pruned, taught, quantized, one bundle."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import edgetl
from edgetl import pipeline
from edgetl.bundle.archive import open_bundle
from edgetl.config import LOSSES_OF_BOXES, DistillLoss, Recipe, Recovery, Target, parse
from edgetl.errors import ConfigError, DataError
from edgetl.inputs.image import PreprocessSpec, Resize
from edgetl.measure.stopwatch import RuntimeStopwatch
from edgetl.models import checkpoint
from edgetl.pipeline import Stage, flow
from edgetl.prune.graph import layer_costs
from edgetl.prune.latency import LayerTiming, total_work
from edgetl.records.prune import PruneRecord
from edgetl.records.scores import value
from edgetl.records.variants import MeasureRecord, QuantizeRecord
from edgetl.tasks.all import settled
from edgetl.tasks.base import Detection
from edgetl.tasks.detection.scores import Truth
from tests.data.boxes.sets import SHAPES, write_boxes
from tests.images import write_set
from tests.test_pipeline import tiny_recipe

SIZE = 64


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxes(tmp_path_factory.mktemp("boxes"), {"train": 24, "val": 8, "test": 8}, side=SIZE)


def recipe_for(source: Path, **changes: dict[str, object]) -> Recipe:
    sections: dict[str, dict[str, object]] = {
        "preprocess": {"size": SIZE, "resize": "pad"},
        "prune": {"target_macs": 0.7, "importance_images": 16},
        "distill": {"epochs": 1},
    }
    for section, extra in changes.items():
        sections[section] = {**sections.get(section, {}), **extra}
    return tiny_recipe(source, **sections)


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Outcome:
    return pipeline.run(recipe_for(shapes), tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def again(finished: pipeline.Outcome, tmp_path: Path) -> Path:
    """A copy of the finished run, to go on in with other settings."""
    return Path(shutil.copytree(finished.run_dir, tmp_path / "again"))


def test_boxes_become_a_bundle_that_predicts(finished: pipeline.Outcome, shapes: Path) -> None:
    assert finished.bundle is not None
    task = open_bundle(finished.bundle).manifest.task
    assert isinstance(task, Detection)
    assert task.labels == SHAPES
    with edgetl.load(finished.bundle) as session:
        answer = session.predict(shapes / "test" / "images" / "0.png")
        assert session.verify().passed
    assert (answer.width, answer.height) == (SIZE, SIZE)
    lock = (finished.run_dir / "recipe.lock.toml").read_text()
    assert 'kind = "detection"' in lock
    assert 'loss = "bckd"' in lock


def test_the_student_is_smaller_and_scored_as_it_was_taught(finished: pipeline.Outcome) -> None:
    pruned: PruneRecord = finished.records[Stage.PRUNE]
    assert pruned.after.macs <= 0.7 * pruned.before.macs
    assert pruned.metric == "map"
    measured: MeasureRecord = finished.records[Stage.MEASURE]
    found = {variant.name: value(variant.val, "map") for variant in measured.variants}
    assert found["fp32"] == pytest.approx(value(finished.records[Stage.DISTILL].val, "map"), abs=1e-3)
    assert abs(found["int8-cpu-x86"] - found["fp32"]) < 0.1
    quantized: QuantizeRecord = finished.records[Stage.QUANTIZE]
    assert quantized.sensitivity
    assert quantized.variants[0].left_in_float == ()


def test_the_threshold_is_the_best_one_on_validation_pictures() -> None:
    task = Detection(labels=SHAPES)
    box = np.array([[10.0, 10.0, 30.0, 30.0], [40.0, 40.0, 60.0, 60.0]])
    truths = [Truth(boxes=box[:1], labels=np.array([0]))]
    outputs = {
        "boxes": box[None].astype(np.float32),
        "scores": np.array([[[0.8, 0.0], [0.4, 0.0]]], np.float32),
    }
    found = settled(task, truths, outputs)
    assert isinstance(found, Detection)
    assert found.threshold == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize(
    "recovery",
    [
        *(
            pytest.param(r, marks=pytest.mark.slow)
            for r in (Recovery.EQUALISE, Recovery.BIAS, Recovery.ADAROUND)
        ),
        Recovery.QAT,
    ],
)
def test_every_recovery_takes_a_detector(again: Path, shapes: Path, recovery: Recovery) -> None:
    recipe = recipe_for(shapes, quantize={"recovery": str(recovery), "qat_epochs": 1})
    record: QuantizeRecord = pipeline.run(recipe, again, until=Stage.QUANTIZE).records[Stage.QUANTIZE]
    assert [attempt.name for attempt in record.attempts] == [str(recovery)]
    assert record.variants[0].quantized_nodes > 60


@dataclasses.dataclass(frozen=True)
class Clock:
    """Milliseconds as a network's multiply-accumulates have them."""

    def __call__(self, network: nn.Module) -> LayerTiming:
        dense, grouped, *_ = total_work(layer_costs(network, SIZE))
        return LayerTiming(ms=1e-6 * (dense + grouped), teacher_ms=20.0)


@pytest.mark.slow
def test_a_target_of_the_clock(again: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(flow.Run, "_stopwatch", lambda self: clock)
    teacher, _ = checkpoint.load(again / "train" / "teacher.safetensors")
    goal = 0.6 * clock(teacher).ms
    recipe = recipe_for(shapes, prune={"target_macs": None, "target_latency_ms": goal})
    record: PruneRecord = pipeline.run(recipe, again, until=Stage.PRUNE).records[Stage.PRUNE]
    assert record.latency is not None
    assert record.latency.measured_ms <= goal


def test_a_detector_is_timed_as_it_will_run(finished: pipeline.Outcome) -> None:
    path = finished.run_dir / "train" / "teacher.safetensors"
    spec = PreprocessSpec(size=SIZE, resize=Resize.PAD)
    stopwatch = RuntimeStopwatch(
        teacher=path,
        teacher_spec=spec,
        spec=spec,
        task=Detection(labels=SHAPES),
        opset=18,
        target=Target.CPU_X86,
        threads=1,
    )
    timing = stopwatch(checkpoint.load(path)[0])
    assert timing.ms > 0.0


def test_a_student_of_another_size(again: Path, shapes: Path) -> None:
    recipe = recipe_for(shapes, distill={"size": 32}, prune={"enabled": False})
    student = pipeline.run(recipe, again, until=Stage.DISTILL).records[Stage.DISTILL]
    assert (
        student.size.macs
        < 0.3 * pipeline.run(recipe, again, until=Stage.TRAIN).records[Stage.TRAIN].size.macs
    )
    for section, sizes in (
        ({"distill": {"size": 40}}, "distill.size = 32 or 64"),
        (
            {"preprocess": {"size": 100}},
            "preprocess.size = 96 or 128",
        ),
    ):
        with pytest.raises(ConfigError, match=f"multiple of 32.*{sizes}"):
            pipeline.run(recipe_for(shapes, **section), again)


def test_a_student_whose_heads_the_teacher_ends(again: Path, shapes: Path) -> None:
    recipe = recipe_for(
        shapes,
        task={"kind": "detection"},
        distill={"loss": "crosskd"},
    )
    outcome = pipeline.run(recipe, again, until=Stage.DISTILL)
    assert outcome.records[Stage.DISTILL].epochs[-1].loss > 0.0
    # so short a training may give the network back that it began with, of which the export is known
    assert outcome.cached[:3] == (Stage.DATA, Stage.TRAIN, Stage.PRUNE)
    assert Stage.DISTILL not in outcome.cached


def test_unlabelled_pictures_teach(again: Path, shapes: Path, tmp_path: Path) -> None:
    more = write_boxes(tmp_path / "more", {"train": 6}, side=80) / "train" / "images"
    recipe = recipe_for(shapes, distill={"unlabelled": str(more)}, prune={"enabled": False})
    record = pipeline.run(recipe, again, until=Stage.DISTILL).records[Stage.DISTILL]
    assert record.unlabelled > 0


@pytest.mark.slow
def test_folds_of_boxes(again: Path, shapes: Path) -> None:
    record = pipeline.cross_validate(recipe_for(shapes, train={"epochs": 1}), again, 2)
    assert set(record.spreads) == {"map", "map50", "recall"}


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_a_task_that_the_boxes_contradict(shapes: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(
        ConfigError, match=rf'holds pictures with boxes, but task.kind = "{kind}" asks for labels'
    ):
        pipeline.run(recipe_for(shapes, task={"kind": kind}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_boxes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.* does not exist|no .*nowhere"):
        pipeline.run(recipe_for(tmp_path / "nowhere", task={"kind": "detection"}), tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    images = write_set(tmp_path / "set", {"train": 4, "val": 2})
    with pytest.raises(ConfigError, match=r'task.kind = "detection" asks for boxes, of which .* holds none'):
        pipeline.run(recipe_for(images, task={"kind": "detection"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_soft_loss_of_the_other_kind_is_refused() -> None:
    assert parse({"task": {"kind": "detection"}}).distill.loss is DistillLoss.BCKD
    for loss in set(DistillLoss) - LOSSES_OF_BOXES:
        with pytest.raises(
            ConfigError, match=rf"distill.loss = {loss} does not fit task.kind = detection; take bckd or"
        ):
            parse({"task": {"kind": "detection"}, "distill": {"loss": str(loss)}})
    for loss in LOSSES_OF_BOXES:
        assert parse({"task": {"kind": "detection"}, "distill": {"loss": str(loss)}}).distill.loss is loss
    with pytest.raises(
        ConfigError, match=r"bckd does not fit task.kind = classification; take hinton or dkd or dist"
    ):
        parse({"distill": {"loss": "bckd"}})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"labels": {"tree": "tree.toml"}}, "labels.tree relates classes of which an image has one"),
        ({"distill": {"loss": "dkd"}}, "distill.loss = dkd does not fit task.kind = detection"),
    ],
)
def test_what_boxes_do_not_have_is_refused_where_the_data_alone_says_that_there_are_any(
    shapes: Path, section: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        pipeline.resolve(parse({"data": {"source": str(shapes)}, **section}))
