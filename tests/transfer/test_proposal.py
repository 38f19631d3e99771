"""A proposal as settings of a recipe, by hand and by `edgetl init --suggest`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgetl import config
from edgetl.config import LatencyTarget
from edgetl.transfer import stage
from edgetl.transfer.proposal import as_suggestions
from tests.cli.typed import edgetl
from tests.images import write_set
from tests.sounds import write_tones
from tests.transfer.rankings import ranking


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("images"), {"train": 12, "val": 4})


def test_each_setting_of_a_proposal_has_its_reason() -> None:
    found = ranking()
    by_key = {one.key: one for one in as_suggestions(found)}
    assert by_key["train.backbone"].value == found.choice.backbone
    assert by_key["preprocess.size"].value == found.choice.size
    images = found.val_images
    assert (
        by_key["train.backbone"].reason == f"by linear probes on {images} validation images, {found.reason}"
    )
    assert "(see train.backbone)" in by_key["preprocess.size"].reason


def test_init_writes_the_probe_s_choice_with_its_reason(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ranking(0.001)
    slow = 'prune.target = {kind = "latency", ms = 0.001}'
    found = replace(found, settings=(*found.settings, slow))
    asked = []

    def ranked(config, index, preprocess, *, source="", progress=None):
        asked.append((config.latency_ms, index.task.labels))
        return found

    monkeypatch.setattr(stage, "run", ranked)
    path = tmp_path / "recipe.toml"
    done = edgetl("init", images, "-o", path, "--suggest", "--latency-ms", "0.001")
    assert done.returncode == 0, done.stderr
    assert asked == [(0.001, ("blue", "green", "red"))]
    recipe = config.load(path)
    assert (recipe.train.backbone, recipe.preprocess.size) == (found.choice.backbone, found.choice.size)
    assert recipe.prune.target == LatencyTarget(kind="latency", ms=0.001)
    assert "# Chosen: by linear probes on" in path.read_text()
    assert f"train.backbone = {found.choice.backbone}: by linear probes" in done.stdout


def test_init_asks_for_recordings_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ranked(config, index, preprocess, *, source="", progress=None):
        asked.append((index.sound, preprocess.size, preprocess.resize))
        return ranking()

    monkeypatch.setattr(stage, "run", ranked)
    source = write_tones(tmp_path / "tones", {"": 8})
    done = edgetl("init", source, "-o", tmp_path / "recipe.toml", "--suggest")
    assert done.returncode == 0, done.stderr
    recipe = config.load(tmp_path / "recipe.toml")
    assert asked == [(recipe.heard, 96, "squash")]
    assert (recipe.preprocess.size, recipe.preprocess.resize) == (ranking().choice.size, "squash")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--latency-ms", "5"), "--latency-ms chooses a backbone and size: give --suggest too."),
        (("--suggest", "--latency-ms", "0"), "--latency-ms: got 0, expected milliseconds above 0."),
    ],
)
def test_a_budget_that_means_nothing_is_refused(
    words: tuple[str, ...], said: str, images: Path, tmp_path: Path
) -> None:
    done = edgetl("init", images, "-o", tmp_path / "recipe.toml", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not (tmp_path / "recipe.toml").exists()
