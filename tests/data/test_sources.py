from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.data.sources import Entry, FoundImages, closest, find, listing
from edgetl.errors import DataError
from tests.data.images import Recorder, fill, write


def summary(found: FoundImages) -> list[tuple[str, str, str | None]]:
    return [
        (entry.path.relative_to(found.root).as_posix(), entry.label, entry.split) for entry in found.entries
    ]


def refusal(source: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        find(str(source))
    return str(caught.value)


def test_flat_folder(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 1, "dog": 1})
    assert summary(find(str(tmp_path))) == [("cat/000.png", "cat", None), ("dog/000.png", "dog", None)]


def test_csv_with_groups(tmp_path: Path) -> None:
    found = find(str(csv(tmp_path, "path,label,group\n1.png,cat,tile 7\n2.png,dog,\n")))
    assert [entry.group for entry in found.entries] == ["tile 7", ""]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folder(tmp_path: Path, val: str) -> None:
    fill(tmp_path, {f"{split}/{label}": 1 for split in ("train", val, "TEST") for label in "ab"})
    assert summary(find(str(tmp_path))) == [
        ("train/a/000.png", "a", "train"),
        ("train/b/000.png", "b", "train"),
        (f"{val}/a/000.png", "a", "val"),
        (f"{val}/b/000.png", "b", "val"),
        ("TEST/a/000.png", "a", "test"),
        ("TEST/b/000.png", "b", "test"),
    ]


def test_folder_named_train_that_holds_images_is_a_class(tmp_path: Path) -> None:
    fill(tmp_path, {"train": 1, "bus": 1})
    assert {entry.label for entry in find(str(tmp_path)).entries} == {"train", "bus"}


def test_hidden_files_and_other_files_are_ignored(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 1, "b": 1, ".git": 1})
    write(tmp_path / "a" / ".hidden.png", 7)
    (tmp_path / "a" / "Thumbs.db").write_text("x")
    (tmp_path / "a" / "notes.txt").write_text("x")
    assert len(find(str(tmp_path)).entries) == 2


def test_spaces_and_other_scripts_and_upper_case_endings(tmp_path: Path) -> None:
    write(tmp_path / "mit Lücke" / "猫 1.PNG", 0)
    write(tmp_path / "кот" / "é.png", 1).rename(tmp_path / "кот" / "é.JPEG")
    assert summary(find(str(tmp_path))) == [
        ("mit Lücke/猫 1.PNG", "mit Lücke", None),
        ("кот/é.JPEG", "кот", None),
    ]


def test_labels_are_the_same_however_their_accents_are_stored(tmp_path: Path) -> None:
    fill(tmp_path, {"train/caf\u00e9": 1, "train/b": 1, "test/cafe\u0301": 1})
    assert {entry.label for entry in find(str(tmp_path)).entries} == {"caf\u00e9", "b"}


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 1, "train/b": 1, "train/a/deeper": 1, "extra/a": 1})
    (tmp_path / "train" / "empty").mkdir()
    write(tmp_path / "train" / "loose.png", 9)
    recorder = Recorder()
    assert len(find(str(tmp_path), progress=recorder).entries) == 2
    said = "\n".join(recorder.warnings)
    assert "besides its splits, these folders are not read: extra." in said
    assert "empty holds no images; this class folder is left out." in said
    assert "its 1 subfolders, with 1 images, are not read" in said
    assert "1 images lie next to the class folders and are not read." in said


def test_missing_folder_suggests_a_near_name(tmp_path: Path) -> None:
    (tmp_path / "flowers12").mkdir()
    message = refusal(tmp_path / "flower12")
    assert message == (
        f"There is no folder or CSV at {tmp_path / 'flower12'}. Did you mean {tmp_path / 'flowers12'}?"
    )
    assert "Built-in sets are digits and cifar10." in refusal(tmp_path / "zzz")
    assert f"The folder {tmp_path / 'no'} does not exist either." in refusal(tmp_path / "no" / "zzz")


def test_typo_in_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal("digit") == "There is no folder or CSV at digit. Did you mean digits?"


def test_layouts_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no images; expected CLASS/* or train/CLASS/*" in refusal(tmp_path / "empty")
    write(tmp_path / "loose" / "a.png", 0)
    assert "holds 1 images but no class folders" in refusal(tmp_path / "loose")
    fill(tmp_path / "outer", {"inner/train/a": 1, "inner/train/b": 1})
    assert f"Did you mean {tmp_path / 'outer' / 'inner'}?" in refusal(tmp_path / "outer")
    fill(tmp_path / "wrap", {"inner/a": 1, "inner/b": 1})
    assert f"Did you mean {tmp_path / 'wrap' / 'inner'}?" in refusal(tmp_path / "wrap")
    fill(tmp_path / "untrained", {"val/a": 1, "test/a": 1})
    assert "has test and val but no train folder" in refusal(tmp_path / "untrained")
    fill(tmp_path / "twice", {"train/a": 1, "val/a": 1, "valid/a": 1})
    assert "has two val folders, val and valid; keep one." in refusal(tmp_path / "twice")
    (tmp_path / "notes.txt").write_text("x")
    assert "is a file but not a .csv" in refusal(tmp_path / "notes.txt")


# --- CSV ----------------------------------------------------------------------------------------------------


def csv(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "set.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_csv_with_splits(tmp_path: Path) -> None:
    found = find(
        str(csv(tmp_path, "path,label,split\na/1.png,cat,train\n\nb 2.png,köter,Valid\n/x/3.png,cat,test\n"))
    )
    assert found.entries == (
        Entry(tmp_path / "a" / "1.png", "cat", "train"),
        Entry(tmp_path / "b 2.png", "köter", "val"),
        Entry(Path("/x/3.png"), "cat", "test"),
    )
    assert found.root == Path("/")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_of_spreadsheets(tmp_path: Path, delimiter: str) -> None:
    text = "Label,PATH,note\ncat,a.png,x\n".replace(",", delimiter)
    found = find(str(csv(tmp_path, text, encoding="utf-8-sig")))
    assert found == FoundImages(tmp_path, (Entry(tmp_path / "a.png", "cat", None),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the columns path and label; its first line is empty, expected path,label"),
        ("file,label\n1.png,a\n", "lacks the column path; its first line is file, label,"),
        ("path,label\n", "lists no images."),
        ("path,label,split\n1.png,a,tain\n", "line 2: the split is 'tain'; did you mean train?"),
        ("path,label,split\n1.png,a,zzz\n", "line 2: the split is 'zzz'; expected train, val or test"),
        ("path,label,split\n1.png,a,train\n2.png,b\n", "1 lines have no split while others have one"),
        ("path,label\n1.png,\n", "line 2: the label is empty"),
        ("path,label\n,a\n", "line 2: the path is empty"),
        (
            "path,label\n1.png,a\n./1.png,b\n",
            "line 3: ./1.png was listed before with another label, split or group",
        ),
        ('path,label\n"1.png,a\n', "is not a CSV that can be read"),
    ],
)
def test_csv_refusals(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(csv(tmp_path, text))


def test_csv_that_is_not_utf8(tmp_path: Path) -> None:
    assert "is not UTF-8 text" in refusal(csv(tmp_path, "path,label\nü.png,a\n", encoding="latin-1"))


def test_listing_names_ten_and_counts_the_rest() -> None:
    assert listing(map(str, range(12))).splitlines()[-2:] == ["  9", "  and 2 more"]
    assert listing(["one"]) == "  one"


def test_closest_word() -> None:
    assert closest("Dandelon", ["dandelion", "daisy"]) == "dandelion"
    assert closest("daisy", ["daisy", "rose"]) is None
