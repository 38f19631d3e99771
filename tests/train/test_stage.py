from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from edgetl.config import Augment, DataConfig, Imbalance, Mix, Strategy, TrainConfig
from edgetl.data.index import Sample, build_index
from edgetl.errors import Interrupted
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.models.norms import batch_norms
from edgetl.progress import SilentProgress
from edgetl.records.codec import from_json, to_json
from edgetl.records.scores import value
from edgetl.records.train import EpochRecord, TrainRecord, phases_kept
from edgetl.tasks.base import Classification
from edgetl.train import stage
from edgetl.train.evaluate import predict_outputs, score
from edgetl.train.features import plain_views
from edgetl.train.freezing import frozen_norms
from edgetl.train.phases import phases
from edgetl.train.seeds import derive
from edgetl.train.sets import open_sets
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.classification import ClassificationTraining

from .tiny import epoch_record

_NORM = ("weight", "bias", "running_mean", "running_var")
COLOURS = {"blue": (40, 40, 200), "grün": (40, 200, 40), "red": (200, 40, 40)}
CONFIG = TrainConfig(
    backbone="mobilenetv3_small_050",
    weights="none",
    head_epochs=1,
    epochs=2,
    batch_size=8,
    augment=Augment.NONE,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> stage.TrainInputs:
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        for label, colour in COLOURS.items():
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 25, (40, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return stage.TrainInputs(
        index=build_index(DataConfig(source=str(root)), seed=0),
        spec=PreprocessSpec(size=32),
        pixels_dir=root / "pixels",
        seed=3,
    )


def folder(tmp_path: Path, name: str = "train") -> Path:
    (tmp_path / name).mkdir(parents=True)
    return tmp_path / name


def test_the_record_tells_the_checkpoint_the_curve_and_the_scores(
    inputs: stage.TrainInputs, tmp_path: Path
) -> None:
    out = folder(tmp_path)
    record = stage.run(CONFIG, inputs, out=out)
    assert record.checkpoint == "train/teacher.safetensors"
    assert [(e.phase, e.epoch) for e in record.epochs] == [("head", 1), ("full", 1), ("full", 2)]
    assert [p.name for p in out.iterdir()] == ["teacher.safetensors"]
    assert (record.val.images, record.test and record.test.images) == (12, 12)
    assert value(record.val, "top1") == max(value(e.val, "top1") for e in record.epochs)
    assert [c["label"] for c in record.val.detail["classes"]] == ["blue", "grün", "red"]
    assert record.size.macs > 1e5
    assert record.size.size_bytes == pytest.approx((out / "teacher.safetensors").stat().st_size, rel=0.02)
    assert from_json(TrainRecord, to_json(record)) == record
    model, architecture = checkpoint.load(tmp_path / record.checkpoint)
    assert (architecture.backbone, architecture.num_classes, dict(architecture.layers)) == (
        "mobilenetv3_small_050",
        3,
        {},
    )
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir)
    assert sets.test is not None
    again = score(training_task(inputs.index.task), model, sets.test)
    assert again.detail == record.test.detail
    assert value(again, "calibration_error") == pytest.approx(
        value(record.test, "calibration_error"), abs=1e-5
    )


class StopsAt(SilentProgress):
    def __init__(self, message: str) -> None:
        self.stop = message

    def message(self, text: str) -> None:
        if text.startswith(self.stop):
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", ["head 1/1", "full 1/2"])
def test_a_stopped_stage_goes_on_and_writes_the_same_bytes(
    inputs: stage.TrainInputs, tmp_path: Path, stop: str
) -> None:
    whole, broken = folder(tmp_path, "a/train"), folder(tmp_path, "b/train")
    expected = stage.run(CONFIG, inputs, out=whole)
    with pytest.raises(Interrupted, match="the same command goes on"):
        stage.run(CONFIG, inputs, out=broken, progress=StopsAt(stop))
    record = stage.run(CONFIG, inputs, out=broken)
    assert (broken / stage.CHECKPOINT).read_bytes() == (whole / stage.CHECKPOINT).read_bytes()
    assert [e.val_loss for e in record.epochs] == [e.val_loss for e in expected.epochs]


def test_the_tasks_penalty_is_part_of_the_loss(
    inputs: stage.TrainInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def penalty(task: ClassificationTraining, model: torch.nn.Module) -> torch.Tensor:
        return torch.tensor(1e6)

    monkeypatch.setattr(ClassificationTraining, "penalty", penalty)
    record = stage.run(
        CONFIG.model_copy(update={"epochs": 1, "head_epochs": 0}), inputs, out=folder(tmp_path)
    )
    assert record.epochs[0].loss > 1e5


def test_the_head_s_epochs_are_those_of_the_strategy_head(
    inputs: stage.TrainInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On features that are computed once: the backbone does not run again before it learns."""
    only = CONFIG.model_copy(update={"strategy": Strategy.HEAD, "epochs": 3})
    first = CONFIG.model_copy(update={"head_epochs": 3, "epochs": 0})
    heads, batches = [], []
    compute = stage.compute
    monkeypatch.setattr(stage, "compute", lambda *a, **k: batches.append(1) or compute(*a, **k))
    for name, config in (("only", only), ("first", first)):
        out = folder(tmp_path, name)
        record = stage.run(config, inputs, out=out)
        heads.append(
            {k: v for k, v in load_file(out / stage.CHECKPOINT).items() if k.startswith("classifier")}
        )
        assert [(e.phase, e.epoch) for e in record.epochs] == [("head", n) for n in (1, 2, 3)]
    assert len(batches) == 4  # of both splits, twice
    assert heads[0]
    assert all(torch.equal(heads[1][name], tensor) for name, tensor in heads[0].items())


def test_without_a_test_split_there_is_no_test_score(inputs: stage.TrainInputs, tmp_path: Path) -> None:
    samples = tuple(s for s in inputs.index.samples if s.split != "test")
    index = dataclasses.replace(inputs.index, samples=samples)
    config = CONFIG.model_copy(update={"epochs": 0})
    record = stage.run(config, dataclasses.replace(inputs, index=index), out=folder(tmp_path))
    assert record.test is None
    assert [e.phase for e in record.epochs] == ["head"]


def test_no_epochs_at_all_score_the_network_as_it_came(inputs: stage.TrainInputs, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 0, "head_epochs": 0})
    record = stage.run(config, inputs, out=folder(tmp_path))
    assert record.epochs == ()
    assert record.val.images == 12


def test_each_phase_is_held_to_the_score_of_the_one_before(
    inputs: stage.TrainInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = iter([epoch_record(1, 0.9, 0.0), epoch_record(1, 0.5, 0.0)])
    starts = []

    def fit(*_: object, start: float | None, **__: object) -> tuple[EpochRecord, ...]:
        starts.append(start)
        return (next(ends),)

    monkeypatch.setattr(stage, "fit", fit)
    stage.run(CONFIG, inputs, out=folder(tmp_path))
    assert starts == [None, 0.9]


def test_a_pretrained_network_begins_in_terms_of_the_images_and_computes_what_it_did(
    inputs: stage.TrainInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = training_task(inputs.index.task)
    learned = task.network(CONFIG.backbone, "none", seed=1, size=32)
    norms = batch_norms(learned)
    for norm in norms.values():
        assert norm.running_mean is not None
        norm.running_mean += 0.3
    path = tmp_path / "other.safetensors"
    checkpoint.save(learned, describe(learned, CONFIG.backbone, task.width, 32), path)
    begun: list[nn.Module] = []

    def fit(model: nn.Module, *_: object, **__: object) -> tuple[EpochRecord, ...]:
        begun.append(copy.deepcopy(model))
        return (epoch_record(1, 0.5, 0.5),)

    monkeypatch.setattr(stage, "fit", fit)
    config = CONFIG.model_copy(update={"weights": str(path), "head_epochs": 0})
    stage.run(config, inputs, out=folder(tmp_path))
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir)
    assert np.allclose(predict_outputs(begun[-1], sets.val), predict_outputs(learned, sets.val), atol=1e-4)
    first = next(iter(norms))
    seen: list[torch.Tensor] = []
    learned.get_submodule(first).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        for batch in plain_views(sets.train, 512):
            learned(batch)
    own = batch_norms(begun[-1])[first].running_mean
    assert own is not None
    assert torch.allclose(own, torch.cat(seen).mean((0, 2, 3)), atol=1e-5)


def test_a_teacher_of_which_only_the_head_was_kept_counts_as_one(
    inputs: stage.TrainInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = iter(
        [
            dataclasses.replace(epoch_record(1, 0.9, 0.9), phase="head"),
            dataclasses.replace(epoch_record(1, 0.5, 0.5), kept_start=True),
        ]
    )
    monkeypatch.setattr(stage, "fit", lambda *_, **__: (next(ends),))
    record = stage.run(CONFIG, inputs, out=folder(tmp_path))
    assert phases_kept(record.epochs) == ("head",)
    assert checkpoint.REBASED in checkpoint.read_metadata(tmp_path / record.checkpoint)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_norms_that_no_phase_moves_end_in_terms_of_the_images_at_hand(
    inputs: stage.TrainInputs, tmp_path: Path, strategy: Strategy
) -> None:
    """What follows measures them anew: that must not make another network of the teacher."""
    config = CONFIG.model_copy(update={"strategy": strategy, "epochs": 3})
    record = stage.run(config, inputs, out=folder(tmp_path))
    model, _ = checkpoint.load(tmp_path / record.checkpoint)
    names = frozen_norms(
        model, [p.trainable for p in phases(config, 0, "top1", training_task(inputs.index.task))]
    )
    if strategy is Strategy.HEAD:
        names = tuple(batch_norms(model))
    assert bool(names) is (strategy in (Strategy.HEAD, Strategy.PARTIAL))
    assert (checkpoint.REBASED in checkpoint.read_metadata(tmp_path / record.checkpoint)) is bool(names)
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir)
    before = predict_outputs(model, sets.val)
    for name, norm in batch_norms(model).items():
        if name in names:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None
    with torch.no_grad():
        for batch in plain_views(sets.train, 512):
            model(batch)
    # a batch is normalised by its own variance, which is a twenty-fourth less than what is kept
    assert np.allclose(predict_outputs(model, sets.val), before, atol=0.1 * np.abs(before).max())


@pytest.mark.parametrize(("rare", "metric"), [(10, "top1"), (4, "top1"), (3, "macro_f1")])
def test_imbalanced_classes_are_judged_by_macro_f1(rare: int, metric: str) -> None:
    samples = [Sample(Path("x"), label, "train", "") for label, n in ((0, 12), (1, rare)) for _ in range(n)]
    task = ClassificationTraining(spec=Classification(labels=("a", "b")))
    assert task.selection(task.targets(samples, PreprocessSpec(size=32))) is metric


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        (Strategy.HEAD, ["head", "head", "head"]),
        (Strategy.PARTIAL, ["head", "partial", "partial", "partial"]),
        (Strategy.GRADUAL, ["head", "gradual-1", "gradual-2", "gradual-3"]),
    ],
)
def test_strategies_train_in_their_phases_and_resume(
    inputs: stage.TrainInputs, tmp_path: Path, strategy: Strategy, names: list[str]
) -> None:
    config = CONFIG.model_copy(
        update={"backbone": "test_efficientnet", "strategy": strategy, "epochs": 3, "layer_decay": 0.8}
    )
    whole, broken = folder(tmp_path, "a/train"), folder(tmp_path, "b/train")
    record = stage.run(config, inputs, out=whole)
    assert [e.phase for e in record.epochs] == names
    assert [p.name for p in whole.iterdir()] == ["teacher.safetensors"]
    stop = {Strategy.HEAD: "head 2/3", Strategy.PARTIAL: "partial 2/3"}.get(strategy, "gradual-2 1/1")
    with pytest.raises(Interrupted):
        stage.run(config, inputs, out=broken, progress=StopsAt(stop))
    stage.run(config, inputs, out=broken)
    assert (broken / stage.CHECKPOINT).read_bytes() == (whole / stage.CHECKPOINT).read_bytes()


def test_only_the_head_moves_where_the_strategy_is_head(inputs: stage.TrainInputs, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"backbone": "test_efficientnet", "strategy": Strategy.HEAD})
    record = stage.run(config, inputs, out=folder(tmp_path))
    model, _ = checkpoint.load(tmp_path / record.checkpoint)
    fresh = backbones.create("test_efficientnet", 3, "none", seed=derive(inputs.seed, "weights"))
    moved = {n for n, v in fresh.state_dict().items() if not torch.equal(v, model.state_dict()[n])}
    norms = {f"{name}.{part}" for name in batch_norms(fresh) for part in _NORM}  # in other terms
    assert moved - norms == {"classifier.weight", "classifier.bias"}
    assert value(record.val, "top1") == max(value(e.val, "top1") for e in record.epochs)


def test_a_network_whose_features_cannot_be_kept_still_trains_its_head(
    inputs: stage.TrainInputs, tmp_path: Path
) -> None:
    warnings: list[str] = []

    class Notices(SilentProgress):
        def warning(self, text: str) -> None:
            warnings.append(text)

    config = CONFIG.model_copy(update={"backbone": "torchvision/squeezenet1_1", "strategy": Strategy.HEAD})
    record = stage.run(config, inputs, out=folder(tmp_path), progress=Notices())
    assert [e.phase for e in record.epochs] == ["head", "head"]
    assert warnings == [
        "The logits of SqueezeNet do not come from one last layer, so its features cannot be cached."
        " The head's epochs run the whole network, of which only the head learns."
    ]


def test_the_head_learns_longer_where_its_features_are_kept(
    inputs: stage.TrainInputs, tmp_path: Path
) -> None:
    usual = CONFIG.model_copy(update={"head_epochs": None, "epochs": 0})
    for backbone, expected in (("test_efficientnet", 20), ("torchvision/squeezenet1_1", 1)):
        out = folder(tmp_path, backbone.replace("/", "-"))
        record = stage.run(usual.model_copy(update={"backbone": backbone}), inputs, out=out)
        assert [e.phase for e in record.epochs] == ["head"] * expected


@pytest.mark.parametrize("imbalance", list(Imbalance))
def test_every_way_with_imbalance_trains(
    inputs: stage.TrainInputs, tmp_path: Path, imbalance: Imbalance
) -> None:
    config = CONFIG.model_copy(
        update={"backbone": "test_efficientnet", "imbalance": imbalance, "mix": Mix.BOTH, "epochs": 1}
    )
    record = stage.run(config, inputs, out=folder(tmp_path))
    assert all(np.isfinite(e.loss) for e in record.epochs)
    (head, *_) = stage.phases(config, 0, "top1", training_task(inputs.index.task))
    assert head.class_balance is (imbalance is Imbalance.SAMPLING)
