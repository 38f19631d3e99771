"""The trial of episodes: what is left out, who decides, and what the teacher is trained with after it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.config import Augment, DataConfig, Episodes, TrainConfig
from edgetl.data.index import build_index
from edgetl.errors import ConfigError
from edgetl.inputs.image import PreprocessSpec
from edgetl.records.codec import from_json, to_json
from edgetl.records.train import EpisodesRecord, TrainRecord
from edgetl.tasks.base import MultiLabel
from edgetl.train import few_shot, stage, starts
from edgetl.train.episodes import PHASE

NAMES = tuple(f"class-{at}" for at in range(8))
CONFIG = TrainConfig(
    backbone="test_efficientnet",
    weights="none",
    augment=Augment.BASIC,
    head_epochs=1,
    epochs=1,
    batch_size=16,
    episodes=Episodes.PROTOTYPICAL,
    episode_epochs=1,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> stage.TrainInputs:
    root = tmp_path_factory.mktemp("images")
    own, generator = root / "own", np.random.default_rng(0)
    for at, name in enumerate(NAMES):
        colour = [60 + 120 * (at >> bit & 1) for bit in range(3)]
        for split, count in {"train": 6, "val": 3, "test": 1}.items():
            (own / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.normal(colour, 25, (40, 40, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(own / split / name / f"{number}.png")
    return stage.TrainInputs(
        index=build_index(DataConfig(source=str(own)), seed=0),
        spec=PreprocessSpec(size=32),
        pixels_dir=root / "pixels",
        seed=3,
    )


@pytest.fixture(scope="module")
def tried(inputs: stage.TrainInputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainRecord, Path]:
    out = tmp_path_factory.mktemp("run") / "train"
    out.mkdir()
    return starts.run(CONFIG, inputs, None, out=out), out


def test_a_quarter_of_the_classes_is_left_out(inputs: stage.TrainInputs) -> None:
    known, left, names = few_shot.parted(inputs.index, 3)
    assert len(names) == 2
    assert not set(names) & set(known.labels)
    assert set(names) | set(known.labels) == set(NAMES)
    for part in (known, left):
        assert {part.labels[s.label] for s in part.samples} == set(part.labels)
        assert all(part.labels[s.label] == Path(s.path).parent.name for s in part.samples)
        assert not part.split("test")
    assert len(left.split("val")) == 18


def test_the_record_says_what_was_found(tried: tuple[TrainRecord, Path]) -> None:
    record, out = tried
    found = record.episodes
    assert found is not None
    assert found.method == "prototypical"
    assert found.comparison.images == 18
    assert set(found.shots) == {"1", "5"}
    mean = sum(after for _, after in found.shots.values()) / 2
    assert found.comparison.after == pytest.approx(mean, abs=0.05)
    assert found.note.endswith("the phase is taken." if found.used else "it is left out.")
    assert from_json(TrainRecord, to_json(record)) == record
    assert (PHASE in [e.phase for e in record.epochs]) is found.used
    assert not (out / few_shot.FOLDER).exists()


@pytest.mark.parametrize("used", [False, True])
def test_the_phase_is_taken_where_it_helped(
    used: bool,
    inputs: stage.TrainInputs,
    tried: tuple[TrainRecord, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = tried[0].episodes
    assert found is not None
    told = dataclasses.replace(found, used=used)

    def judge(*_: object, **__: object) -> EpisodesRecord:
        return told

    monkeypatch.setattr(few_shot, "run", judge)
    record = starts.run(CONFIG, inputs, None, out=tmp_path)
    assert ([e.phase for e in record.epochs][-1] == PHASE) is used
    assert record.episodes == told


def test_what_cannot_be_tried_is_said_before_training(inputs: stage.TrainInputs) -> None:
    index = inputs.index
    few_shot.check(CONFIG, index)
    few_shot.check(
        CONFIG.model_copy(update={"episodes": Episodes.NONE}), dataclasses.replace(index, samples=())
    )
    with pytest.raises(ConfigError, match=r"there are 2 classes, expected at least 8\.$"):
        few_shot.check(CONFIG, dataclasses.replace(index, labels=NAMES[:2], asked=None))
    with pytest.raises(
        ConfigError, match="is for images of one class each, and this task is multilabel; leave it out"
    ):
        few_shot.check(CONFIG, dataclasses.replace(index, asked=MultiLabel(labels=NAMES)))
    rest = tuple(s for s in index.samples if s.split == "val" or s.label)
    with pytest.raises(
        ConfigError, match=r"class 'class-0' has 3 training and validation images, expected more\.$"
    ):
        few_shot.check(CONFIG, dataclasses.replace(index, samples=rest))
