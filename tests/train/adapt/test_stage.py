"""Adaptation on tiny pictures whose target is darker and bluer than what has labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgetl.config import (
    AdaptConfig,
    AdaptMethod,
    Augment,
    DataConfig,
    SourceWeights,
    Strategy,
    TrainConfig,
)
from edgetl.data import index as indexes
from edgetl.data import unlabelled
from edgetl.data.index import DataIndex, build_index
from edgetl.data.pixels import open_pixels
from edgetl.errors import ConfigError, ModelError
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import checkpoint
from edgetl.models.norms import batch_norms
from edgetl.models.size import network_size
from edgetl.progress import SILENT
from edgetl.records.adapt import AdaptRecord, AdaptTry
from edgetl.records.codec import from_json, to_json
from edgetl.records.scores import Scores
from edgetl.records.train import TrainRecord
from edgetl.tasks.base import MultiLabel
from edgetl.train import stage as training
from edgetl.train.adapt import camera, stage
from edgetl.train.adapt.domains import AdaptInputs, Domains
from edgetl.train.adapt.methods import Methods
from edgetl.train.features import plain_views
from edgetl.train.sets import PixelSet

from ..tiny import epoch_record

COLOURS = {"green": (60, 180, 60), "red": (190, 60, 60)}
SHIFT = np.array([-40, -40, 30])


def pictures(folder: Path, count: int, seed: int, shift: np.ndarray | int = 0) -> None:
    rng = np.random.default_rng(seed)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            noise = rng.normal(0, 30, (24, 24, 3))
            pixels = np.clip(np.array(colour) + shift + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("domains")
    for seed, (split, count) in enumerate((("train", 10), ("val", 5), ("test", 3))):
        pictures(root / "source" / split, count, seed)
    pictures(root / "target", 8, 9, SHIFT)
    return root


@pytest.fixture(scope="module")
def index(root: Path) -> DataIndex:
    return build_index(DataConfig(source=str(root / "source")), seed=0)


@pytest.fixture(scope="module")
def target(root: Path, index: DataIndex) -> DataIndex:
    out = root / "images"
    out.mkdir()
    inputs = unlabelled.UnlabelledInputs(index=index, bad_images="refuse", setting="adapt.images")
    unlabelled.run(str(root / "target"), inputs, out=out)
    return indexes.load(out / "index.json")


def config(strategy: Strategy) -> TrainConfig:
    return TrainConfig(
        backbone="mobilenetv3_small_050",
        weights="none",
        strategy=strategy,
        head_epochs=1,
        epochs=2,
        batch_size=8,
        augment=Augment.NONE,
    )


@pytest.fixture(scope="module", params=[Strategy.FULL, Strategy.HEAD])
def inputs(request: pytest.FixtureRequest, root: Path, index: DataIndex, target: DataIndex) -> AdaptInputs:
    train, spec = config(request.param), PreprocessSpec(size=32)
    out = root / f"train-{request.param}"
    out.mkdir()
    shared = {"index": index, "spec": spec, "pixels_dir": root / "pixels", "seed": 0}
    training.run(train, training.TrainInputs(**shared), out=out)
    return AdaptInputs(train=train, teacher=out / training.CHECKPOINT, target=target, held_out=0, **shared)


def adapted(settings: AdaptConfig, inputs: AdaptInputs, tmp_path: Path) -> AdaptRecord:
    out = tmp_path / "adapt"
    out.mkdir(exist_ok=True)
    return stage.run(settings, inputs, out=out)


def test_auto_tries_what_the_strategy_allows_and_says_how_it_chose(
    inputs: AdaptInputs, tmp_path: Path
) -> None:
    settings = AdaptConfig(images="target", epochs=2)
    record = adapted(settings, inputs, tmp_path)
    expected = ["bn", "coral", "mmd", "dann", "self_training", "camera"]
    if inputs.train.strategy is Strategy.HEAD:
        expected = ["bn", "self_training"]
    assert [one.method for one in record.tries] == ["none", *expected]
    assert all(
        one.val is not None and one.weighted is not None and one.density is not None for one in record.tries
    )
    assert record.method in ("none", *expected)
    assert (record.images, record.held_out, record.asked) == (16, 0, "auto")
    assert 0 < record.sure <= 1
    assert record.explained is not None
    if inputs.train.strategy is Strategy.FULL:
        # The target is what the source shows, darker and bluer, and the features have learned to see that.
        assert record.explained > 0.5
        assert record.retaken == 10
        assert "the 10 labelled validation images as that camera would take them" in record.reason
    assert f"{record.sure:.0%} of the resamples" in record.reason
    assert [p.name for p in (tmp_path / "adapt").iterdir()] == [stage.CHECKPOINT]
    assert checkpoint.read_metadata(tmp_path / record.checkpoint)[stage.ADAPTED] == record.method
    assert from_json(AdaptRecord, to_json(record)) == record
    again = tmp_path / "again"
    again.mkdir()
    assert adapted(settings, inputs, again).tries[1].density == record.tries[1].density
    assert (again / record.checkpoint).read_bytes() == (tmp_path / record.checkpoint).read_bytes()


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("undone", [True, False])
def test_a_teacher_of_which_only_the_head_was_kept_adapts_on_features(
    strategy: Strategy, undone: bool, inputs: AdaptInputs
) -> None:
    train = inputs.train.model_copy(update={"strategy": strategy})
    head, other = (
        dataclasses.replace(epoch_record(1, 0.5, 0.5), phase="head"),
        dataclasses.replace(epoch_record(1, 0.5, 0.5), kept_start=undone),
    )
    network = network_size(checkpoint.load(inputs.teacher)[0], 32)
    none = Scores(images=10, scores={})
    epochs = (head,) if strategy is Strategy.HEAD else (head, head, other)
    record = TrainRecord(
        checkpoint="", backbone="", size=network, epochs=epochs, val=none, test=none, seconds=0.0
    )
    found = stage.as_learned(AdaptConfig(images="target"), train, record)
    on_features = undone or strategy is Strategy.HEAD
    assert found.strategy is (Strategy.HEAD if on_features else strategy)
    assert found == train or found.epochs == 2
    asked = AdaptConfig(images="target", method=AdaptMethod.MMD)
    assert stage.as_learned(asked, train, record) == train


def test_auto_leaves_the_camera_out_where_it_does_not_explain_the_target(
    inputs: AdaptInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "explained", lambda *_: 0.3)
    record = adapted(AdaptConfig(images="target", epochs=1), inputs, tmp_path)
    assert [one.method for one in record.tries] == ["none", "bn", "self_training"]
    assert (record.explained, record.retaken) == (0.3, 0)
    assert "camera" not in record.reason


@pytest.mark.parametrize(
    "method", [m for m in AdaptMethod if m not in (AdaptMethod.AUTO, AdaptMethod.WEIGHTED)]
)
def test_a_method_by_name_is_taken(method: AdaptMethod, inputs: AdaptInputs, tmp_path: Path) -> None:
    settings = AdaptConfig(images="target", method=method, epochs=1)
    if inputs.train.strategy is Strategy.HEAD and method in (AdaptMethod.MMD, AdaptMethod.DANN):
        with pytest.raises(ConfigError, match=f'adapt.method = "{method}" moves the features'):
            adapted(settings, inputs, tmp_path)
        return
    record = adapted(settings, inputs, tmp_path)
    assert record.method == method
    assert "asked for by name" in record.reason
    assert [path.name for path in (tmp_path / "adapt").iterdir()] == [stage.CHECKPOINT]
    before, _ = checkpoint.load(inputs.teacher)
    after, _ = checkpoint.load(tmp_path / record.checkpoint)
    moved = {
        name
        for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    assert moved
    if method is AdaptMethod.BN:
        assert all("running" in name or "num_batches" in name for name in moved)
    elif inputs.train.strategy is Strategy.HEAD:
        assert all(name.startswith("classifier") for name in moved)


def test_batch_norm_takes_the_target_s_statistics(inputs: AdaptInputs, tmp_path: Path) -> None:
    record = adapted(AdaptConfig(images="target", method=AdaptMethod.BN), inputs, tmp_path)
    network, _ = checkpoint.load(tmp_path / record.checkpoint)
    first = next(iter(batch_norms(network).values()))
    seen: list[torch.Tensor] = []
    hook = first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    pixels = open_pixels(inputs.target.samples, inputs.spec, inputs.pixels_dir)
    with torch.no_grad():
        for batch in plain_views(PixelSet(pixels, np.zeros(len(pixels), np.int64), inputs.spec), 16):
            network(batch)
    hook.remove()
    assert first.running_mean is not None
    assert torch.allclose(first.running_mean, torch.cat(seen).mean((0, 2, 3)), atol=1e-4)


def test_what_cannot_be_adapted_is_said_in_one_sentence(inputs: AdaptInputs, tmp_path: Path) -> None:
    few = dataclasses.replace(inputs.target, samples=inputs.target.samples[:1])
    with pytest.raises(ConfigError, match=r"adapt\.images holds 1 usable image, too few"):
        adapted(AdaptConfig(images="target"), dataclasses.replace(inputs, target=few), tmp_path)
    with pytest.raises(ConfigError, match=r"adapt\.images holds 0 usable images, too few"):
        stage.check_images(
            AdaptConfig(images="target"), dataclasses.replace(inputs.target, samples=()), inputs.index
        )
    own = dataclasses.replace(inputs.target, samples=inputs.index.split("train"))
    with pytest.raises(ConfigError, match=r"adapt\.images: all 20 images are training images"):
        stage.check_images(AdaptConfig(images="target"), own, inputs.index)
    several = dataclasses.replace(inputs.index, asked=MultiLabel(labels=inputs.index.labels))
    with pytest.raises(ConfigError, match="one class per image"):
        stage.check(AdaptConfig(images="target"), inputs.train, several)


@pytest.mark.parametrize(("batch_size", "share", "step"), [(3, 0.5, "1 and 2"), (16, 0.05, "15 and 1")])
def test_steps_without_two_images_of_each_domain_are_refused(
    batch_size: int, share: float, step: str, index: DataIndex
) -> None:
    train = config(Strategy.FULL).model_copy(update={"batch_size": batch_size})
    for method in (AdaptMethod.CORAL, AdaptMethod.MMD, AdaptMethod.DANN):
        settings = AdaptConfig(images="target", method=method, share=share)
        expected = rf"adapt.method = {method} compares .*, but its steps have {step} \(.* Take a larger"
        with pytest.raises(ConfigError, match=expected):
            stage.check(settings, train, index)
        stage.check(settings.model_copy(update={"share": 0.4}), config(Strategy.FULL), index)
    for method in (AdaptMethod.BN, AdaptMethod.AUTO):
        stage.check(AdaptConfig(images="target", method=method, share=share), train, index)
    stage.check(
        AdaptConfig(images="target", share=share), train.model_copy(update={"strategy": Strategy.HEAD}), index
    )


def test_a_method_whose_steps_are_too_small_makes_nothing(inputs: AdaptInputs, tmp_path: Path) -> None:
    train = config(Strategy.FULL).model_copy(update={"batch_size": 3})
    given = dataclasses.replace(inputs, train=train)
    makes = Methods(Domains(AdaptConfig(images="target"), given, tmp_path, SILENT))
    with pytest.raises(ModelError, match="compares 2 or more images of either domain in each step"):
        makes.adapted(AdaptMethod.MMD)


def test_images_of_validation_are_left_out_unless_that_is_meant(
    root: Path, index: DataIndex, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, sample in enumerate([*index.split("val")[:3], *index.split("test")[:2]]):
        (mixed / f"seen-{number}.png").write_bytes(sample.path.read_bytes())
    for path in (root / "target" / "red").iterdir():
        (mixed / path.name).write_bytes(path.read_bytes())
    for transductive, expected in ((False, (8, 5)), (True, (13, 0))):
        out = tmp_path / str(transductive)
        out.mkdir()
        record = unlabelled.run(
            str(mixed),
            unlabelled.UnlabelledInputs(
                index=index, bad_images="refuse", setting="adapt.images", transductive=transductive
            ),
            out=out,
        )
        assert (record.images, record.held_out) == expected


def labelled(index: DataIndex, root: Path, tmp_path: Path) -> DataIndex:
    """The source's images, and some of the target's with their labels, as a CSV."""
    rows = [f"{s.path},{index.labels[s.label]},{s.split}," for s in index.samples]
    for label in COLOURS:
        pictures_of = sorted((root / "target" / label).iterdir())
        rows += [f"{path},{label},{'train' if at < 2 else 'val'},new" for at, path in enumerate(pictures_of)]
    path = tmp_path / "both.csv"
    path.write_text("\n".join(["path,label,split,domain", *rows, ""]), encoding="utf-8")
    return build_index(DataConfig(source=str(path)))


def test_labelled_images_of_the_target_train_along_and_decide(
    inputs: AdaptInputs, root: Path, tmp_path: Path
) -> None:
    both = labelled(inputs.index, root, tmp_path)
    both.save(tmp_path / "index.json")
    assert indexes.load(tmp_path / "index.json") == both
    assert {s.domain for s in both.samples} == {"", "new"}
    given = dataclasses.replace(inputs, index=both)
    settings = AdaptConfig(images="target", domain="new", method=AdaptMethod.SELF_TRAINING, epochs=1)
    record = adapted(settings, given, tmp_path)
    assert record.labelled == 12
    before, after = record.tries
    assert before.target is not None
    assert after.p_value is not None
    helped = after.p_value < 0.05
    assert record.method == ("self_training" if helped else "none")
    assert f"self_training {'helped' if helped else 'did not help'}: top-1 on 12 labelled" in record.reason


def test_validation_images_may_all_be_the_target_s(inputs: AdaptInputs, root: Path, tmp_path: Path) -> None:
    both = labelled(inputs.index, root, tmp_path)
    samples = tuple(s for s in both.samples if s.split != "val" or s.domain)
    given = dataclasses.replace(inputs, index=dataclasses.replace(both, samples=samples))
    record = adapted(AdaptConfig(images="target", domain="new", method=AdaptMethod.BN), given, tmp_path)
    assert record.labelled == 12
    assert [one.weighted for one in record.tries] == [None, None]
    assert not any("less accurate" in one.note for one in record.tries)


def test_the_best_of_several_methods_must_be_better_than_chance_makes_one_of_them(
    inputs: AdaptInputs, root: Path, tmp_path: Path
) -> None:
    given = dataclasses.replace(inputs, index=labelled(inputs.index, root, tmp_path))
    settings = AdaptConfig(images="target", domain="new", method=AdaptMethod.BN)
    domains = Domains(settings, given, tmp_path, SILENT)
    found = {"none": domains.teacher, "bn": Methods(domains).adapted(AdaptMethod.BN)[0]}
    again = {f"bn {number}": found["bn"] for number in (2, 3)}
    one, three = (
        stage.Verdict(domains, networks, None).scored(AdaptTry(method="bn"), decides=False)
        for networks in (found, {**found, **again})
    )
    assert one.p_value is not None
    assert three.p_value == min(1, 3 * one.p_value)


def test_labels_of_the_target_decide_by_a_paired_test(inputs: AdaptInputs, tmp_path: Path) -> None:
    out = tmp_path / "a"
    out.mkdir()
    found = stage.attempts(AdaptConfig(images="target", method=AdaptMethod.BN), inputs, out=out)
    plain, other = found.tries
    for p_value, expected in ((0.01, "bn"), (0.2, "none")):
        judged = dataclasses.replace(
            found,
            labelled=20,
            tries=(
                dataclasses.replace(plain, target=0.5),
                dataclasses.replace(other, target=0.8, p_value=p_value),
            ),
        )
        assert judged.taken(AdaptMethod.BN) == judged.taken(AdaptMethod.AUTO) == expected


def test_source_images_count_by_how_much_like_the_target_they_are(
    inputs: AdaptInputs, root: Path, tmp_path: Path
) -> None:
    both = labelled(inputs.index, root, tmp_path)
    # named as the source's, the target's own pictures are those most like it
    as_source = tuple(dataclasses.replace(s, domain="") for s in both.samples)
    given = dataclasses.replace(inputs, index=dataclasses.replace(both, samples=as_source))
    settings = AdaptConfig(
        images="target",
        weights=SourceWeights.DENSITY_RATIO,
        select=0.75,
        method=AdaptMethod.WEIGHTED,
        epochs=1,
    )
    weights = Domains(settings, given, tmp_path, SILENT).sets.train.weights
    assert weights is not None
    count = len(weights)
    assert (weights == 0).sum() == count - round(0.75 * count)
    from_target = np.array([s.path.is_relative_to(root / "target") for s in given.index.split("train")])
    assert weights[from_target].mean() > weights[~from_target].mean()
    record = adapted(settings, given, tmp_path)
    assert [one.method for one in record.tries] == ["none", "weighted"]
    assert "weighted" in [
        str(m)
        for m in stage.methods(
            settings.model_copy(update={"method": AdaptMethod.AUTO}), Strategy.HEAD, judged=False
        )
    ]


def test_auto_tries_what_density_cannot_judge_only_where_labels_do() -> None:
    sure = {AdaptMethod.BN, AdaptMethod.SELF_TRAINING}
    others = {AdaptMethod.CORAL, AdaptMethod.MMD, AdaptMethod.DANN, AdaptMethod.CAMERA}
    for judged in (False, True):
        found = stage.methods(AdaptConfig(images="target"), Strategy.FULL, judged=judged)
        assert set(found) == (sure | others if judged else sure)


def test_a_domain_that_no_image_has_is_refused(inputs: AdaptInputs, root: Path, tmp_path: Path) -> None:
    settings = AdaptConfig(images="target", domain="neu")
    with pytest.raises(ConfigError, match=r"adapt\.domain is 'neu', which no image has .*; there is none\."):
        stage.check(settings, inputs.train, inputs.index)
    both = labelled(inputs.index, root, tmp_path)
    with pytest.raises(ConfigError, match="it holds new"):
        stage.check(settings, inputs.train, both)
    only = dataclasses.replace(both, samples=tuple(s for s in both.samples if s.domain or s.split != "train"))
    with pytest.raises(ConfigError, match="nothing to adapt from"):
        stage.check(AdaptConfig(images="target", domain="new"), inputs.train, only)
    first = next(s for s in both.split("train") if not s.domain)
    one = dataclasses.replace(both, samples=(first, *only.samples))
    with pytest.raises(ConfigError, match="all but one of the training images are of it"):
        stage.check(AdaptConfig(images="target", domain="new"), inputs.train, one)
    with pytest.raises(ValueError, match="weighs nothing as it is"):
        AdaptConfig(images="target", method=AdaptMethod.WEIGHTED)
