from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.data import builtin
from edgetl.data.index import build_index
from edgetl.errors import DataError, MissingDependencyError, StorageError
from edgetl.files import cache_dir
from edgetl.progress import SILENT
from tests.data.images import Recorder, Settings


def test_digits_are_written_once_and_split() -> None:
    index = build_index(Settings(source="digits", val_fraction=0.15, test_fraction=0.15))
    assert index.root == cache_dir() / "digits"
    assert index.labels == tuple("0123456789")
    assert len(index.samples) == 1797
    counts = index.counts()
    assert all(min(split.values()) >= 12 for split in counts.values())
    with Image.open(index.samples[0].path) as image:
        assert (image.size, image.mode) == ((8, 8), "L")
    recorder = Recorder()
    assert (
        build_index(Settings(source="digits", val_fraction=0.15, test_fraction=0.15), progress=recorder)
        == index
    )
    assert recorder.messages == []


def test_digits_need_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependencyError, match=r"scikit-learn is not available\. Install it with: pip"):
        builtin.folder("digits", progress=SILENT)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert builtin.folder("digits", progress=SILENT) is None
    assert builtin.folder("other", progress=SILENT) is None


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"Cannot write .*digits"):
        builtin.folder("digits", progress=SILENT)


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    target = tmp_path / "set"

    def images(_: Path) -> Iterator[tuple[str, Image.Image]]:
        target.mkdir()
        (target / "theirs").write_text("x")
        yield "a/1.png", Image.new("L", (8, 8))

    builtin._write_folder(target, images)
    assert [path.name for path in target.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


class FakeCifar:
    """Plays torchvision's data set: two images per class."""

    classes = ("airplane", "automobile")

    def __init__(self, root: str, *, train: bool, download: bool) -> None:
        assert download
        self.seed = int(train)

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        rng = np.random.default_rng(self.seed)
        for at in range(12):
            yield Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)), at % 2


class Offline:
    def __init__(self, root: str, *, train: bool, download: bool) -> None:
        raise OSError("no route to host")


def torchvision(monkeypatch: pytest.MonkeyPatch, cache: Path, cifar: type | None) -> None:
    module = types.ModuleType("torchvision.datasets")
    if cifar is not None:
        module.CIFAR10 = cifar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    monkeypatch.setenv("EDGETL_CACHE", str(cache))


def test_cifar10_is_written_as_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision(monkeypatch, tmp_path, FakeCifar)
    index = build_index(Settings(source="cifar10"))
    assert index.labels == FakeCifar.classes
    assert index.counts()["test"] == {"airplane": 6, "automobile": 6}
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10"]


def test_cifar10_without_a_network_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision(monkeypatch, tmp_path, Offline)
    with pytest.raises(DataError) as caught:
        build_index(Settings(source="cifar10"))
    assert str(caught.value) == (
        "CIFAR-10 cannot be downloaded (no route to host). Where there is no network, unpack it as "
        "train/CLASS/* and test/CLASS/* and point data.source at that folder."
    )
    assert list(tmp_path.iterdir()) == []


def test_cifar10_needs_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision(monkeypatch, tmp_path, None)
    with pytest.raises(MissingDependencyError, match="torchvision is not available"):
        builtin.folder("cifar10", progress=SILENT)
