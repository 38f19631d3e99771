from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from edgetl.config import DataConfig, Importance, MacsTarget, PruneConfig
from edgetl.data.index import build_index
from edgetl.errors import ConfigError, Interrupted, ModelError, UncuttableError, WeightsError
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.models.size import network_size
from edgetl.models.two_four import sparse_layers
from edgetl.progress import SilentProgress
from edgetl.prune import stage
from edgetl.prune.graph import layer_costs, trace
from edgetl.prune.latency import LayerTiming
from edgetl.records.codec import from_json, to_json
from edgetl.records.prune import PruneRecord
from edgetl.records.scores import Evaluation, Score, value
from edgetl.tasks.base import Classification
from edgetl.train.evaluate import score
from edgetl.train.sets import PixelSet, open_sets
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.base import TrainingTask
from tests.distill.guides import guide_of
from tests.images import write_set
from tests.train.tiny import same

BACKBONE = "mobilenetv3_small_050"
CONFIG = PruneConfig(
    target_macs=0.6, target_parameters=0.7, steps=2, recovery_epochs=1, importance_images=8, max_drop=0.99
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> stage.PruneInputs:
    root = write_set(tmp_path_factory.mktemp("images"), {"train": 6, "val": 3, "test": 2})
    model = backbones.create(BACKBONE, 3, "none")
    checkpoint.save(model, describe(model, BACKBONE, 3), root / "teacher.safetensors")
    return stage.PruneInputs(
        guide=guide_of(root / "teacher.safetensors", soft_weight=0.8),
        index=build_index(DataConfig(source=str(root)), seed=0),
        spec=PreprocessSpec(size=32),
        pixels_dir=root / "pixels",
        seed=1,
    )


@pytest.fixture(scope="module")
def finished(inputs: stage.PruneInputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PruneRecord]:
    """The folder and record of a stage that ran through."""
    out = folder(tmp_path_factory.mktemp("run"))
    return out, stage.run(CONFIG, inputs, out=out)


def folder(tmp_path: Path, name: str = "prune") -> Path:
    (tmp_path / name).mkdir(parents=True)
    return tmp_path / name


def test_two_four_sparsity_is_recovered_and_kept(inputs: stage.PruneInputs, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 1, "target_parameters": None, "sparsity_2_4": True})
    record = stage.run(config, inputs, out=folder(tmp_path))
    model, _ = checkpoint.load(tmp_path / record.checkpoint)
    assert record.two_four is not None
    assert sparse_layers(model) == record.two_four.layers
    assert record.two_four.left_out["conv_stem"] == "3 input channels, no multiple of 4"
    assert record.two_four.left_out["classifier"] == "output layer"
    assert 0.2 < record.two_four.zeros < 0.5
    assert [e.phase for e in record.epochs] == ["recover-1", "recover-2-4"]
    assert record.two_four.score == value(record.epochs[-1].val, "top1")
    assert from_json(PruneRecord, to_json(record)) == record
    assert [p.name for p in (tmp_path / "prune").iterdir()] == ["pruned.safetensors"]


def test_the_record_tells_every_step_and_the_checkpoint(
    inputs: stage.PruneInputs, finished: tuple[Path, PruneRecord]
) -> None:
    out, record = finished
    assert record.checkpoint == "prune/pruned.safetensors"
    assert [p.name for p in out.iterdir()] == ["pruned.safetensors"]
    assert [(s.step, e.phase) for s, e in zip(record.steps, record.epochs, strict=True)] == [
        (1, "recover-1"),
        (2, "recover-2"),
    ]
    first, last = record.steps
    assert last.macs == record.after.macs <= 0.6 * record.before.macs
    assert record.after.parameters <= 0.7 * record.before.parameters
    assert last.macs < first.macs <= math.sqrt(0.6) * record.before.macs
    assert all(0.0 <= s.cut <= 1.0 for s in record.steps)
    assert [s.score for s in record.steps] == [value(e.val, "top1") for e in record.epochs]
    assert record.one_shot is not None
    assert last.macs * 0.9 < record.one_shot.macs <= 0.6 * record.before.macs
    assert record.one_shot.score == record.one_shot.cut
    assert (record.sparse, record.sensitivity) == (None, None)
    assert from_json(PruneRecord, to_json(record)) == record
    model, architecture = checkpoint.load(out.parent / record.checkpoint)
    assert (architecture.backbone, architecture.num_classes) == (BACKBONE, 3)
    assert network_size(model, 32) == record.after
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir)
    assert value(score(training_task(inputs.index.task), model, sets.val), "top1") == last.score


def test_a_smaller_backbone_learns_from_the_teacher_and_is_cut(
    inputs: stage.PruneInputs, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(
        update={"network": "efficientnet_lite0", "start_epochs": 1, "steps": 1, "recovery_epochs": 0}
    )
    record = stage.run(config, inputs, out=folder(tmp_path))
    model, architecture = checkpoint.load(tmp_path / record.checkpoint)
    assert record.network == architecture.backbone == "efficientnet_lite0"
    assert record.before == network_size(backbones.create("efficientnet_lite0", 3, "none"), 32)
    assert network_size(model, 32).macs == record.after.macs <= 0.6 * record.before.macs
    assert [(s.step, s.macs < record.before.macs) for s in record.steps] == [(0, False), (1, True)]
    assert [e.phase for e in record.epochs] == ["start"]
    assert not torch.equal(  # the uncut network learned before it was cut
        model.get_submodule("conv_stem").weight[:1],
        backbones.create("efficientnet_lite0", 3).get_submodule("conv_stem").weight[:1],
    )


def test_a_budget_that_holds_already_changes_nothing(inputs: stage.PruneInputs, tmp_path: Path) -> None:
    """The first cut goes further than the second must: 16 channels at a time are coarse."""
    config = CONFIG.model_copy(
        update={
            "target": MacsTarget(share=0.999),
            "target_parameters": None,
            "round_to": 16,
            "recovery_epochs": 0,
        }
    )
    one = stage.run(config.model_copy(update={"steps": 1}), inputs, out=folder(tmp_path, "one/prune"))
    record = stage.run(config, inputs, out=folder(tmp_path, "two/prune"))
    first, second = record.steps
    assert (second.macs, second.cut, second.score) == (first.macs, first.cut, first.score)
    assert first.macs < 0.999 * record.before.macs
    assert one.after == record.after
    models = [
        checkpoint.load(tmp_path / name / r.checkpoint)[0] for name, r in (("one", one), ("two", record))
    ]
    assert same(*models)


class StopsAt(SilentProgress):
    def __init__(self, message: str) -> None:
        self.stop = message

    def message(self, text: str) -> None:
        if text.startswith(self.stop):
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", ["recover-1 1/1", "prune 1/2", "recover-2 1/1"])
def test_a_killed_stage_goes_on_at_its_step_and_writes_the_same_bytes(
    inputs: stage.PruneInputs, finished: tuple[Path, PruneRecord], tmp_path: Path, stop: str
) -> None:
    (whole, expected), broken = finished, folder(tmp_path)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        stage.run(CONFIG, inputs, out=broken, progress=StopsAt(stop))
    kept = {p.name for p in broken.iterdir()}
    assert "step-1-cut.safetensors" in kept
    assert ("step-1.safetensors" in kept) == (stop != "recover-1 1/1")
    record = stage.run(CONFIG, inputs, out=broken)
    assert (broken / stage.CHECKPOINT).read_bytes() == (whole / stage.CHECKPOINT).read_bytes()
    assert (record.steps, record.one_shot) == (expected.steps, expected.one_shot)
    assert [e.val_loss for e in record.epochs] == [e.val_loss for e in expected.epochs]


def test_steps_kept_for_other_settings_are_not_used(inputs: stage.PruneInputs, tmp_path: Path) -> None:
    out, config = folder(tmp_path), CONFIG.model_copy(update={"steps": 1})
    with pytest.raises(KeyboardInterrupt):
        stage.run(config, inputs, out=out, progress=StopsAt("prune 1/1"))
    config = config.model_copy(update={"importance": Importance.RANDOM, "recovery_epochs": 0})
    record = stage.run(config, inputs, out=out)
    assert record.epochs == ()
    assert [s.score for s in record.steps] == [s.cut for s in record.steps]
    fresh = stage.run(config, inputs, out=folder(tmp_path, "fresh"))
    assert fresh.steps == record.steps


def test_a_teacher_of_other_classes_is_refused(inputs: stage.PruneInputs, tmp_path: Path) -> None:
    index = dataclasses.replace(inputs.index, labels=("a", "b", "c", "d"))
    with pytest.raises(
        WeightsError,
        match=r"The teacher .* has 3 classes, but the data has 4 \(a, b, c, d\)\. Train it again",
    ):
        stage.run(CONFIG, dataclasses.replace(inputs, index=index), out=folder(tmp_path))


def test_an_impossible_target_is_refused_before_anything_is_done(
    inputs: stage.PruneInputs, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"target": MacsTarget(share=0.001)})
    nowhere = dataclasses.replace(inputs, pixels_dir=tmp_path / "pixels")
    with pytest.raises(
        ModelError, match=r"cannot be cut to 0\.1% of its .*the best reachable is \d+\.\d% and"
    ):
        stage.run(config, nowhere, out=folder(tmp_path))
    assert not (tmp_path / "pixels").exists()


def test_pruning_stops_before_a_cut_that_costs_too_much(
    inputs: stage.PruneInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, _ = checkpoint.load(inputs.guide.teacher)
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir)
    found = score(training_task(inputs.index.task), teacher, sets.val)
    tops = itertools.chain([1.0], itertools.repeat(0.0))  # the teacher, then what is cut
    monkeypatch.setattr(
        stage, "score", lambda *_: dataclasses.replace(found, scores={"top1": Score(value=next(tops))})
    )
    progress = _Warnings()
    strict = CONFIG.model_copy(update={"max_drop": 0.1})
    record = stage.run(strict, inputs, out=folder(tmp_path), progress=progress)
    assert [s.kept for s in record.steps] == [False]
    assert record.after == record.before
    stops = "Pruning stops at 100.0% of the multiply-accumulates: the next cut recovers"
    (stated,) = [text for text in progress.stated if text.startswith(stops)]
    assert stated.endswith("below 90.0% (prune.max_drop).")
    assert network_size(checkpoint.load(tmp_path / record.checkpoint)[0], 32) == record.before


class _Warnings(SilentProgress):
    def __init__(self) -> None:
        self.stated: list[str] = []

    def warning(self, text: str) -> None:
        self.stated.append(text)


def test_a_smaller_input_is_learned_first_and_everything_is_counted_at_it(
    inputs: stage.PruneInputs, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"steps": 1, "start_epochs": 1})
    own = dataclasses.replace(inputs, spec=PreprocessSpec(size=24))
    record = stage.run(config, own, out=folder(tmp_path))
    teacher, model = (
        checkpoint.load(inputs.guide.teacher)[0],
        checkpoint.load(tmp_path / record.checkpoint)[0],
    )
    assert (record.before, record.after) == (network_size(teacher, 24), network_size(model, 24))
    assert [(s.step, s.macs) for s in record.steps] == [(0, record.before.macs), (1, record.after.macs)]
    assert record.after.macs <= 0.6 * record.before.macs
    assert [e.phase for e in record.epochs] == ["start", "recover-1"]
    assert [p.name for p in (tmp_path / "prune").iterdir()] == ["pruned.safetensors"]
    sets = open_sets(inputs.index, own.spec, inputs.pixels_dir)
    assert value(score(training_task(inputs.index.task), model, sets.val), "top1") == record.steps[-1].score


def test_the_floor_is_the_teachers_score_at_its_own_size(
    inputs: stage.PruneInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[tuple[int, bool]] = []

    def spy(task: TrainingTask, model: nn.Module, data: PixelSet) -> Evaluation:
        scored.append((data.spec.size, model is run.teacher))
        return score(task, model, data)

    monkeypatch.setattr(stage, "score", spy)
    own = dataclasses.replace(inputs, spec=PreprocessSpec(size=24))
    config = CONFIG.model_copy(update={"steps": 1, "start_epochs": 0, "recovery_epochs": 0})
    run = stage._Run(config, own, folder(tmp_path), SilentProgress())
    run.to_the_end()
    assert scored == [(32, True), (24, False), (24, False)]


def test_sparse_training_and_sensitivity_are_recorded_and_resumed(
    inputs: stage.PruneInputs, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(
        update={
            "target": MacsTarget(share=0.9),
            "target_parameters": None,
            "steps": 1,
            "recovery_epochs": 0,
            "importance": Importance.BN_SCALE,
            "sparse_epochs": 1,
            "sensitivity": True,
            "keep": ("blocks.2", "blocks.3", "blocks.4", "blocks.5"),
        }
    )
    out = folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stage.run(config, inputs, out=out, progress=StopsAt("prune sensitivity"))
    assert (out / "step-sparse.safetensors").exists()
    progress = _Messages()
    record = stage.run(config, inputs, out=out, progress=progress)
    assert [p.name for p in out.iterdir()] == ["pruned.safetensors"]
    assert [e.phase for e in record.epochs] == ["sparse"]
    assert not any(text.startswith("sparse 1/1") for text in progress.stated)
    assert any("groups have no batch norm and are ranked by magnitude" in text for text in progress.stated)
    assert record.one_shot is None
    assert record.sparse is not None
    assert record.sparse.score == value(record.epochs[0].val, "top1")
    assert 0.0 <= record.sparse.near_zero <= 1.0
    assert record.sensitivity is not None
    assert record.sensitivity.shares == (0.25, 0.5, 0.75)
    cuts = [cut for group in record.sensitivity.groups for cut in group.cuts]
    assert None in cuts
    assert all(0.0 <= cut.score <= 1.0 and 0.0 < cut.saved < 1.0 for cut in cuts if cut)
    assert from_json(PruneRecord, to_json(record)) == record


class _Messages(SilentProgress):
    def __init__(self) -> None:
        self.stated: list[str] = []

    def message(self, text: str) -> None:
        self.stated.append(text)


def test_a_sparse_network_whose_first_cut_fails_gives_way_to_the_teacher(
    inputs: stage.PruneInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, _ = checkpoint.load(inputs.guide.teacher)
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir)
    worse = [
        dataclasses.replace(
            score(training_task(inputs.index.task), teacher, sets.val), scores={"top1": Score(value=t)}
        )
        for t in (1.0, 0.0)
    ]
    monkeypatch.setattr(stage, "score", lambda *_: worse.pop(0))
    config = CONFIG.model_copy(update={"steps": 1, "recovery_epochs": 0, "max_drop": 0.1, "sparse_epochs": 1})
    record = stage.run(config, inputs, out=folder(tmp_path))
    assert [s.kept for s in record.steps] == [False]
    kept, _ = checkpoint.load(tmp_path / record.checkpoint)
    assert all(torch.equal(v, teacher.state_dict()[k]) for k, v in kept.state_dict().items())


def test_a_keep_that_leaves_nothing_is_refused(inputs: stage.PruneInputs, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"keep": ("conv_stem", "blocks", "conv_head")})
    with pytest.raises(
        ModelError,
        match=r"^prune\.keep leaves nothing to cut: every group of channels of MobileNetV3 has a layer under"
        r" conv_stem, blocks, conv_head\. Name fewer layers, or set prune\.enabled = false\.$",
    ):
        stage.run(config, inputs, out=folder(tmp_path))


def test_a_network_with_nothing_to_cut_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"^Sequential cannot be traced for pruning at every layer: .* Take another"
    ):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), 2)


def test_an_unknown_layer_in_keep_is_refused(inputs: stage.PruneInputs, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"keep": ("conv_stern",)})
    with pytest.raises(ModelError, match=r"no layer 'conv_stern'\. The nearest is 'conv_stem'"):
        stage.run(config, inputs, out=folder(tmp_path))


TIMED = PruneConfig(
    target_speedup=1.25, steps=2, recovery_epochs=0, importance_images=8, max_drop=0.99, round_to=8
)


class FakeClock:
    """A network's milliseconds are its millions of multiply-accumulates and a constant; `teacher` are the teacher's."""

    def __init__(self, teacher: float) -> None:
        self.teacher, self.timed = teacher, 0

    def __call__(self, network: nn.Module) -> LayerTiming:
        self.timed += 1
        macs = sum(layer.macs(layer.inputs, layer.outputs) for layer in layer_costs(network, 32).values())
        return LayerTiming(ms=macs / 1e6 + 0.1, teacher_ms=self.teacher)


def clocked(inputs: stage.PruneInputs) -> tuple[stage.PruneInputs, FakeClock]:
    clock = FakeClock(1.0)
    clock.teacher = clock(checkpoint.load(inputs.guide.teacher)[0]).ms
    clock.timed = 0
    return dataclasses.replace(inputs, stopwatch=clock), clock


def test_a_speedup_is_reached_by_the_clock_and_explained(inputs: stage.PruneInputs, tmp_path: Path) -> None:
    (clocked_inputs, clock), out = clocked(inputs), folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stage.run(TIMED, clocked_inputs, out=out, progress=StopsAt("prune 1/2"))
    assert clock.timed >= 15
    assert {"latency.json", "step-1.safetensors"} <= {p.name for p in out.iterdir()}
    clock.timed = 0
    record = stage.run(TIMED, clocked_inputs, out=out)
    assert clock.timed <= 3
    assert [p.name for p in out.iterdir()] == ["pruned.safetensors"]
    stated = record.latency
    assert stated is not None
    assert record.one_shot is not None
    assert record.one_shot.measured_ms is not None
    assert record.one_shot.measured_ms <= stated.target_ms
    assert stated.target_ms == pytest.approx(clock.teacher / 1.25)
    assert (
        stated.measured_ms
        == record.steps[-1].measured_ms
        == clock(checkpoint.load(out / stage.CHECKPOINT)[0]).ms
    )
    assert stated.measured_ms <= stated.target_ms < record.steps[0].measured_ms
    assert stated.predicted_ms == pytest.approx(stated.measured_ms, rel=0.1)
    assert any(group.channels_after < group.channels_before for group in stated.groups)
    assert from_json(PruneRecord, to_json(record)) == record


def test_a_target_of_the_clock_without_a_stopwatch_is_refused(
    inputs: stage.PruneInputs, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"needs a stopwatch: set PruneInputs\.stopwatch"):
        stage.run(TIMED, inputs, out=folder(tmp_path))


def test_a_teacher_that_pruning_does_not_understand_passes_on_whole(
    inputs: stage.PruneInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UncuttableError("Net cannot be traced for pruning at 1: not today.")

    monkeypatch.setattr(stage, "trace", refuse)
    progress = _Warnings()
    record = stage.run(CONFIG, inputs, out=folder(tmp_path), progress=progress)
    assert progress.stated == [record.note]
    assert record.note == "Nothing was pruned: Net cannot be traced for pruning at 1: not today."
    assert (record.after, record.steps) == (record.before, ())
    assert same(checkpoint.load(tmp_path / record.checkpoint)[0], checkpoint.load(inputs.guide.teacher)[0])


def test_large_images_are_ranked_by_in_smaller_batches() -> None:
    assert [stage.batch_at(side) for side in (64, 224, 320, 640, 5000)] == [32, 32, 15, 3, 1]


def test_blocks_go_by_the_clock_and_the_record_names_them(
    inputs: stage.PruneInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock of calls alone: what narrower layers save is nothing."""
    (clocked_inputs, _), out = clocked(inputs), folder(tmp_path)

    def calls(network: nn.Module) -> LayerTiming:
        return LayerTiming(ms=0.1 + 0.01 * len(layer_costs(network, 32)), teacher_ms=0.7)

    config = TIMED.model_copy(update={"depth": 0.5, "steps": 1})
    record = stage.run(config, dataclasses.replace(clocked_inputs, stopwatch=calls), out=out)
    assert 1 <= len(record.blocks) <= 3
    assert record.steps[0].blocks == record.blocks
    model, architecture = checkpoint.load(out / stage.CHECKPOINT)
    assert set(architecture.removed) == set(record.blocks)
    assert record.latency is not None
    assert record.latency.measured_ms == pytest.approx(calls(model).ms)
    assert from_json(PruneRecord, to_json(record)) == record


def test_without_a_clock_the_blocks_go_in_even_parts_over_the_steps(
    inputs: stage.PruneInputs, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"depth": 0.7, "target_parameters": None, "recovery_epochs": 0})
    record = stage.run(config, inputs, out=folder(tmp_path))
    assert [len(step.blocks) for step in record.steps] == [2, 2]
    assert len(record.blocks) == 4
    assert record.one_shot is not None
    assert len(record.one_shot.blocks) == 4
    model, _ = checkpoint.load(tmp_path / record.checkpoint)
    assert network_size(model, 32).macs <= 0.6 * record.before.macs


def test_a_network_without_such_blocks_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"prune.depth = 0.5, but SqueezeNet has no block that can go"):
        stage.check(
            CONFIG.model_copy(update={"depth": 0.5}),
            task=training_task(Classification(labels=("a", "b", "c"))),
            backbone="torchvision/squeezenet1_1",
            size=64,
            teacher_size=64,
            alignment=8,
            seed=0,
        )
