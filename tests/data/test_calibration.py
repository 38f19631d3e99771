from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgetl.config import DataConfig
from edgetl.data import calibration
from edgetl.data.calibration import CalibrationSet, batches, draw, load, save, save_portable
from edgetl.data.index import DataIndex, build_index
from edgetl.errors import DataError, ImageError
from edgetl.files import sha256_file
from edgetl.inputs.image import PreprocessSpec, load_batch
from tests.data.images import Recorder, Settings, fill

DEMO = Path(__file__).parents[2] / "calibration"
SPEC = PreprocessSpec(size=16)


@pytest.fixture
def index(tmp_path: Path) -> DataIndex:
    folders = {"train/a": 12, "train/b": 3, "train/c": 9, "val/a": 2, "test/a": 2}
    return build_index(Settings(source=str(fill(tmp_path / "set", folders))))


def test_drawn_evenly_from_train_alone(index: DataIndex) -> None:
    drawn = draw(index, images=12, seed=0)
    assert Counter(image.label for image in drawn.samples) == {"a": 5, "b": 3, "c": 4} or Counter(
        image.label for image in drawn.samples
    ) == {"a": 4, "b": 3, "c": 5}
    train = {sample.sha256 for sample in index.split("train")}
    assert {image.sha256 for image in drawn.samples} <= train
    assert (drawn.seed, drawn.requested, drawn.index_sha256) == (0, 12, index.sha256)


def test_draw_is_decided_by_seed_and_content(index: DataIndex, tmp_path: Path) -> None:
    assert draw(index, 8, 0) == draw(index, 8, 0)
    assert draw(index, 8, 0).samples != draw(index, 8, 1).samples
    shutil.copytree(index.root, tmp_path / "moved")
    moved = draw(build_index(Settings(source=str(tmp_path / "moved"))), 8, 0)
    assert [image.sha256 for image in moved.samples] == [image.sha256 for image in draw(index, 8, 0).samples]


def test_copies_count_once_and_a_small_train_is_said(index: DataIndex) -> None:
    copy = index.root / "train" / "a" / "copy.png"
    shutil.copy(index.root / "train" / "a" / "000.png", copy)
    recorder = Recorder()
    drawn = draw(build_index(Settings(source=str(index.root))), 100, 0, progress=recorder)
    assert len(drawn.samples) == len({image.sha256 for image in drawn.samples})
    assert recorder.warnings == [
        f"Calibrating on all {len(drawn.samples)} training images; 100 were asked for."
    ]
    assert drawn.requested == 100


def test_half_is_drawn_from_images_of_another_domain_and_no_content_comes_twice(
    index: DataIndex, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "other", {"train/x": 5, "train/y": 5, "val/x": 1}, start=100)
    others = build_index(Settings(source=str(folder))).split("train")[:7]
    both = DataIndex(tmp_path, (), (*others, *index.split("train")))
    drawn = draw(index, images=12, seed=0, unlabelled=both)
    assert Counter(image.label == "" for image in drawn.samples) == {True: 6, False: 6}
    assert {image.sha256 for image in drawn.samples if not image.label} <= {
        sample.sha256 for sample in others
    }
    assert len({image.sha256 for image in drawn.samples}) == 12
    said = Recorder()
    assert len(draw(index, images=60, seed=0, unlabelled=both, progress=said).samples) == 24 + 7
    assert said.warnings == [
        "Calibrating on all 24 training images and 7 of the 7 of adapt.images; 60 were asked for."
    ]
    save(drawn, tmp_path / "set.json")
    assert "those without a label likewise" in (tmp_path / "set.json").read_text()


def test_draws_that_are_refused(index: DataIndex) -> None:
    empty = replace(index, samples=index.split("test"))
    with pytest.raises(DataError, match="has no training images to calibrate on"):
        draw(empty, 8, 0)
    with pytest.raises(DataError, match="of 0 images was asked for; it needs at least one"):
        draw(index, 0, 0)


def test_batches_are_preprocessed_images(index: DataIndex) -> None:
    drawn = draw(index, 7, 0)
    got = list(batches(drawn, SPEC, 3, threads=2))
    assert [batch.shape for batch in got] == [(3, 3, 16, 16), (3, 3, 16, 16), (1, 3, 16, 16)]
    assert got[0].dtype == np.float32
    assert np.array_equal(np.concatenate(got), load_batch([image.path for image in drawn.samples], SPEC))
    with pytest.raises(DataError, match="The calibration set is empty"):
        next(batches(replace(drawn, samples=()), SPEC, 3))
    drawn.samples[0].path.unlink()
    with pytest.raises(ImageError, match="there is no such file"):
        next(batches(drawn, SPEC, 3))


# --- the manifest -------------------------------------------------------------------------------------------


@pytest.fixture
def saved(index: DataIndex, tmp_path: Path) -> tuple[CalibrationSet, Path]:
    drawn = draw(index, 6, 0)
    path = tmp_path / "run" / "calibration.json"
    save(drawn, path, root=index.root)
    return drawn, path


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_manifest_both_ways(saved: tuple[CalibrationSet, Path], index: DataIndex) -> None:
    drawn, path = saved
    assert load(path, root=index.root) == drawn
    manifest = json.loads(path.read_text())
    assert list(manifest) == ["format", "version", "method", "seed", "requested", "index_sha256", "images"]
    assert list(manifest["images"][0]) == ["path", "sha256", "label"]
    assert "train split" in manifest["method"]


def test_manifest_needs_images_under_its_root(index: DataIndex, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not under .*run; the manifest cannot name it"):
        save(draw(index, 6, 0), tmp_path / "run" / "calibration.json")


def test_altered_and_missing_images(saved: tuple[CalibrationSet, Path], index: DataIndex) -> None:
    drawn, path = saved
    image = drawn.samples[0].path
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(DataError, match=f"{image.name} was altered: its SHA-256 is not the manifest's"):
        load(path, root=index.root)
    image.unlink()
    with pytest.raises(DataError, match=f"{image.name} cannot be read: No such file"):
        load(path, root=index.root)


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/hosts", "C:\\x.png", "..\\x.png", "", "."]
)
def test_paths_that_climb_out(saved: tuple[CalibrationSet, Path], index: DataIndex, name: str) -> None:
    _, path = saved
    change(path, images=[{"path": name, "sha256": "0" * 64, "label": "a"}])
    with pytest.raises(DataError, match="which is not a path inside"):
        load(path, root=index.root)


def test_manifests_that_are_refused(saved: tuple[CalibrationSet, Path], index: DataIndex) -> None:
    _, path = saved
    change(path, version=2)
    with pytest.raises(DataError, match=r"version 2; this edgetl reads 'edgetl-calibration' up to version 1"):
        load(path, root=index.root)
    change(path, version=1, images=[])
    with pytest.raises(DataError, match="lists no images"):
        load(path, root=index.root)
    for text in ("", "[]", '{"format": 1}'):
        path.write_text(text)
        with pytest.raises(DataError, match="is not a calibration manifest that can be read"):
            load(path, root=index.root)
    with pytest.raises(DataError, match="is not a calibration manifest"):
        load(path.with_name("gone.json"))


def test_portable_copy(saved: tuple[CalibrationSet, Path], tmp_path: Path) -> None:
    drawn, _ = saved
    portable = save_portable(drawn, tmp_path / "out" / "set.json")
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    loaded = load(tmp_path / "elsewhere" / "set.json")
    assert [image.sha256 for image in loaded.samples] == [image.sha256 for image in drawn.samples]
    assert {image.path.parent for image in loaded.samples} == {tmp_path / "elsewhere" / "set"}
    assert len(portable.samples) == 6


def test_portable_copies_of_names_that_two_images_share_stay_apart(
    saved: tuple[CalibrationSet, Path], tmp_path: Path
) -> None:
    drawn, _ = saved
    first, second, third = drawn.samples[:3]
    upper = tmp_path / "upper" / first.path.name.upper()
    upper.parent.mkdir()
    shutil.copy(second.path, upper)
    images = (
        replace(first, label="a/../.."),
        replace(second, label="a/../..", path=upper),
        replace(third, label="A\\..\\.."),
    )
    portable = save_portable(replace(drawn, samples=images), tmp_path / "out" / "set.json")
    assert {image.path.parent for image in portable.samples} == {tmp_path / "out" / "set"}
    assert len({image.path.name.casefold() for image in portable.samples}) == 3
    assert [image.sha256 for image in load(tmp_path / "out" / "set.json").samples] == [
        i.sha256 for i in images
    ]


# --- the demo's set -----------------------------------------------------------------------------------------


def test_demo_set_is_what_the_digits_give(tmp_path: Path) -> None:
    index = build_index(DataConfig(source="digits"), seed=0)
    save_portable(draw(index, images=100, seed=0), tmp_path / "digits.json")
    assert (DEMO / "digits.json").read_text() == (tmp_path / "digits.json").read_text()

    def contents(folder: Path) -> dict[str, str]:
        return {path.name: sha256_file(path) for path in folder.iterdir()}

    ours = contents(DEMO / "digits")
    assert len(ours) == 100
    assert ours == contents(tmp_path / "digits")


def test_demo_set_is_sound() -> None:
    demo = load(DEMO / "digits.json")
    assert Counter(image.label for image in demo.samples) == dict.fromkeys("0123456789", 10)
    index = build_index(DataConfig(source="digits"), seed=0)
    elsewhere = {sample.sha256 for sample in (*index.split("val"), *index.split("test"))}
    assert not elsewhere & {image.sha256 for image in demo.samples}
    assert next(batches(demo, SPEC, 100)).shape == (100, 3, 16, 16)


def test_page_documents_every_key() -> None:
    page = (DEMO / "README.md").read_text(encoding="utf-8")
    for key in json.loads((DEMO / "digits.json").read_text()):
        assert f"`{key}`" in page
    assert calibration.FORMAT in page
