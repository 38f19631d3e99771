"""What `edgetl init` chooses, and why."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl import config
from edgetl.data import suggest as suggestions
from edgetl.data.boxes.entries import Marked, Object
from edgetl.data.depth import Depth
from edgetl.data.index import DataIndex, Sample, build_index
from edgetl.data.splits import assign
from edgetl.data.suggest import (
    BATCH_SIZES,
    Look,
    batch_size,
    default_name,
    look,
    suggest,
    suggest_detector,
)
from edgetl.tasks.base import Detection
from tests.images import write_set
from tests.metadata_files import png_chunk

ORDINARY = Look(
    train_images=600,
    val_images=100,
    classes=12,
    median_side=224,
    median_aspect=1.0,
    grey_share=0.0,
    smallest_class=45,
    largest_class=55,
    smallest_val_class=8,
)


def _chosen(**changes: object) -> dict[str, object]:
    from dataclasses import replace

    return {s.key: s.value for s in suggest(replace(ORDINARY, **changes))}


def test_ordinary_photographs_keep_the_defaults() -> None:
    assert _chosen() == {}


@pytest.mark.parametrize("side", [8, 32])
def test_small_images_get_a_small_input_and_no_crop(side: int) -> None:
    assert _chosen(median_side=side) == {"preprocess.size": 64, "preprocess.crop_fraction": 1.0}


def test_marks_on_grey_parts_are_not_blurred() -> None:
    assert _chosen(median_side=257, grey_share=1.0)["preprocess.size"] == 224
    assert "preprocess.size" not in _chosen(median_side=150, grey_share=1.0)
    assert "preprocess.size" not in _chosen(median_side=257, grey_share=0.5)


def test_few_photographs_are_shown_as_sharp_as_in_pretraining() -> None:
    found = _chosen(train_images=200)
    assert (found["preprocess.size"], found["distill.size"]) == (224, 160)
    for changes in ({"train_images": 251}, {"median_side": 160}, {"grey_share": 1.0}):
        assert "distill.size" not in _chosen(**{"train_images": 200, **changes})


def test_small_grey_images_are_not_flipped() -> None:
    chosen = _chosen(median_side=8, grey_share=1.0)
    assert (chosen["train.augment"], chosen["distill.augment"]) == ("crop", "crop")


def test_many_images_need_fewer_epochs() -> None:
    chosen = {"train.epochs": 4, "prune.recovery_epochs": 1, "distill.epochs": 10}
    assert _chosen(train_images=1306) == chosen


def test_oblong_images_are_squashed_but_for_photographs_of_mixed_shapes() -> None:
    assert _chosen(median_aspect=1.5) == {"preprocess.resize": "squash"}
    assert _chosen(median_aspect=1.5, mixed_share=0.1) == {"preprocess.resize": "squash"}
    assert _chosen(median_aspect=1.5, mixed_share=0.6) == {}
    assert _chosen(median_aspect=1.5, mixed_share=0.6, grey_share=1.0)["preprocess.resize"] == "squash"


def test_imbalance_asks_for_balance_and_macro_f1() -> None:
    chosen = _chosen(smallest_class=18, largest_class=613, smallest_val_class=20)
    assert chosen == {"train.imbalance": "sampling", "bundle.metric": "macro_f1"}


def test_a_small_validation_split_gets_a_floor_that_bears_two_images() -> None:
    assert _chosen(val_images=40) == {"bundle.max_drop": 0.05}
    rare = _chosen(smallest_class=18, largest_class=613, smallest_val_class=3)
    assert rare["bundle.max_drop"] == 0.06


def test_what_is_chosen_makes_a_recipe() -> None:
    odd = Look(
        train_images=900,
        val_images=196,
        classes=6,
        median_side=257,
        median_aspect=1.4,
        grey_share=1.0,
        smallest_class=18,
        largest_class=613,
        smallest_val_class=6,
    )
    values: dict[str, dict[str, object]] = {}
    for item in suggest(odd):
        section, _, key = item.key.partition(".")
        values.setdefault(section, {})[key] = item.value
        assert item.reason
    recipe = config.parse(values)
    text = config.commented(recipe, {s.key: s.reason for s in suggest(odd)})
    assert "# Chosen: the sides differ (1.4 to 1)" in text


def _index(tmp_path: Path, counts: tuple[int, ...]) -> DataIndex | None:
    """An index of so many images per class, split as the data stage does; one small file plays them all."""
    picture = tmp_path / "x.png"
    if not picture.exists():
        Image.new("RGB", (8, 8), "red").save(picture)
    contents = [(f"{label}-{at}", str(label)) for label, count in enumerate(counts) for at in range(count)]
    splits = assign(contents, val_fraction=0.15, test_fraction=0.15)
    samples = tuple(Sample(picture, int(label), splits[sha256], sha256) for sha256, label in contents)
    labels = tuple(str(label) for label in range(len(counts)))
    return DataIndex(tmp_path, labels, samples) if any(s.split == "val" for s in samples) else None


def test_whatever_the_number_of_images_the_settings_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suggestions, "_SAMPLE", 1)
    sizes = (1, 2, 3, 4, 7, 10, 60, 200)
    tried = 0
    for counts in ((a, b, *more) for a in sizes for b in sizes for more in ((), (1,), (5, 5), (40,) * 6)):
        index = _index(tmp_path, counts)
        if index is None:
            assert set(counts) == {1}
            continue
        values: dict[str, dict[str, object]] = {}
        for item in suggest(look(index)):
            section, _, key = item.key.partition(".")
            values.setdefault(section, {})[key] = item.value
        recipe = config.parse(values)
        assert 0.02 <= recipe.bundle.max_drop <= 0.5
        tried += 1
    assert tried > 200


@pytest.mark.parametrize(
    ("counts", "drop"), [((2, 2), 0.5), ((300, 10), 0.5), ((60, 4), 0.5), ((1, 2), 0.5), ((35, 35), 0.4)]
)
def test_few_images_get_a_bounded_floor(tmp_path: Path, counts: tuple[int, ...], drop: float) -> None:
    index = _index(tmp_path, counts)
    assert index is not None
    chosen = {item.key: item for item in suggest(look(index))}
    assert chosen["bundle.max_drop"].value <= drop
    if chosen["bundle.max_drop"].value == 0.5:
        assert "add validation images" in chosen["bundle.max_drop"].reason


@pytest.mark.parametrize(
    ("images", "expected"), [(600, (32, 19)), (250, (32, 8)), (200, (16, 13)), (49, (8, 7)), (1, (8, 1))]
)
def test_short_epochs_get_a_smaller_batch(images: int, expected: tuple[int, int]) -> None:
    assert batch_size(images) == expected
    wanted = {} if expected[0] == 32 else {"train.batch_size": expected[0]}
    chosen = _chosen(train_images=images)
    assert {key: value for key, value in chosen.items() if key == "train.batch_size"} == wanted


def test_the_default_batch_size_is_the_first_that_is_proposed() -> None:
    assert config.TrainConfig().batch_size == BATCH_SIZES[0]


def test_look_counts_sizes_classes_and_greys(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"train": 6, "val": 2, "test": 2}, side=40)
    grey = root / "train" / "grey"
    grey.mkdir()
    for i in range(6):
        Image.fromarray(np.full((40, 60), 30 * i, np.uint8)).save(grey / f"{i}.png")
    seen = look(build_index(config.DataConfig(source=str(root))))
    assert (seen.train_images, seen.classes, seen.median_side) == (24, 4, 40)
    assert (seen.smallest_class, seen.largest_class) == (6, 6)
    assert seen.grey_share == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("source", "name"),
    [("photos/", "photos"), ("digits", "digits"), ("my photos é.csv", "my-photos"), ("--", "model")],
)
def test_a_run_s_name_is_plain(source: str, name: str) -> None:
    assert default_name(source) == name


def test_a_name_that_is_taken_or_long_is_changed() -> None:
    assert default_name("/b/photos", {"photos"}) == "photos-2"
    assert default_name("/b/photos", {"photos", "photos-2"}) == "photos-3"
    assert default_name("x" * 250) == "x" * 80


def test_metadata_that_is_broken_stops_no_look(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"train": 6, "val": 2, "test": 2}, side=40)
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000)))
    for path in root.glob("train/*/*.png"):
        content = path.read_bytes()
        path.write_bytes(content[:33] + bomb + content[33:])
    assert look(build_index(config.parse({"data": {"source": str(root)}}).data)).median_side == 40


@pytest.mark.parametrize(("side", "size"), [(400, 320), (50, 416), (30, 640), (4, 640)])
def test_a_detectors_input_is_as_large_as_its_objects_ask(side: int, size: int) -> None:
    objects = (Object((0, 0, side, side), "a"),)
    marked = Marked((2000, 1500), objects)
    samples = tuple(Sample(Path(f"{at}.png"), 0, "train", "", marked=marked) for at in range(20))
    index = DataIndex(Path(), ("a",), samples, asked=Detection(labels=("a",)))
    found = {item.key: item for item in suggest_detector(index)}
    assert found["preprocess.size"].value == size
    assert f"{side * size / 2000:.0f} or more pixels" in found["preprocess.size"].reason


@pytest.mark.parametrize(("images", "epochs"), [(40, 60), (205, 31), (1000, 13), (5000, 8), (30000, 4)])
def test_a_detector_sees_neither_too_few_pictures_nor_too_many(images: int, epochs: int) -> None:
    marked = Marked((640, 480), (Object((0, 0, 100, 100), "a"),))
    samples = tuple(Sample(Path(f"{at}.png"), 0, "train", "", marked=marked) for at in range(images))
    index = DataIndex(Path(), ("a",), samples, asked=Detection(labels=("a",)))
    found = {item.key: item.value for item in suggest_detector(index)}
    assert found["train.epochs"] == epochs
    assert found["train.batch_size"] == (8 if images >= 1000 else 4)


def test_a_detector_sees_each_class_often_enough() -> None:
    samples = tuple(
        Sample(
            Path(f"{at}.png"),
            0,
            "train",
            "",
            marked=Marked((640, 480), (Object((0, 0, 100, 100), "abcd"[at % 4]),)),
        )
        for at in range(320)
    )
    index = DataIndex(Path(), tuple("abcd"), samples, asked=Detection(labels=tuple("abcd")))
    (epochs,) = [item for item in suggest_detector(index) if item.key == "train.epochs"]
    assert epochs.value == 48  # of 80 objects; 20 would be enough steps
    assert "show 80 objects of the usual class" in epochs.reason


def test_preprocessing_stands_by_itself(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"train": 4, "val": 2}, side=40)
    index = build_index(config.DataConfig(source=str(root)))
    found = suggestions.suggest_preprocess(look(index), Depth(images=18, deep=18, proposed=(100, 900)))
    assert found == {"size": 64, "crop_fraction": 1.0, "window": (100, 900)}
    assert config.parse({"preprocess": found}).preprocess.window == (100, 900)
