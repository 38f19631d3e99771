from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from edgetl.config import DataConfig
from edgetl.data import index as indexes
from edgetl.data.index import DataIndex, build_index, sort_labels
from edgetl.errors import DataError, StorageError
from edgetl.files import sha256_file
from tests.data.images import Recorder, Settings, fill, write

SPLIT_SET = {"train/a": 6, "train/b": 6, "val/a": 2, "val/b": 2, "test/a": 3, "test/b": 3}


def build(root: Path, **settings: object) -> DataIndex:
    return build_index(Settings(source=str(root), **settings), seed=0)  # type: ignore[arg-type]


def refusal(root: Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        build(root, **settings)
    return str(caught.value)


def test_given_splits_are_kept(tmp_path: Path) -> None:
    index = build(fill(tmp_path, SPLIT_SET))
    assert index.labels == ("a", "b")
    assert index.counts() == {"train": {"a": 6, "b": 6}, "val": {"a": 2, "b": 2}, "test": {"a": 3, "b": 3}}
    first = index.samples[0]
    assert first.path == tmp_path / "train" / "a" / "000.png"
    assert first.path.is_absolute()
    assert (first.label, first.split, first.sha256) == (0, "train", sha256_file(first.path))
    assert [sample.split for sample in index.split("val")] == ["val"] * 4


def test_config_of_a_recipe_is_taken(tmp_path: Path) -> None:
    fill(tmp_path, SPLIT_SET)
    assert build_index(DataConfig(source=str(tmp_path)), seed=3) == build(tmp_path)


@pytest.mark.parametrize("given", [("train", "test"), ("train", "val"), ("train",)])
def test_splits_that_lack_are_taken_from_train(tmp_path: Path, given: tuple[str, ...]) -> None:
    fill(tmp_path, {f"{split}/{label}": 8 for split in given for label in "ab"})
    index = build(tmp_path)
    for split, counts in index.counts().items():
        assert all(counts.values())
        if split in given and split != "train":
            assert counts == {"a": 8, "b": 8}
    folders = {(sample.path.relative_to(tmp_path).parts[0], sample.split) for sample in index.samples}
    assert {folder for folder, split in folders if folder != split} == {"train"}


def test_flat_set_stays_split_when_files_are_added(tmp_path: Path) -> None:
    before = {sample.path: sample.split for sample in build(fill(tmp_path, {"a": 40, "b": 40})).samples}
    assert set(before.values()) == {"train", "val", "test"}
    for number in range(1000, 1010):
        write(tmp_path / "a" / f"{number}.png", number)
    fill(tmp_path, {"c": 10}, start=2000)
    after = {sample.path: sample.split for sample in build(tmp_path).samples}
    assert len(after) == 100
    assert before == {path: after[path] for path in before}


def test_renamed_copies_are_on_one_side(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 20, "b": 20})
    for path in list((tmp_path / "a").iterdir()):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    index = build(tmp_path)
    assert len(index.samples) == 60
    where = {(sample.sha256, sample.split) for sample in index.samples}
    assert len(where) == len({sha for sha, _ in where})


def test_seed_does_not_move_images(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 20, "b": 20})
    settings = Settings(source=str(tmp_path))
    assert build_index(settings, seed=1) == build_index(settings, seed=2)


def test_subset_of_train_is_even_and_seeded(tmp_path: Path) -> None:
    fill(tmp_path, SPLIT_SET | {"train/a": 30})
    small = build(tmp_path, max_train_images=9)
    assert small.counts()["train"] == {"a": 5, "b": 4} or small.counts()["train"] == {"a": 4, "b": 5}
    assert small.counts()["test"] == {"a": 3, "b": 3}
    settings = Settings(source=str(tmp_path), max_train_images=9)
    assert build_index(settings, seed=1).samples != build_index(settings, seed=2).samples
    assert build(tmp_path, max_train_images=10_000) == build(tmp_path)


def test_a_validation_split_taken_from_train_shrinks_with_the_subset(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 60, "train/b": 60, "test/a": 3, "test/b": 3})
    whole, small = build(tmp_path).counts(), build(tmp_path, max_train_images=20).counts()
    share = sum(whole["val"].values()) / sum(whole["train"].values())
    assert sum(small["train"].values()) == 20
    assert sum(small["val"].values()) == max(2, round(share * 20))
    assert small["test"] == whole["test"]


def test_hash_follows_content_and_not_the_place(tmp_path: Path) -> None:
    fill(tmp_path / "one", SPLIT_SET)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = build(tmp_path / "one"), build(tmp_path / "two")
    assert one.sha256 == two.sha256
    write(tmp_path / "two" / "train" / "a" / "000.png", 999)
    assert build(tmp_path / "two").sha256 != one.sha256


def test_saved_and_loaded(tmp_path: Path) -> None:
    fill(tmp_path / "Bilder é", SPLIT_SET)
    (tmp_path / "Bilder é" / "train" / "a" / "bad.png").write_bytes(b"")
    index = build(tmp_path / "Bilder é", bad_images="skip")
    index.save(tmp_path / "index.json")
    assert indexes.load(tmp_path / "index.json") == index
    assert len((tmp_path / "index.json").read_text(encoding="utf-8").splitlines()) == len(index.samples) + 2


def test_index_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    index = build(fill(tmp_path / "set", SPLIT_SET))
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="Cannot write"):
        index.save(tmp_path / "file" / "index.json")
    for text in ("", "{}", "[]", '{"root": "/", "labels": [], "skipped": [], "samples": [[1]]}'):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(DataError, match=r"broken\.json is not an index that can be read"):
            indexes.load(tmp_path / "broken.json")
    with pytest.raises(DataError, match="is not an index"):
        indexes.load(tmp_path / "gone.json")


def test_csv_with_and_without_splits(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", {"x": 12})
    lines = [f"pictures/x/{n:03d}.png,{'ab'[n % 2]},{('train', 'train', 'test')[n // 4]}" for n in range(12)]
    (tmp_path / "set.csv").write_text("path,label,split\n" + "\n".join(lines))
    index = build(tmp_path / "set.csv")
    assert index.root == tmp_path
    assert index.counts()["test"] == {"a": 2, "b": 2}
    assert sum(index.counts()["val"].values()) >= 2
    (tmp_path / "set.csv").write_text("path,label\n" + "\n".join(line.rpartition(",")[0] for line in lines))
    assert all(all(counts.values()) for counts in build(tmp_path / "set.csv").counts().values())


# --- bad images ---------------------------------------------------------------------------------------------


def spoil(root: Path) -> None:
    good = (root / "train" / "a" / "000.png").read_bytes()
    folder = root / "train" / "b"
    (folder / "zero.png").write_bytes(b"")
    (folder / "short.png").write_bytes(good[: len(good) // 2])
    (folder / "text.jpg").write_text("not an image")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")


def test_bad_images_are_refused_all_at_once(tmp_path: Path) -> None:
    spoil(fill(tmp_path, SPLIT_SET))
    folder = tmp_path / "train" / "b"
    # Pillow words it by where the file was cut.
    found = refusal(tmp_path).replace(" (0 bytes not processed)", "")
    assert found.splitlines() == [
        f"4 of 26 images in {tmp_path} cannot be used:",
        f"  {folder / 'dot.png'}: is 1x1 pixels; at least 4x4 are needed.",
        f"  {folder / 'short.png'}: is truncated (image file is truncated).",
        f"  {folder / 'text.jpg'}: is not an image that can be read, or its start is corrupt.",
        f"  {folder / 'zero.png'}: the file is empty.",
        'Mend or remove them, or leave them out with data.bad_images = "skip".',
    ]


def test_bad_images_are_skipped_with_their_reasons(tmp_path: Path) -> None:
    spoil(fill(tmp_path, SPLIT_SET))
    recorder = Recorder()
    index = build_index(Settings(source=str(tmp_path), bad_images="skip"), progress=recorder)
    assert index.counts()["train"] == {"a": 6, "b": 6}
    assert [path for path, _ in index.skipped] == [
        f"train/b/{name}" for name in ("dot.png", "short.png", "text.jpg", "zero.png")
    ]
    assert recorder.warnings == [
        f"4 of 26 images in {tmp_path} cannot be used and are skipped, e.g. {tmp_path / 'train/b/dot.png'}: is 1x1"
        " pixels; at least 4x4 are needed."
    ]
    assert recorder.steps == 26


def test_only_ten_bad_images_are_named(tmp_path: Path) -> None:
    fill(tmp_path, SPLIT_SET)
    for number in range(13):
        (tmp_path / "train" / "a" / f"x{number}.png").write_bytes(b"")
    lines = refusal(tmp_path).splitlines()
    assert lines[0].startswith("13 of 35 images")
    assert len(lines) == 1 + 10 + 1 + 1
    assert lines[-2] == "  and 3 more"


def test_missing_files_of_a_csv_are_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 1})
    (tmp_path / "set.csv").write_text("path,label\na/000.png,a\ngone.png,b\n")
    message = refusal(tmp_path / "set.csv")
    assert "1 of 2 images in" in message
    assert f"{tmp_path / 'gone.png'}: there is no such file." in message


# --- labels -------------------------------------------------------------------------------------------------


def test_labels_in_order() -> None:
    assert sort_labels(["10", "9", "1"]) == ("1", "9", "10")
    assert sort_labels(["b10", "b9", "A"]) == ("A", "b10", "b9")


def test_one_class(tmp_path: Path) -> None:
    fill(tmp_path, {"only": 3})
    assert refusal(tmp_path) == (f"{tmp_path} holds one class only (only); a classifier needs at least two.")


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"")
    assert refusal(tmp_path, bad_images="skip") == (
        f"1 of 1 images in {tmp_path} cannot be used:\n  {tmp_path / 'a/1.png'}: the file is empty."
    )


def test_too_few_images_for_a_validation_split(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 1, "b": 1})
    assert "has too few images for a validation split: 2 training images of 2 classes" in refusal(tmp_path)
    assert "to the class a" in refusal(tmp_path)


def test_a_class_whose_images_all_go_elsewhere(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 30, "b": 1})
    lines = [f"a/{n:03d}.png,a,group {n % 9}" for n in range(30)] + ["b/000.png,b,group 1"]
    said = []
    for group in range(9):
        lines[-1] = f"b/000.png,b,group {group}"
        (tmp_path / "t.csv").write_text("\n".join(["path,label,group", *lines]))
        try:
            build_index(Settings(source=str(tmp_path / "t.csv")))
        except DataError as error:
            said.append(str(error))
    assert 0 < len(said) < 9
    assert all("classes without training images" in text for text in said)
    assert all("b: all its images went to validation or test" in text for text in said)


def test_fewer_training_images_than_classes(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 5, "b": 5, "c": 5})
    with pytest.raises(
        DataError, match=r"max_train_images = 2 leaves 1 of 3 classes without training images"
    ):
        build_index(Settings(source=str(tmp_path), max_train_images=2))


def test_a_name_that_is_not_utf8_is_indexed_and_read_back(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 4, "b": 4})
    (tmp_path / "set" / "a" / "000.png").rename(tmp_path / "set" / "a" / os.fsdecode(b"caf\xe9.png"))
    index = build_index(Settings(source=str(tmp_path / "set")))
    index.save(tmp_path / "index.json")
    again = indexes.load(tmp_path / "index.json")
    assert again == index
    assert all(sample.path.exists() for sample in again.samples)


def test_pipes_are_not_read(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 4, "b": 4})
    os.mkfifo(tmp_path / "pipe.png")
    rows = [f"{label}/{n:03d}.png,{label}" for label in "ab" for n in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows, "pipe.png,a"]))
    assert "pipe.png: is a pipe or device, not a file." in refusal(tmp_path / "t.csv")


def test_a_thousand_classes_take_no_time_by_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter()  # type: ignore[var-annotated]
    closest = indexes.closest

    def counted(*arguments: object) -> object:
        calls["closest"] += 1
        return closest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(indexes, "closest", counted)
    fill(tmp_path, {f"c{n:04d}": 1 for n in range(0, 400)} | {"d": 2})
    assert len(build_index(Settings(source=str(tmp_path))).labels) == 401
    assert calls["closest"] <= 10


def test_class_that_train_lacks(tmp_path: Path) -> None:
    fill(tmp_path, SPLIT_SET | {"test/bb": 1, "val/bb": 2, "test/zebra": 1})
    fill(tmp_path, {"train/bbb": 3}, start=500)
    assert refusal(tmp_path).splitlines() == [
        f"{tmp_path} has classes that cannot be learned:",
        "  bb: 3 images in val and test, none in train. Did you mean bbb?",
        "  zebra: 1 images in test, none in train.",
    ]


def test_lonely_label_that_looks_like_another_is_pointed_out(tmp_path: Path) -> None:
    fill(tmp_path, {"dandelion": 5, "dandelon": 1, "rose": 5})
    recorder = Recorder()
    index = build_index(Settings(source=str(tmp_path)), progress=recorder)
    assert index.labels == ("dandelion", "dandelon", "rose")
    assert recorder.warnings == [
        "The label dandelon has one image and looks like dandelion. Is it a typing error?"
    ]


def test_copies_across_splits_and_labels_are_pointed_out(tmp_path: Path) -> None:
    fill(tmp_path, SPLIT_SET)
    shutil.copy(tmp_path / "train" / "a" / "000.png", tmp_path / "test" / "b" / "copy.png")
    recorder = Recorder()
    build_index(Settings(source=str(tmp_path)), progress=recorder)
    assert recorder.warnings == [
        "1 images are in more than one split; scores on them say nothing.",
        "1 images stand under more than one label.",
    ]


def test_real_set(real_set) -> None:  # type: ignore[no-untyped-def]
    index = build(real_set("flowers12"))
    assert len(index.labels) == 12
    assert len(index.split("test")) == 240
    assert sum(sum(counts.values()) for counts in index.counts().values()) == 960


def test_a_group_comes_into_one_split_and_is_kept(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 40, "b": 40})
    rows = [f"{label}/{n:03}.png,{label},part {n // 4}" for label in "ab" for n in range(40)]
    listed = tmp_path / "set.csv"
    listed.write_text("\n".join(["path,label,group", *rows]))
    index = build_index(Settings(source=str(listed)), seed=0)
    where = {(s.group, s.split) for s in index.samples}
    assert len(where) == len({group for group, _ in where}) == 10
    assert {split for _, split in where} == {"train", "val", "test"}
    index.save(tmp_path / "index.json")
    assert indexes.load(tmp_path / "index.json") == index
