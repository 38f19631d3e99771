"""A search on a tiny network: from a budget to a bundle, what it keeps, and what it says where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")

import optuna

import edgetl
from edgetl import config
from edgetl.config import MacsTarget, Recipe
from edgetl.errors import ConfigError, Interrupted, MissingDependencyError
from edgetl.files import read_json
from edgetl.progress import SilentProgress
from edgetl.records.search import SearchRecord, TimedVariant, TrialState
from edgetl.search import finals, stage
from edgetl.search.settings import RECORD, SearchConfig
from edgetl.search.study import DATABASE
from tests.images import write_set
from tests.test_pipeline import tiny_recipe

FREE = 1e4
"""Milliseconds that everything keeps."""
Searched = tuple[SearchRecord, Path]


class Spoken(SilentProgress):
    """Keeps what it is told; stops as by Ctrl-C once it is told what begins with `stop`."""

    def __init__(self, stop: str = "\0") -> None:
        self.said, self.stop = list[str](), stop

    def message(self, text: str) -> None:
        self.said.append(text)
        if text.startswith(self.stop):
            raise KeyboardInterrupt


def recipe_of(images: Path) -> Recipe:
    return tiny_recipe(images, distill={"epochs": 2})


def asked(**values: object) -> SearchConfig:
    return SearchConfig(
        **{
            "latency_ms": FREE,
            "trials": 1,
            "networks": ("teacher",),
            "sizes": (32,),
            "epochs": 2,
            "anyway": True,
            **values,
        }
    )


def prepared(before: Path, out: Path) -> Path:
    """A search that has its teacher, and no trial."""
    for name in ("data", "train"):
        shutil.copytree(before / "run" / name, out / "run" / name)
    shutil.copy(before / "prepared.json", out)
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("images"), {"train": 12, "val": 4, "test": 4})


@pytest.fixture(scope="module")
def searched(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    out = tmp_path_factory.mktemp("searched")
    return stage.run(asked(), recipe_of(images), out), out


def test_a_budget_gives_a_bundle_that_predicts(searched: Searched, images: Path) -> None:
    record, out = searched
    assert (record.holds, record.metric) == (True, "top1")
    assert record.chosen is not None
    with edgetl.load(out / record.chosen.bundle, threads=1) as session:
        assert session.predict(images / "test" / "red" / "000.png").label in session.labels
    assert [one.state for one in record.trials] == [TrialState.TRAINED]
    assert record.chosen.trial == 0
    assert read_json(out / RECORD, SearchRecord) == record


def test_its_recipe_is_the_chosen_candidate_s(searched: Searched) -> None:
    record, out = searched
    assert record.chosen is not None
    recipe = config.load(out / "recipe.toml")
    assert recipe.prune.target == MacsTarget(share=record.chosen.choice.share)
    assert recipe.distill.epochs == 2
    assert (out / "recipe.toml").read_text().count("# Chosen: by edgetl search") == 3
    assert f'prune.target = {{kind = "macs", share = {record.chosen.choice.share}}}' in record.settings


def test_all_candidates_share_one_teacher(searched: Searched) -> None:
    _, out = searched
    homes = [home for home in (out / "trials").iterdir() if home.is_dir()]
    assert homes
    for home in homes:
        assert (home / "train").resolve() == (out / "run" / "train").resolve()
        assert not (home / "prune").is_symlink()


def test_candidates_are_halved_by_their_validation_loss(searched: Searched) -> None:
    record, out = searched
    study = optuna.load_study(study_name=record.study, storage=f"sqlite:///{out / DATABASE}")
    (trial,) = study.trials
    (shown,) = record.trials
    assert set(trial.intermediate_values) == {1, 2}
    assert trial.intermediate_values[2] == -shown.loss
    assert trial.value == shown.score
    assert 0 < shown.epoch_seconds < shown.seconds


def test_candidates_do_not_see_the_test_images(searched: Searched) -> None:
    _, out = searched
    records = list((out / "trials").glob("*/distill/stage.json"))
    assert records
    assert all(json.loads(path.read_text())["record"]["test"] is None for path in records)


def test_the_same_call_does_nothing_again(searched: Searched, images: Path) -> None:
    record, out = searched
    spoken = Spoken()
    again = stage.run(asked(), recipe_of(images), out, progress=spoken)
    assert again.trials == record.trials
    assert again.chosen is not None
    assert "distill: up to date" in spoken.said
    assert not any(text.startswith("Trial") for text in spoken.said)
    assert again.seconds > record.seconds


def test_time_that_is_left_and_a_slow_cut_change_the_ordinary_run(
    searched: Searched, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = prepared(searched[1], tmp_path / "longer")
    slow = TimedVariant(precision="int8", ms=1.2 * FREE, threads=1, size_bytes=1000)
    cuts = iter([slow])
    monkeypatch.setattr(finals, "best_variant", lambda timed, budget: next(cuts, timed[0]))
    spoken = Spoken()
    record = stage.run(asked(minutes=60.0), recipe_of(images), out, progress=spoken)
    (final,) = record.finals
    assert (record.holds, final.trial) == (True, 0)
    assert final.choice.share < record.trials[0].choice.share
    assert config.load(out / "recipe.toml").distill.epochs == 8
    assert (out / "recipe.toml").read_text().count("# Chosen: by edgetl search") == 4
    assert "distill.epochs = 8" in record.settings
    assert any(text.startswith("The time that is left is used: 8 epochs") for text in spoken.said)
    assert any(text.endswith("over 10000 ms, so it is cut anew, narrower") for text in spoken.said)
    spoken = Spoken()
    again = stage.run(asked(minutes=60.0), recipe_of(images), out, progress=spoken)
    assert again.finals[0].choice == final.choice
    assert "distill: up to date" in spoken.said


def test_other_settings_are_another_search(searched: Searched, images: Path) -> None:
    _, out = searched
    changed = tiny_recipe(images, distill={"epochs": 2, "lr": 0.1})
    with pytest.raises(ConfigError, match=r"searches something else \(settings: \w+ there, \w+ here\)"):
        stage.run(asked(), changed, out)


def test_ctrl_c_leaves_the_best_so_far_as_a_bundle(searched: Searched, images: Path, tmp_path: Path) -> None:
    _, before = searched
    out = prepared(before, tmp_path / "stopped")
    with pytest.raises(Interrupted) as caught:
        stage.run(
            asked(), recipe_of(images), out, progress=Spoken("Trial 0"), resume_hint="edgetl search ..."
        )
    text = str(caught.value)
    assert text.startswith("Stopped. The best so far, teacher at 32 px, ")
    assert text.endswith("Go on with: edgetl search ...")
    bundle = Path(text.partition(", is ")[2].partition(". Go on")[0])
    assert bundle.name == "tiny.edgetl"
    with edgetl.load(bundle, threads=1) as session:
        assert session.verify().passed
    kept = read_json(out / RECORD, SearchRecord)
    assert (len(kept.trials), kept.holds, kept.chosen) == (1, False, None)


def test_ctrl_c_before_the_first_candidate(searched: Searched, images: Path, tmp_path: Path) -> None:
    out = prepared(searched[1], tmp_path / "stopped")
    with pytest.raises(
        Interrupted, match="No candidate has learned to its end yet; what was finished is saved"
    ):
        stage.run(asked(), recipe_of(images), out, progress=Spoken("data"))


def test_a_budget_below_the_least_possible_is_refused_before_the_teacher_is_trained(
    images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        stage.run(asked(latency_ms=1e-6), recipe_of(images), tmp_path)
    text = str(caught.value)
    assert text.startswith(
        "--latency-ms 1e-06 is out of reach: the least possible, measured on this machine, is 0.0"
    )
    assert "ms, of teacher at 32 px" in text
    assert text.endswith("Allow more, or name smaller --sizes or other --backbones.")
    assert not (tmp_path / "run" / "train").exists()


def test_depths_that_no_network_can_have_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^--depths 0.5: no residual block of squeezenet1_1 can be taken out"
    ):
        stage.run(asked(networks=("squeezenet1_1",), depths=(0.5,)), recipe_of(images), tmp_path)


def test_a_machine_that_is_busy_is_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "busy_now", lambda: ("Other programs are busy: make (7, 90% of a core).",))
    with pytest.raises(ConfigError) as caught:
        stage.run(asked(anyway=False), recipe_of(images), tmp_path / "out")
    assert str(caught.value) == (
        "This machine is unfit to measure on. Other programs are busy: make (7, 90% of a core). Or search all the same,"
        " with latencies in doubt: --anyway."
    )
    assert not (tmp_path / "out").exists()


def test_without_optuna_it_says_what_to_install(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "find_spec", lambda _: None)
    with pytest.raises(
        MissingDependencyError, match=r"optuna, to search, is not available.*pip install optuna"
    ):
        stage.run(asked(), recipe_of(images), tmp_path)
