from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.data import pixels
from edgetl.data.index import DataIndex, build_index
from edgetl.data.pixels import open_pixels
from edgetl.errors import DataError, ImageError, StorageError
from edgetl.inputs.image import Decoding, PreprocessSpec, Resize, load_pixels, to_pixels
from tests.data.images import Recorder, Settings, fill
from tests.deep_images import png16, tiff

SPEC = PreprocessSpec(size=16)


@pytest.fixture
def index(tmp_path: Path) -> DataIndex:
    return build_index(Settings(source=str(fill(tmp_path / "set", {"a": 40, "b": 50}))))


def test_pixels_are_those_of_preprocessing(index: DataIndex, tmp_path: Path) -> None:
    recorder = Recorder()
    opened = open_pixels(index.samples, SPEC, tmp_path / "cache", recorder)
    assert opened.shape == (90, 16, 16, 3)
    assert opened.dtype == np.uint8
    assert isinstance(opened, np.memmap)
    assert not opened.flags.writeable
    assert all(np.array_equal(opened[at], load_pixels(s.path, SPEC)) for at, s in enumerate(index.samples))
    assert recorder.steps == 90


def test_file_is_used_again(index: DataIndex, tmp_path: Path) -> None:
    first = open_pixels(index.samples, SPEC, tmp_path / "cache")
    shutil.rmtree(index.root)
    again = open_pixels(index.samples, replace(SPEC, mean=(0, 0, 0), std=(1, 1, 1)), tmp_path / "cache")
    assert np.array_equal(first, again)
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, size=18),
        replace(SPEC, crop_fraction=0.5),
        replace(SPEC, resize=Resize.PAD),
        replace(SPEC, resize=Resize.PAD, mean=(0, 0, 0)),
        replace(SPEC, window=(0.0, 4095.0)),
        replace(SPEC, guess_floats=False),
        replace(SPEC, decoding=Decoding.FAST),
    ],
)
def test_other_pixels_have_another_file(index: DataIndex, tmp_path: Path, spec: PreprocessSpec) -> None:
    base = replace(SPEC, resize=spec.resize) if spec.mean == (0, 0, 0) else SPEC
    assert pixels._key(index.samples, base) != pixels._key(index.samples, spec)
    assert pixels._key(index.samples, base) != pixels._key(index.samples[1:], base)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00"])
def test_broken_file_is_made_anew(index: DataIndex, tmp_path: Path, content: bytes) -> None:
    first = np.array(open_pixels(index.samples, SPEC, tmp_path / "cache"))
    [path] = (tmp_path / "cache").iterdir()
    path.write_bytes(content)
    assert np.array_equal(open_pixels(index.samples, SPEC, tmp_path / "cache"), first)
    path.write_bytes(path.read_bytes()[:-100])
    assert np.array_equal(open_pixels(index.samples, SPEC, tmp_path / "cache"), first)


def test_altered_or_missing_image_leaves_no_file(index: DataIndex, tmp_path: Path) -> None:
    last = index.samples[-1].path
    last.write_bytes(index.samples[0].path.read_bytes())
    with pytest.raises(DataError, match=f"{last.name} was altered since it was indexed; run the data stage"):
        open_pixels(index.samples, SPEC, tmp_path / "cache")
    last.unlink()
    with pytest.raises(ImageError, match=f"{last.name}: cannot be read any more"):
        open_pixels(index.samples, SPEC, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_full_disk(index: DataIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pixels.np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(StorageError, match=r"pixels-.*: no space left on the device"):
        open_pixels(index.samples, SPEC, tmp_path / "cache")


def test_no_samples(tmp_path: Path) -> None:
    assert open_pixels((), SPEC, tmp_path / "cache").shape == (0, 16, 16, 3)


def test_training_and_the_device_see_the_same_numbers(tmp_path: Path) -> None:
    """Frames of 16 bits, floats and colour, read by the training set's cache and as a session reads them."""
    spec = replace(SPEC, window=(20_000.0, 24_000.0), guess_floats=False)
    values = np.random.default_rng(0).integers(19_000, 25_000, (12, 30, 40, 3)).astype(np.uint16)
    for at, frame in enumerate(values):
        folder = tmp_path / "set" / "ab"[at % 2]
        folder.mkdir(parents=True, exist_ok=True)
        content = (png16(frame), png16(frame[..., 0]), tiff(frame[..., 0].astype(np.float32)))[at % 3]
        (folder / f"{at}.{'tif' if at % 3 == 2 else 'png'}").write_bytes(content)
    index = build_index(Settings(source=str(tmp_path / "set")))
    opened = open_pixels(index.samples, spec, tmp_path / "cache")
    for row, sample in zip(opened, index.samples, strict=True):
        at = int(sample.path.stem)
        array = (values[at], values[at][..., 0], values[at][..., 0].astype(np.float32))[at % 3]
        assert np.array_equal(row, load_pixels(sample.path, spec))
        assert np.array_equal(row, to_pixels(array, spec))


def test_training_and_the_device_decode_jpegs_alike(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (12, 60, 80, 3)).astype(np.uint8)
    for at, picture in enumerate(values):
        folder = tmp_path / "set" / "ab"[at % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{at}.jpg")
    index = build_index(Settings(source=str(tmp_path / "set")))
    spec = PreprocessSpec(size=28, crop_fraction=0.875, decoding=Decoding.FAST)
    opened = open_pixels(index.samples, spec, tmp_path / "cache")
    for row, sample in zip(opened, index.samples, strict=True):
        assert np.array_equal(row, load_pixels(sample.path.read_bytes(), spec))
        assert not np.array_equal(row, load_pixels(sample.path, replace(spec, decoding=Decoding.SHARP)))
