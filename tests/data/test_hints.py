"""Where every image is bad, the first reasons and what may be amiss."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.data.index import build_index
from edgetl.errors import DataError
from tests.data.images import Recorder, Settings, fill


def refusal(rows: list[str], folder: Path, bad_images: str) -> str:
    table = folder / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{row},{'ab'[at % 2]}\n" for at, row in enumerate(rows)))
    with pytest.raises(DataError) as caught:
        build_index(Settings(source=str(table), bad_images=bad_images))
    return str(caught.value)


@pytest.mark.parametrize("bad_images", ["refuse", "skip"])
def test_paths_of_another_system(tmp_path: Path, bad_images: str) -> None:
    fill(tmp_path, {"a": 2, "b": 2})
    stated = refusal([f"a\\{n:03d}.png" for n in range(36)], tmp_path, bad_images)
    assert stated.startswith(f"36 of 36 images in {tmp_path / 'labels.csv'} cannot be used:\n")
    assert "000.png: there is no such file." in stated
    assert "and 26 more" in stated
    assert (
        "The paths are written with backslashes, as on Windows; write 'a\\000.png' with / in place of \\."
        in stated
    )


def test_a_wrong_root(tmp_path: Path) -> None:
    fill(tmp_path / "photos", {"a": 2, "b": 2})
    (tmp_path / "photos" / "csv").mkdir()
    expected = f"There is {tmp_path / 'photos' / 'a' / '000.png'}, which"
    assert expected in refusal(["a/000.png", "b/000.png"], tmp_path / "photos" / "csv", "skip")
    assert expected in refusal(["photos/a/000.png", "photos/b/000.png"], tmp_path / "photos", "skip")
    assert expected in refusal(["/data/a/000.png", "/data/b/000.png"], tmp_path / "photos", "refuse")
    stated = refusal(["q/0.png", "q/1.png"], tmp_path, "skip")
    assert f"Paths in labels.csv count from its own folder, {tmp_path}." in stated
    assert "web addresses" in refusal(["https://a.org/1.png", "s3://b/2.png"], tmp_path, "skip")


@pytest.mark.parametrize("written", ["a/000.PNG", "'a/000.png'", "a/000", "a/000.jpg", " a/000.png`"])
def test_a_name_that_is_nearly_that_of_a_file(tmp_path: Path, written: str) -> None:
    fill(tmp_path, {"a": 1})
    stated = refusal([written, "gone/1.png"], tmp_path, "skip")
    assert f"There is {tmp_path / 'a/000.png'}, which " in stated
    assert "may stand for; names must agree to the letter." in stated


def test_pointers_of_git_lfs(tmp_path: Path) -> None:
    for label in "ab":
        for path in fill(tmp_path, {label: 3}).glob(f"{label}/*.png"):
            path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(
        DataError, match=r"pointers of Git LFS, not images: fetch the contents with git lfs pull"
    ):
        build_index(Settings(source=str(tmp_path)))


def test_where_some_images_are_good_the_first_reason_is_said(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "x.png").write_bytes(b"")
    recorder = Recorder()
    build_index(Settings(source=str(tmp_path), bad_images="skip"), progress=recorder)
    assert recorder.warnings == [
        f"1 of 11 images in {tmp_path} cannot be used and are skipped, e.g. {tmp_path / 'a/x.png'}: the file is empty."
    ]
