"""One walker: what training, unlabelled images and the device see in the same folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgetl.data import sources, unlabelled, walk
from edgetl.errors import DataError
from edgetl.runtime.inputs import find_images
from tests.data.images import Recorder, fill, write


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """A set of two classes, one of them a link, with all that systems leave behind."""
    root = fill(tmp_path / "set", {"cat": 2})
    fill(tmp_path / "pool", {"dogs": 3}, start=50)
    (root / "dog").symlink_to(tmp_path / "pool" / "dogs")
    (root / "dog" / "round").symlink_to(root)
    for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir", "cat/@eaDir", "dog/.ipynb_checkpoints"):
        write(root / name / "x.png", 90)
    for name in ("._000.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (root / "cat" / name).write_bytes(b"left behind")
    return root


def test_training_unlabelled_and_device_see_the_same_images(messy: Path) -> None:
    names = {f"cat/{n:03d}.png" for n in range(2)} | {f"dog/{n:03d}.png" for n in range(3)}
    (messy / "dog" / "round").unlink()  # subfolders of a class are not read, so training sees no circle
    found = [entry.path for entry in sources.find(str(messy)).entries]
    for paths in (found, unlabelled.find(str(messy)), find_images([str(messy)])):
        assert {path.relative_to(messy).as_posix() for path in paths} == names
    assert set(find_images([str(messy / "**" / "*.png")])) == set(found)


def test_a_circle_of_links_ends_and_every_folder_is_seen_once(messy: Path) -> None:
    (messy / "again").symlink_to(messy / "cat")
    images, _ = walk.images_below(messy)
    assert sorted(path.relative_to(messy).as_posix() for path in images) == [
        *(f"cat/{n:03d}.png" for n in range(2)),
        *(f"dog/{n:03d}.png" for n in range(3)),
    ]


def spoil(root: Path) -> dict[str, int]:
    """Add what is no image; returns it by kind."""
    (root / "a" / "annexed.jpg").symlink_to(root / "gone")
    (root / "a" / "itself.png").symlink_to(root / "a" / "itself.png")
    (root / "a" / "1.HEIC").write_bytes(b"x")
    (root / "b" / "2.heic").write_bytes(b"x")
    (root / "b" / "notes.txt").write_bytes(b"x")
    (root / "b" / "LICENSE").write_bytes(b"x")
    (root / "b" / ".hidden.jpg").write_bytes(b"x")
    os.mkfifo(root / "b" / "pipe.jpg")
    return {
        ".heic files": 2,
        ".txt files": 1,
        "files without an ending": 1,
        "hidden images": 1,
        "links that lead nowhere": 2,
        "pipes or devices": 1,
    }


def test_files_that_are_no_images_are_counted_by_kind(tmp_path: Path) -> None:
    kinds = spoil(fill(tmp_path, {"a": 1, "b": 1}))
    (tmp_path / "README.md").write_text("beside the classes, not missed")
    (tmp_path / "c").symlink_to(tmp_path / "not fetched")
    kinds["links that lead nowhere"] += 1
    recorder = Recorder()
    assert sources.find(str(tmp_path), progress=recorder).others == kinds
    assert recorder.warnings == [
        f"{tmp_path}: besides the images, 3 links that lead nowhere, 2 .heic files, 1 hidden image are not read. Fetch"
        " what the links stand for (git annex get, dvc pull)."
    ]
    said = Recorder()
    find_images([str(tmp_path)], progress=said)
    unlabelled.find(str(tmp_path), progress=said)
    assert all("3 links that lead nowhere, 2 .heic files, 1 hidden image" in text for text in said.warnings)
    assert len(said.warnings) == 2


def test_a_folder_of_other_files_alone_is_described(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.heic").touch()
    for look in (lambda: find_images([str(tmp_path)]), lambda: unlabelled.find(str(tmp_path))):
        with pytest.raises(DataError, match=r"It holds 1 \.heic file\."):
            look()
    with pytest.raises(DataError, match=r"class folders; .* It holds 1 \.heic file\."):
        sources.find(str(tmp_path))


@pytest.mark.parametrize("text", ["~nobody-of-this-name/x", "x" * 300])
def test_what_is_no_path_is_refused(text: str) -> None:
    for look in (lambda: find_images([text]), lambda: unlabelled.find(text), lambda: sources.find(text)):
        with pytest.raises(DataError, match="cannot be used as a path"):
            look()


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"a": 1, "b": 1})
    scandir = os.scandir

    def refuse(path: Path) -> object:  # the tests may run as root, whom no permission stops
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(walk.os, "scandir", refuse)
    for look in (
        lambda: find_images([str(tmp_path)]),
        lambda: unlabelled.find(str(tmp_path)),
        lambda: sources.find(str(tmp_path)),
    ):
        with pytest.raises(DataError, match=r"The folder .*b cannot be read: Permission denied\."):
            look()


def test_an_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(DataError, match=r"^A path is empty; name a file or folder"):
        walk.place("")
