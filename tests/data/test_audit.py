from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.data import audit as audits
from edgetl.data.audit import OddSize, audit
from edgetl.data.index import DataIndex, build_index
from edgetl.progress import SILENT
from tests.data.images import Settings, fill, write


def build(root: Path, bad_images: str = "refuse") -> DataIndex:
    return build_index(Settings(source=str(root), bad_images=bad_images), progress=SILENT)


def sound(root: Path) -> Path:
    fill(root, {f"train/{label}": 32 for label in "ab"})
    return fill(root, {f"{split}/{label}": 3 for split in ("val", "test") for label in "ab"}, start=100)


def test_sound_set_has_no_problems(tmp_path: Path) -> None:
    report = audit(build(sound(tmp_path)))
    assert report.problems() == ()
    assert report.images == 76
    assert report.counts["train"] == {"a": 32, "b": 32}
    assert report.imbalance == 1.0
    assert report.median_size == (8, 8)


def test_equal_files(tmp_path: Path) -> None:
    sound(tmp_path)
    original = tmp_path / "train" / "a" / "000.png"
    shutil.copy(original, tmp_path / "train" / "a" / "same.png")
    shutil.copy(original, tmp_path / "test" / "b" / "leak.png")
    report = audit(build(tmp_path))
    group = ("train/a/000.png", "train/a/same.png", "test/b/leak.png")
    assert report.duplicates == report.leaks == report.conflicts == (group,)
    assert report.near_duplicates == ()
    assert report.problems() == (
        "1 images are in more than one split; remove them from all but one.",
        "1 images stand under more than one label; keep the right one.",
        "2 files are copies of others; they count twice.",
    )


def test_near_duplicates_across_splits(tmp_path: Path) -> None:
    sound(tmp_path)
    rng = np.random.default_rng(5)
    picture = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(
        (64, 64), Image.Resampling.BICUBIC
    )
    picture.save(tmp_path / "train" / "a" / "original.png")
    picture.resize((50, 50)).save(tmp_path / "test" / "a" / "smaller.jpg", quality=60)
    picture.save(tmp_path / "train" / "a" / "not across splits.jpg")
    report = audit(build(tmp_path))
    [pair] = report.near_duplicates
    assert pair.second == "test/a/smaller.jpg"
    assert pair.first in ("train/a/original.png", "train/a/not across splits.jpg")
    assert audits.NEAR <= pair.correlation <= 1.0001
    assert report.problems()[0].startswith("1 images of val and test have a near-copy in another split")


def test_plain_images_of_other_brightness_are_not_near(tmp_path: Path) -> None:
    sound(tmp_path)
    for name, level in (("train/a/dark.png", 10), ("test/a/light.png", 240)):
        Image.new("L", (32, 32), level).save(tmp_path / name)
    assert audit(build(tmp_path)).near_duplicates == ()


def test_imbalance_and_tiny_classes_and_skipped(tmp_path: Path) -> None:
    sound(tmp_path)
    fill(tmp_path, {"train/rare": 2}, start=300)
    (tmp_path / "train" / "a" / "bad.png").write_bytes(b"")
    report = audit(build(tmp_path, bad_images="skip"))
    assert report.tiny_classes == (("rare", 2),)
    assert report.imbalance == 16.0
    problems = "\n".join(report.problems())
    assert "1 images cannot be read" in problems
    assert "The largest class has 16.0 times the training images of the smallest" in problems
    assert "1 classes have fewer than 20 training images (rare)" in problems


def test_odd_sizes_are_those_of_the_file(tmp_path: Path) -> None:
    sound(tmp_path)
    write(tmp_path / "train" / "a" / "huge.png", 400, side=200)
    Image.new("RGB", (8, 90), "red").save(tmp_path / "train" / "b" / "strip.jpg")
    report = audit(build(tmp_path))
    assert report.odd_sizes == (
        OddSize(path="train/a/huge.png", width=200, height=200),
        OddSize(path="train/b/strip.jpg", width=8, height=90),
    )
    assert report.problems() == (
        "2 images are far from the usual size of 8x8 pixels; look whether they belong here.",
    )


def test_another_exposure_is_a_near_copy_and_another_scene_is_not(tmp_path: Path) -> None:
    sound(tmp_path)
    rng = np.random.default_rng(6)
    scenes = [
        Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8)).resize((80, 60)) for _ in range(2)
    ]
    scenes[0].save(tmp_path / "train" / "a" / "bright.png")
    scenes[0].point(lambda level: level * 0.4 + 30).save(tmp_path / "test" / "a" / "dark.png")
    scenes[1].save(tmp_path / "test" / "a" / "other.png")
    [pair] = audit(build(tmp_path)).near_duplicates
    assert (pair.first, pair.second) == ("train/a/bright.png", "test/a/dark.png")


def test_near_copies_are_found_across_any_parts(tmp_path: Path) -> None:
    index = build(sound(tmp_path))
    samples = list(index.samples[:4])
    with Image.open(samples[1].path) as image:
        copy = image.point(lambda level: level * 0.6 + 9)
    copy.save(tmp_path / "copy.png")
    samples.append(dataclasses.replace(samples[1], path=tmp_path / "copy.png", sha256="f" * 64))
    parts, everyone = [0, 0, 1, 1, 1], range(5)
    assert audits.near_copies(samples, parts, everyone) == ((4, 1), (1, 4))
    assert audits.near_copies(samples, parts, [4, 0]) == ((1, 4),)
    assert audits.near_copies(samples, [0, 1, 0, 1, 1], everyone) == ()


def test_blocks_give_the_same_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path)
    for split in ("train", "val", "test"):
        buffer = io.BytesIO()
        Image.open(tmp_path / "train" / "b" / "001.png").resize((40, 40)).save(
            buffer, "JPEG", quality=80 + len(split)
        )
        (tmp_path / split / "b" / f"{split}.jpg").write_bytes(buffer.getvalue())
    index = build(tmp_path)
    whole = audit(index).near_duplicates
    assert [(pair.first, pair.second) for pair in whole] == [
        ("train/b/train.jpg", "val/b/val.jpg"),
        ("train/b/train.jpg", "test/b/test.jpg"),
    ]
    monkeypatch.setattr(audits, "_BLOCK", 7)
    assert audit(index).near_duplicates == whole


def test_ruling_pairs_out_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    thumbs = random.normal(size=(500, 256)) * np.linspace(1, 0.01, 256) ** 2
    thumbs[:100] = thumbs[200:300] + random.normal(size=(100, 256)) * random.uniform(0, 0.2, (100, 1))
    thumbs -= thumbs.mean(axis=1, keepdims=True)
    thumbs /= np.linalg.norm(thumbs, axis=1, keepdims=True)
    look = audits._Look(np.ones((500, 2), np.int64), thumbs.astype(np.float32))
    ours, others, contents = np.arange(200), np.arange(200, 500), np.arange(500)
    found = {}
    monkeypatch.setattr(audits, "_WORTH_IT", 0)
    for share in (-1.0, 1.0):  # compare all pairs, and only those that are possible
        monkeypatch.setattr(audits, "_MANY_POSSIBLE", share)
        found[share] = list(audits._near(look, contents, ours, others))
    assert [pair[:2] for pair in found[1.0]] == [pair[:2] for pair in found[-1.0]]
    assert 20 < len(found[1.0]) < 100
