from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.config import DataConfig, Tracker, TrainConfig
from edgetl.data.index import build_index
from edgetl.errors import DataError, MissingDependencyError
from edgetl.inputs.image import PreprocessSpec
from edgetl.progress import SilentProgress
from edgetl.records.codec import from_json, to_json
from edgetl.records.scores import Evaluation, Score, value
from edgetl.records.train import FoldsRecord
from edgetl.train import folds, trackers
from edgetl.train.stage import TrainInputs
from tests.images import write_set

from .tiny import epoch_record


class Shown(SilentProgress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> TrainInputs:
    root = write_set(tmp_path_factory.mktemp("images"), {"train": 7, "val": 3, "test": 2})
    return TrainInputs(
        index=build_index(DataConfig(source=str(root)), seed=0),
        spec=PreprocessSpec(size=32),
        pixels_dir=root / "pixels",
        seed=3,
    )


def test_every_image_but_the_tests_is_held_out_once(inputs: TrainInputs) -> None:
    parts = folds.split(inputs.index, 4, 0)
    held = [s.path for part in parts for s in part.split("val")]
    assert sorted(held) == sorted(s.path for s in inputs.index.samples if s.split != "test")
    for part in parts:
        assert part.split("test") == ()
        counts = Counter(s.label for s in part.split("val"))
        assert set(counts.values()) <= {2, 3}
        assert len(part.samples) == 30
    assert folds.split(inputs.index, 4, 0) == parts
    assert folds.split(inputs.index, 4, 1) != parts


def test_groups_stay_in_one_fold(inputs: TrainInputs) -> None:
    grouped = dataclasses.replace(
        inputs.index,
        samples=tuple(
            dataclasses.replace(s, group=f"{s.label}-{n % 4}") for n, s in enumerate(inputs.index.samples)
        ),
    )
    parts = folds.split(grouped, 3, 0)
    held = [{s.group for s in part.split("val")} for part in parts]
    assert sum(map(len, held)) == len(set.union(*held)) > 3
    assert sum(len(part.split("val")) for part in parts) == len(parts[0].samples)
    with pytest.raises(DataError, match="has 4 groups, too few for 5 folds"):
        folds.split(grouped, 5, 0)


def test_near_copies_in_other_folds_are_told_and_groups_mend_it(
    inputs: TrainInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_set(tmp_path / "set", {"train": 12, "test": 2})
    for path in sorted((root / "train").rglob("*.png")):
        with Image.open(path) as image:
            image.point(lambda level: level * 0.7 + 20).save(path.with_name(f"{path.stem}-darker.png"))
    index = build_index(DataConfig(source=str(root)), seed=0)
    grouped = tuple(
        dataclasses.replace(s, group=s.path.stem.removesuffix("-darker") + str(s.label))
        for s in index.samples
    )

    def refuse(*_: object, **__: object) -> None:
        raise DataError("no training here")

    monkeypatch.setattr(folds.stage, "run", refuse)
    stated = []
    for number, samples in enumerate((index.samples, grouped)):
        own = dataclasses.replace(inputs, index=dataclasses.replace(index, samples=samples))
        notices = Shown()
        with pytest.raises(DataError, match="no training here"):
            folds.run(TrainConfig(), own, folds=3, out=tmp_path / str(number), progress=notices)
        stated.append(notices.warnings)
    [warning], none = stated
    assert "images that are scored have a near-copy in another fold, e.g. " in warning
    assert none == []


def test_bad_numbers_of_folds_are_refused(inputs: TrainInputs) -> None:
    with pytest.raises(DataError, match="at least 2 folds, not 1"):
        folds.split(inputs.index, 1, 0)
    with pytest.raises(DataError, match="has 10 images, too few for 11 folds"):
        folds.split(inputs.index, 11, 0)


def test_the_spread_is_over_the_folds(inputs: TrainInputs, tmp_path: Path) -> None:
    config = TrainConfig(backbone="test_efficientnet", weights="none", epochs=1, batch_size=8)
    record = folds.run(config, inputs, folds=3, out=tmp_path)
    assert [e.images for e in record.folds] == [10, 10, 10]
    scores = [value(e, "top1") for e in record.folds]
    assert record.spreads["top1"].mean == pytest.approx(np.mean(scores))
    assert record.spreads["top1"].deviation == pytest.approx(np.std(scores, ddof=1))
    networks = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.safetensors"))
    assert networks == [f"fold-{number}/teacher.safetensors" for number in (1, 2, 3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds.stage, "run", lambda *_, **__: pytest.fail("a finished fold was trained again"))
        assert folds.run(config, inputs, folds=3, out=tmp_path) == record
    assert from_json(FoldsRecord, to_json(record)) == record


@pytest.mark.parametrize("tracker", list(Tracker))
def test_a_tracker_that_is_not_installed_says_how(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with (
        pytest.raises(MissingDependencyError, match=f"pip install {tracker}, or take '{tracker}' out of"),
        trackers.tracking([tracker], tmp_path, "run", {}),
    ):
        pass


def test_trackers_get_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[object] = []

    class Fake:
        def store_init_configuration(self, values: dict[str, object]) -> None:
            logged.append(values)

        def log(self, values: dict[str, float], step: int) -> None:
            logged.append((step, values["full/val_top1"]))

        def finish(self) -> None:
            logged.append("end")

    monkeypatch.setattr(trackers, "_open", lambda *_: Fake())
    with trackers.tracking([Tracker.WANDB], tmp_path, "run", {"lr": 0.1, "mean": None}) as listen:
        listen(epoch_record(1, 0.5, 0.4))
    assert logged == [{"lr": 0.1}, (1, 0.5), "end"]


def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with trackers.tracking([Tracker.TENSORBOARD], tmp_path, "run", {"lr": 0.1, "patience": 0}) as listen:
        for epoch in (1, 2):
            listen(epoch_record(epoch, 0.5 * epoch, 0.4))
    curves = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [(e.step, round(e.value, 6)) for e in curves.Scalars("full/val_top1")] == [(1, 0.5), (2, 1.0)]


def test_a_score_that_a_fold_lacks_has_no_spread() -> None:
    found = [
        Evaluation(images=4, scores={"top1": Score(value=0.5), "severity": Score(value=0.25)}),
        Evaluation(images=4, scores={"top1": Score(value=1.0)}),
    ]
    assert folds.spreads(found).keys() == {"top1"}
