"""How well unknown images are told from a set, and what is said where they are not unknown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from edgetl.bundle.pack import pack
from edgetl.errors import ConfigError, DataError
from edgetl.progress import SilentProgress
from edgetl.records.scores import BadImages
from edgetl.records.unknown import ScoreName
from edgetl.runtime import load
from edgetl.runtime.evaluate import evaluate_folder
from tests.bundles import LABELS, contents, picture
from tests.cli.typed import edgetl
from tests.references import with_references
from tests.squares import write_bundle


class Listening(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, a set of known images, and a folder of plain colours."""
    root = tmp_path_factory.mktemp("eval")
    pack(with_references(contents(root)), root / "b.edgetl")
    for at in range(30):
        path = root / "known" / LABELS[at % 3] / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(700 + at))
    (root / "strange" / "deep").mkdir(parents=True)
    for at in range(12):
        place = root / "strange" / ("deep" if at % 2 else "") / f"{at}.png"
        Image.new("RGB", (48, 40), (0, 140 + 8 * at, 0)).save(place)
    return root


def test_every_score_has_its_area_and_what_passes(folder: Path) -> None:
    progress = Listening()
    with load(folder / "b.edgetl", threads=1) as session:
        plain = evaluate_folder(session, folder / "known")
        found = evaluate_folder(session, folder / "known", unknown=folder / "strange", progress=progress)
    assert found.scores == plain.scores
    assert plain.unknown is None
    told = found.unknown
    assert told is not None
    assert (told.images, told.known, told.made_from, told.in_set, told.note) == (12, 30, None, 0, "")
    assert [one.score for one in told.scores] == list(ScoreName)
    assert [one.score for one in told.scores if one.used] == ["neighbours"]
    near = told.scores[2]
    assert (near.auroc.value, near.passing.value) == (1.0, 0.0)
    assert near.auroc.low is not None
    assert near.auroc.low < 1.0
    assert progress.said == []


def test_the_command_prints_a_table_and_json(folder: Path) -> None:
    words = ("eval", folder / "b.edgetl", folder / "known", "--unknown", folder / "strange", "--threads", "1")
    shown = edgetl(*words)
    assert shown.returncode == 0
    assert "12 unknown images against 30 known ones" in shown.stdout
    assert "neighbours" in shown.stdout
    values = json.loads(edgetl(*words, "--json").stdout)["unknown"]
    assert [one["score"] for one in values["scores"]] == list(ScoreName)
    assert values["scores"][2]["auroc"]["value"] == 1.0
    assert edgetl(*words, "--variant", "int8-cpu-x86").returncode == 0


def test_an_older_bundle_has_two_scores_and_says_why(folder: Path, tmp_path: Path) -> None:
    pack(contents(tmp_path), tmp_path / "old.edgetl")
    with load(tmp_path / "old.edgetl", threads=1) as session:
        told = evaluate_folder(session, folder / "known", unknown=folder / "strange").unknown
    assert told is not None
    assert [one.score for one in told.scores] == ["softmax", "energy"]
    assert not any(one.used for one in told.scores)
    assert "was made before bundles kept what known images look like" in told.note


def test_known_images_among_the_unknown_are_warned_of(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "strange", tmp_path / "mixed")
    shutil.copy(folder / "known" / LABELS[0] / "0.png", tmp_path / "mixed" / "0.jpg")
    progress = Listening()
    with load(folder / "b.edgetl", threads=1) as session:
        told = evaluate_folder(
            session, folder / "known", unknown=tmp_path / "mixed", progress=progress
        ).unknown
    assert told is not None
    assert told.in_set == 1
    assert progress.said == [
        f"Of the 13 images in {tmp_path / 'mixed'}, which should be unknown, 1 are in the known set, too. Take them"
        " out: the scores look worse than they are."
    ]


def test_images_that_the_bundle_was_made_from_are_warned_of(folder: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from edgetl.files import sha256_file

    parts = with_references(contents(tmp_path))
    taught = sorted((folder / "strange").rglob("*.png"))[:4]
    splits = {
        "train": [sha256_file(path) for path in taught[:3]],
        "val": [sha256_file(taught[3])],
        "test": [],
    }
    pack(replace(parts, splits=splits), tmp_path / "b.edgetl")
    progress = Listening()
    with load(tmp_path / "b.edgetl", threads=1) as session:
        told = evaluate_folder(
            session, folder / "known", unknown=folder / "strange", progress=progress
        ).unknown
    assert told is not None
    assert told.made_from == 4
    assert any("4 are images that the bundle was made from." in text for text in progress.said)


def test_bad_images_are_refused_or_skipped(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "strange", tmp_path / "mixed")
    (tmp_path / "mixed" / "broken.png").write_bytes(b"no picture")
    with load(folder / "b.edgetl", threads=1) as session:
        with pytest.raises(DataError, match="1 of 13 images cannot be used"):
            evaluate_folder(session, folder / "known", unknown=tmp_path / "mixed")
        told = evaluate_folder(
            session, folder / "known", unknown=tmp_path / "mixed", bad_images=BadImages.SKIP
        ).unknown
    assert told is not None
    assert told.images == 12
    assert [name for name, _ in told.skipped] == ["broken.png"]


def test_an_empty_folder_no_folder_and_boxes_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with load(folder / "b.edgetl", threads=1) as session:
        with pytest.raises(DataError, match=r"^The folder .*empty holds no images\.$"):
            evaluate_folder(session, folder / "known", unknown=tmp_path / "empty")
        with pytest.raises(
            DataError, match=r"^There is no folder at .*nowhere; --unknown names one with images"
        ):
            evaluate_folder(session, folder / "known", unknown=tmp_path / "nowhere")
    with (
        load(write_bundle(tmp_path / "boxes.edgetl"), threads=1) as session,
        pytest.raises(ConfigError, match=r"^unknown: the bundle is of the task detection"),
    ):
        evaluate_folder(session, folder / "known", unknown=folder / "strange")
