"""The stage on tiny images: each method learns, goes on where it stopped, and is judged by a probe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgetl.config import Augment, DataConfig, PretrainConfig, PretrainMethod, TrainConfig
from edgetl.data import index as indexes
from edgetl.data import other_classes, unlabelled
from edgetl.data.index import build_index
from edgetl.errors import DataError, Interrupted, ModelError, TrainingError
from edgetl.inputs.image import PreprocessSpec, load_pixels, normalise
from edgetl.models.backbones import classifier_names, create
from edgetl.progress import SilentProgress
from edgetl.records.codec import from_json, to_json
from edgetl.records.scores import value
from edgetl.records.train import PretrainRecord
from edgetl.tasks.base import Classification, MultiHead, MultiLabel, TaskSpec
from edgetl.train import stage as training
from edgetl.train.objective import Batch
from edgetl.train.pretrain import stage
from edgetl.train.pretrain.backbone import last_map, width_of, without_head
from edgetl.train.pretrain.probe import Probed, probe
from edgetl.train.pretrain.views import strong_view
from edgetl.train.seeds import derive
from edgetl.train.tasks.all import training_task
from tests.images import write_set

NAME = "test_efficientnet"
TRAIN = TrainConfig(backbone=NAME, weights="none", augment=Augment.BASIC)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> stage.PretrainInputs:
    root = tmp_path_factory.mktemp("images")
    index = build_index(
        DataConfig(source=str(write_set(root / "own", {"train": 6, "val": 4, "test": 2}))), seed=0
    )
    photos = write_set(root, {"photos": 6}, seed=9) / "photos"
    (root / "index").mkdir()
    further = unlabelled.UnlabelledInputs(index=index, bad_images="refuse", setting="pretrain.images")
    unlabelled.run(str(photos), further, out=root / "index")
    config = PretrainConfig(images=str(photos))
    return stage.PretrainInputs(
        index=index,
        further=indexes.load(root / "index" / "index.json"),
        train=stage.shared(config, TRAIN),
        spec=PreprocessSpec(size=32),
        pixels_dir=root / "pixels",
        seed=3,
        task=training.ClassificationConfig(),
        held_out=2,
    )


def asked(method: PretrainMethod, **changes: object) -> PretrainConfig:
    settings = {"images": "photos", "method": method, "epochs": 2, "batch_size": 8}
    teacher = {"teacher": "x"} if method is PretrainMethod.FEATURES else {}
    return PretrainConfig.model_validate(settings | teacher | changes)


class StopsAt(SilentProgress):
    def __init__(self, message: str) -> None:
        self.stop = message

    def message(self, text: str) -> None:
        if text.startswith(self.stop):
            raise KeyboardInterrupt


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def a_teacher(backbone: str = "test_resnet") -> torch.nn.Module:
    model = create(backbone, 2, "none", seed=4)
    model.set_submodule("fc", torch.nn.Identity())
    return model


@pytest.mark.parametrize("method", PretrainMethod)
def test_each_method_moves_the_backbone_and_is_judged_by_a_probe(
    method: PretrainMethod, inputs: stage.PretrainInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "teacher_of", lambda *_: a_teacher())
    out = folder(tmp_path / "pretrain")
    record = stage.run(asked(method, epochs=1), inputs, out=out)
    assert [p.name for p in out.iterdir()] == [stage.CHECKPOINT]
    assert (record.kind, record.images, record.held_out, record.classes) == (method.value, 18, 2, ())
    assert [(e.phase, e.epoch) for e in record.epochs] == [("pretrain", 1)]
    assert all(np.isfinite([e.loss, e.val_loss]).all() and e.val.images == 12 for e in record.epochs)
    assert record.probe.after == value(record.epochs[-1].val, record.probe.metric)
    assert [step.kind for step in record.lineage] == ["weights", method.value]
    assert from_json(PretrainRecord, to_json(record)) == record
    learned, begun = (
        load_file(out / stage.CHECKPOINT),
        create(NAME, 3, "none", seed=derive(3, "weights")).state_dict(),
    )
    moved = [
        name for name in begun if name.endswith("weight") and not torch.equal(learned[name], begun[name])
    ]
    assert len(moved) > 0.9 * sum(name.endswith("weight") for name in begun) - 1


def test_a_stopped_stage_goes_on_and_writes_the_same_bytes(
    inputs: stage.PretrainInputs, tmp_path: Path
) -> None:
    method = PretrainMethod.MASKED  # whose loss draws, and whose decoder learns along
    whole, broken = folder(tmp_path / "a" / "pretrain"), folder(tmp_path / "b" / "pretrain")
    expected = stage.run(asked(method), inputs, out=whole)
    with pytest.raises(Interrupted, match="the same command goes on"):
        stage.run(asked(method), inputs, out=broken, progress=StopsAt("pretrain 1/2"))
    assert stage.run(asked(method), inputs, out=broken).probe == expected.probe
    assert (broken / stage.CHECKPOINT).read_bytes() == (whole / stage.CHECKPOINT).read_bytes()


@pytest.mark.parametrize("method", PretrainMethod)
def test_the_losses_fall(
    method: PretrainMethod, inputs: stage.PretrainInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "teacher_of", lambda *_: a_teacher())
    pixels = np.stack([load_pixels(s.path, inputs.spec) for s in inputs.index.samples[:12]])
    images = torch.from_numpy(normalise(pixels, inputs.spec))
    second = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().flip(3)
    model = create(NAME, 3, "none", seed=1).train()
    with without_head(model, classifier_names(model)) as backbone:
        objective = stage._objective(asked(method), backbone, inputs.spec, 0)
        assert objective.modules is not None
        parameters = [*backbone.parameters(), *objective.modules.parameters()]
        optimiser, losses = torch.optim.Adam(parameters, 2e-3), []
        for _ in range(15):
            torch.manual_seed(0)
            loss = objective.loss(backbone, Batch(images=images, targets=second))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def other_set(inputs: stage.PretrainInputs, root: Path) -> stage.PretrainInputs:
    """With a source: the same colours under other names, and a picture of the data's own test split."""
    write_set(root / "source", {"train": 12, "val": 3, "test": 1}, seed=21)
    for at, name in enumerate(("red", "green", "blue")):
        for split in ("train", "val", "test"):
            (root / "source" / split / name).rename(root / "source" / split / f"kind-{at}")
    leak = inputs.index.split("test")[0].path
    (root / "source" / "train" / "kind-0" / "leak.png").write_bytes(leak.read_bytes())
    data = DataConfig(source=str(root / "source"))
    out = folder(root / "pretrain-source")
    found = other_classes.run(data, other_classes.OtherInputs(index=inputs.index, seed=0), out=out)
    assert (found.images, found.held_out) == (36, 1)
    config = PretrainConfig(source=data.source, epochs=8, lr=3e-3, batch_size=8)
    return dataclasses.replace(
        inputs,
        further=indexes.load(out / "index.json"),
        train=stage.shared(config, TRAIN.model_copy(update={"strategy": "head", "label_smoothing": 0.05})),
        held_out=found.held_out,
    )


def test_a_source_teaches_the_whole_backbone_and_the_chain_says_so(
    inputs: stage.PretrainInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = other_set(inputs, tmp_path)
    assert other.train.strategy is training.Strategy.FULL
    config = PretrainConfig(source=str(tmp_path / "source"), epochs=8, lr=3e-3, batch_size=8)
    out = folder(tmp_path / "pretrain")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # stopped just before the verdict
        patched.setattr(Probed, "compare", stop)
        with pytest.raises(KeyboardInterrupt):
            stage.run(config, other, out=out)
    with monkeypatch.context() as patched:
        patched.setattr(training, "run", stop)
        record = stage.run(config, other, out=out)
    assert [p.name for p in out.iterdir()] == [training.CHECKPOINT]
    assert (record.kind, record.classes) == ("source", ("kind-0", "kind-1", "kind-2"))
    assert {e.phase for e in record.epochs} == {"head", "full"}
    assert record.checkpoint == "pretrain/teacher.safetensors"
    assert [step.kind for step in record.lineage] == ["weights", "train"]
    assert record.lineage[1].images == 36
    own = training.TrainInputs(
        index=inputs.index,
        spec=inputs.spec,
        pixels_dir=inputs.pixels_dir,
        seed=inputs.seed,
        start=tmp_path / record.checkpoint,
    )
    config = TRAIN.model_copy(update={"head_epochs": 0, "epochs": 1, "lr": 1e-9, "weight_decay": 0.0})
    trained = training.run(config, own, out=folder(tmp_path / "train"))
    assert trained.lineage[:2] == record.lineage
    assert [step.kind for step in trained.lineage] == ["weights", "train", "train"]
    before, after = (load_file(tmp_path / r.checkpoint) for r in (record, trained))
    # those of batch norms are put into terms of the images first
    weights = [n for n in after if after[n].dim() > 1 and not n.startswith("classifier")]
    assert all(torch.allclose(after[n], before[n], atol=1e-6) for n in weights)


def test_a_source_that_asks_for_something_else_or_leaves_nothing_is_refused(
    inputs: stage.PretrainInputs, tmp_path: Path
) -> None:
    other = other_classes.OtherInputs(index=inputs.index, seed=0)
    for sample in (*inputs.index.split("val"), *inputs.index.split("test")):
        path = tmp_path / "held" / sample.path.parent.name / f"{sample.sha256}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.path.read_bytes())
    held = DataConfig(source=str(tmp_path / "held"))
    with pytest.raises(
        DataError, match=r"pretrain\.source: nearly all images .* must not teach; give another"
    ):
        other_classes.run(held, other, out=tmp_path)
    with pytest.raises(DataError, match=r"pretrain\.source: .*gone"):
        other_classes.run(DataConfig(source=str(tmp_path / "gone")), other, out=tmp_path)
    broken = write_set(tmp_path / "broken", {"train": 3})
    (broken / "train" / "red" / "000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"pretrain\.source: 1 of 9 images in .*broken cannot be used"):
        other_classes.run(DataConfig(source=str(broken)), other, out=tmp_path)
    rows = [f"{s.path},{name}|{name}2" for s in inputs.index.split("train") for name in ("a", "b")]
    (tmp_path / "labels.csv").write_text("\n".join(["path,labels", *dict.fromkeys(rows)]))
    with pytest.raises(DataError, match=r"pretrain\.source: "):
        other_classes.run(DataConfig(source=str(tmp_path / "labels.csv")), other, out=tmp_path)


def test_one_image_is_too_few_to_compare(inputs: stage.PretrainInputs, tmp_path: Path) -> None:
    one = dataclasses.replace(inputs.further, samples=inputs.further.samples[:1])
    own = dataclasses.replace(inputs, further=one)
    with pytest.raises(DataError, match=r"pretrain\.images: simclr compares images, and .*photos gives one"):
        stage.run(asked(PretrainMethod.SIMCLR), own, out=tmp_path)
    with pytest.raises(TrainingError, match="Batch norm needs at least 2 images"):
        stage.run(asked(PretrainMethod.MASKED), own, out=tmp_path)


def test_a_network_without_maps_cannot_rebuild_pictures(inputs: stage.PretrainInputs, tmp_path: Path) -> None:
    train = inputs.train.model_copy(update={"backbone": "test_vit"})
    own = dataclasses.replace(inputs, train=train, spec=PreprocessSpec(size=160))
    with pytest.raises(ModelError, match=r"VisionTransformer gives no maps .* set pretrain\.method"):
        stage.run(asked(PretrainMethod.MASKED), own, out=tmp_path)


# --- the parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [NAME, "test_resnet", "torchvision/squeezenet1_1", "torchvision/mobilenet_v2"]
)
def test_a_network_without_its_head_gives_its_features_and_gets_it_back(name: str) -> None:
    model = create(name, 3, "none", seed=1).eval()
    images = torch.rand(2, 3, 96, 96)
    heads = classifier_names(model)
    with torch.no_grad():
        before = model(images)
        with without_head(model, heads):
            width = width_of(model, 96)
            assert model(images).shape == (2, width)
            found = last_map(model, 96)
        assert torch.equal(model(images), before)
    assert width > 3
    assert found.side == 96 // 32 or name.endswith("squeezenet1_1")
    assert "." not in found.name or model.get_submodule(found.name) is not None


def test_strong_views_follow_their_generator_and_stay_in_range() -> None:
    pixels = torch.randint(
        0, 256, (64, 20, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )

    def view(seed: int) -> torch.Tensor:
        return strong_view(pixels, 16, mirror=True, generator=torch.Generator().manual_seed(seed))

    first = view(1)
    assert first.shape == (64, 3, 16, 16)
    assert torch.equal(first, view(1))
    assert not torch.equal(first, view(2))
    assert 0 <= first.min() < first.max() <= 255
    grey = ((first - first.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 0.01).float().mean().item()
    assert 0.05 < grey < 0.4


def test_a_probe_finds_what_is_linear_and_a_better_backbone_is_seen_as_such(
    inputs: stage.PretrainInputs,
) -> None:
    rng, task = np.random.default_rng(0), training_task(inputs.index.task)
    targets = np.arange(180) % 3
    good = (np.eye(3)[targets] + rng.normal(0, 0.3, (180, 3))).astype(np.float32)
    noise = rng.normal(0, 1, (180, 3)).astype(np.float32)
    outputs = probe(task, good[:60], targets[:60], good[60:])
    assert (outputs.argmax(1) == targets[60:]).mean() > 0.9
    probed = Probed(task=task, fitted=60, metric="top1")
    better, worse, same = (
        probed.compare(targets, *pair, seed=0) for pair in ((noise, good), (good, noise), (good, good))
    )
    assert (better.helped, better.images) == (True, 120)
    assert better.p_value < 1e-3
    assert better.interval[0] > 0.3
    assert (worse.helped, worse.before, worse.after) == (False, better.after, better.before)
    assert worse.p_value > 0.99
    assert (same.helped, same.before) == (False, same.after)
    by_f1 = Probed(task=task, fitted=60, metric="macro_f1").compare(targets, noise, good, seed=0)
    assert by_f1.helped
    assert by_f1.interval == pytest.approx(better.interval, abs=0.1)


SEVERAL = MultiLabel(labels=("a", "b", "c"), thresholds=(0.5, 0.5, 0.5))
HEADS = MultiHead(
    heads={"kind": Classification(labels=("a", "b")), "mark": Classification(labels=("x", "y"))}
)


@pytest.mark.parametrize("spec", [SEVERAL, HEADS], ids=["any number of classes", "several heads"])
def test_other_tasks_are_probed_by_their_own_losses_and_scores(spec: TaskSpec) -> None:
    rng, task = np.random.default_rng(0), training_task(spec)
    shown = rng.random((160, 2)) < 0.5
    if spec is SEVERAL:
        targets = np.column_stack([shown, shown.all(axis=1)]).astype(np.float32)
    else:
        targets = np.column_stack([shown[:, 0], ~shown[:, 0], shown[:, 1], ~shown[:, 1]]).astype(np.float32)
        targets[::5, 2:] = np.nan  # not labelled for the second head
    good = (shown + rng.normal(0, 0.15, shown.shape)).astype(np.float32)
    noise = rng.normal(0, 1, shown.shape).astype(np.float32)
    probed = Probed(task=task, fitted=60, metric=task.selection(targets))
    found = probed.compare(targets, noise, good, seed=0)
    assert found.helped
    assert found.after > 0.85
    assert not probed.compare(targets, good, noise, seed=0).helped
