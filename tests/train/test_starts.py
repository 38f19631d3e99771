"""The two starts on tiny images: who judges, how often is trained, and going on after a stop."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from edgetl.config import Augment, DataConfig, TrainConfig
from edgetl.data.index import build_index
from edgetl.errors import ConfigError, Interrupted
from edgetl.files import StageCache
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import checkpoint
from edgetl.models.architecture import describe
from edgetl.models.backbones import create
from edgetl.progress import SilentProgress
from edgetl.records.codec import from_json, to_json
from edgetl.records.scores import value
from edgetl.records.train import PairedComparison, TrainRecord
from edgetl.train import stage, starts
from edgetl.train.starts import Pretrained
from tests.images import write_set

NAME = "test_efficientnet"
CONFIG = TrainConfig(
    backbone=NAME, weights="none", augment=Augment.BASIC, head_epochs=1, epochs=2, batch_size=8
)
NO_BETTER = PairedComparison(
    metric="top1", images=12, before=0.5, after=0.5, interval=(-0.1, 0.1), p_value=0.6, helped=False
)
BETTER = dataclasses.replace(NO_BETTER, after=0.75, interval=(0.1, 0.4), p_value=0.01, helped=True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> stage.TrainInputs:
    root = tmp_path_factory.mktemp("images")
    own = write_set(root / "own", {"train": 6, "val": 4, "test": 2})
    return stage.TrainInputs(
        index=build_index(DataConfig(source=str(own)), seed=0),
        spec=PreprocessSpec(size=32),
        pixels_dir=root / "pixels",
        seed=3,
    )


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, path = create(NAME, 3, "none", seed=7), tmp_path_factory.mktemp("first") / "backbone.safetensors"
    checkpoint.save(model, describe(model, NAME, 3), path, checkpoint.provenance((), PreprocessSpec(size=32)))
    return path


@pytest.fixture(scope="module")
def plain_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain")


@pytest.fixture(scope="module")
def plain(inputs: stage.TrainInputs, plain_out: Path) -> TrainRecord:
    """Training as it is where nothing is learned first."""
    return stage.run(CONFIG, inputs, out=plain_out)


@pytest.fixture(scope="module")
def by_start(
    inputs: stage.TrainInputs,
    backbone: Path,
    plain: TrainRecord,
    plain_out: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[bool, bytes]:
    """What training makes of each start, by whether that is the pretrained one."""
    out = tmp_path_factory.mktemp("begun")
    stage.run(CONFIG, dataclasses.replace(inputs, start=backbone), out=out)
    return {False: (plain_out / stage.CHECKPOINT).read_bytes(), True: (out / stage.CHECKPOINT).read_bytes()}


def first_of(backbone: Path, probe: PairedComparison = NO_BETTER, always: bool = False) -> Pretrained:
    return Pretrained(checkpoint=backbone, learned="simclr on 9 images (photos)", probe=probe, always=always)


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


class Watched(SilentProgress):
    """Keeps what is said, and stops at a message of its kind, the first or a later one."""

    def __init__(self, stop: str = "", occurrence: int = 1) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.stop, self.left = stop, occurrence

    def message(self, text: str) -> None:
        self.said.append(text)
        if self.stop and text.startswith(self.stop):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def warning(self, text: str) -> None:
        self.warned.append(text)

    @property
    def epochs(self) -> list[str]:
        """The epochs that were trained, as they were announced."""
        return [text.split(":")[0] for text in self.said if text.startswith(("head ", "full "))]


def test_training_from_both_starts_is_compared_as_it_is(
    inputs: stage.TrainInputs, backbone: Path, by_start: dict[bool, bytes], tmp_path: Path
) -> None:
    out, progress = folder(tmp_path / "train"), Watched()
    record = starts.run(CONFIG, inputs, first_of(backbone), out=out, progress=progress)
    assert from_json(TrainRecord, to_json(record)) == record
    assert progress.epochs == ["head 1/1", "full 1/2", "full 2/2"] * 2
    start = record.start
    assert start is not None
    assert (start.judge, start.comparison.images) == ("training", 12)
    assert start.used == start.comparison.helped
    kept = start.comparison.after if start.used else start.comparison.before
    assert kept == pytest.approx(value(record.val, "top1"))
    assert (out / stage.CHECKPOINT).read_bytes() == by_start[start.used]
    assert record.checkpoint == "train/teacher.safetensors"
    assert [p.name for p in out.iterdir()] == [stage.CHECKPOINT]


def test_a_run_that_was_stopped_anywhere_goes_on_and_writes_the_same_bytes(
    inputs: stage.TrainInputs,
    backbone: Path,
    by_start: dict[bool, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, out = first_of(backbone, probe=BETTER), folder(tmp_path / "train")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for stopped in (Watched("full 1/2"), Watched("train: the same"), Watched("full 1/2")):
        with pytest.raises((Interrupted, KeyboardInterrupt)):
            starts.run(CONFIG, inputs, first, out=out, progress=stopped)
    assert [p.name for p in out.rglob("*.state") if p.parent.name == starts.PRETRAINED]
    with monkeypatch.context() as patched:  # both are trained, and not yet compared
        patched.setattr(starts, "compare", stop)
        progress = Watched()
        with pytest.raises(KeyboardInterrupt):
            starts.run(CONFIG, inputs, first, out=out, progress=progress)
    assert progress.epochs == ["full 2/2"]
    for found in (NO_BETTER, BETTER):
        again, progress = tmp_path / str(found.helped) / "train", Watched()
        shutil.copytree(out, again)
        monkeypatch.setattr(starts, "compare", lambda *_, said=found, **__: said)
        record = starts.run(CONFIG, inputs, first, out=again, progress=progress)
        assert progress.epochs == []
        assert record.start is not None
        assert record.start.used is found.helped
        assert (again / stage.CHECKPOINT).read_bytes() == by_start[found.helped]
        assert [step.kind for step in record.lineage] == ["weights", "train"]
        assert record.lineage[0].name == ("backbone.safetensors" if found.helped else "none")
        assert progress.warned == ([] if found.helped else [record.start.note])


def test_other_settings_do_not_throw_away_the_epochs_of_either_training(
    inputs: stage.TrainInputs, backbone: Path, tmp_path: Path
) -> None:
    def train(config: TrainConfig, progress: Watched) -> None:
        StageCache(tmp_path).run(
            "train",
            config=config,
            inputs=[inputs, first_of(backbone)],
            kind=TrainRecord,
            outputs=lambda r: [r.checkpoint],
            work=lambda out: starts.run(config, inputs, first_of(backbone), out=out, progress=progress),
        )

    with pytest.raises(Interrupted):
        train(CONFIG, Watched("head 1/1"))
    with pytest.raises(ConfigError, match=r"unfinished training under other settings \(train\.lr"):
        train(CONFIG.model_copy(update={"lr": 1e-5}), Watched())


@pytest.mark.parametrize("probe", [BETTER, NO_BETTER])
def test_where_it_is_used_in_any_case_training_is_done_once(
    probe: PairedComparison,
    inputs: stage.TrainInputs,
    backbone: Path,
    plain: TrainRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[Path | None] = []

    def train(config: TrainConfig, own: stage.TrainInputs, **_: object) -> TrainRecord:
        begun.append(own.start)
        return plain

    monkeypatch.setattr(stage, "run", train)
    found = starts.run(CONFIG, inputs, first_of(backbone, probe, always=True), out=tmp_path).start
    assert begun == [backbone]
    assert found is not None
    assert (found.judge, found.comparison, found.used) == ("probe", probe, True)
    assert "in any case (pretrain.always); a linear probe went" in found.note
