"""The window of a set: proposed from its training images, and said where it does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.data import depth
from edgetl.data.audit import audit
from edgetl.data.index import DataIndex, build_index
from edgetl.data.stage import DataInputs, run
from edgetl.data.suggest import suggest_window
from edgetl.errors import DataError
from tests.data.images import Recorder, Settings, fill
from tests.deep_images import tiff


def thermal(
    root: Path, dtype: str = "u2", shift: dict[str, float] | None = None, scale: float = 1.0
) -> DataIndex:
    """Frames around 21,500 in train, val and test, of two classes."""
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in ("bar", "spot"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                values = generator.normal(21_500 + (shift or {}).get(split, 0), 150, (40, 50)) * scale
                (folder / f"{number}.tif").write_bytes(tiff(values.astype(dtype)))
    return build_index(Settings(str(root)))


def test_the_window_leaves_out_the_tails_and_adds_a_margin(tmp_path: Path) -> None:
    index = thermal(tmp_path)
    values = np.concatenate([np.asarray(Image.open(s.path)).ravel() for s in index.split("train")])
    low, high = np.quantile(values, [depth.TAIL, 1 - depth.TAIL])
    seen = depth.look(index)
    margin = depth.MARGIN * (high - low)
    assert seen.proposed == pytest.approx((low - margin, high + margin), abs=3)
    assert (seen.images, seen.deep, seen.floats) == (24, 24, 0)
    assert (seen.least, seen.largest) == (values.min(), values.max())
    assert max(seen.outside.values()) < 0.01
    (problem,) = seen.problems()
    low, high = map(int, seen.proposed)
    assert problem.endswith(f"about 4 of 256 grey levels; set preprocess.window = [{low}, {high}].")
    assert not seen.with_proposed().problems()
    (suggestion,) = suggest_window(seen)
    assert (suggestion.key, suggestion.value) == ("preprocess.window", seen.proposed)


@pytest.mark.parametrize(
    ("dtype", "scale"), [("f4", 1.0), ("f4", 1e-6), ("f4", -3e5), ("i4", 1000.0), ("i2", -1.0)]
)
def test_floats_and_signed_numbers_get_their_window_in_two_passes(
    tmp_path: Path, dtype: str, scale: float
) -> None:
    index = thermal(tmp_path, dtype, scale=scale)
    values = np.concatenate([np.asarray(Image.open(s.path), float).ravel() for s in index.split("train")])
    low, high = np.quantile(values, [depth.TAIL, 1 - depth.TAIL])
    margin = depth.MARGIN * (high - low)
    found = depth.look(index).proposed
    assert found == pytest.approx((low - margin, high + margin), abs=0.02 * (high - low))


def test_one_hot_pixel_does_not_widen_the_window(tmp_path: Path) -> None:
    index = thermal(tmp_path, "f4")
    before = depth.look(index).proposed
    hot = np.full((40, 50), 21_500, np.float32)
    hot[3, 3] = 3e38
    index.split("train")[0].path.write_bytes(tiff(hot))
    after = depth.look(index).proposed
    assert after == pytest.approx(before, rel=0.01)


def test_floats_without_a_window_stop_before_training(tmp_path: Path) -> None:
    thermal(tmp_path / "set", "f4")
    settings = Settings(str(tmp_path / "set"))
    with pytest.raises(
        DataError, match=r"24 images hold floats .* set preprocess\.window = \[2\d{4}, 2\d{4}\]\.$"
    ):
        run(settings, DataInputs(seed=0), out=tmp_path)
    recorder = Recorder()
    run(settings, DataInputs(seed=0, window=(20_900.0, 22_100.0)), out=tmp_path, progress=recorder)
    assert recorder.warnings == []


def test_a_split_that_leaves_the_window_is_named(tmp_path: Path) -> None:
    index = thermal(tmp_path, shift={"test": 900})
    said = [p for p in depth.look(index).problems() if "outside the window" in p]
    assert len(said) == 1
    assert "of the numbers of test lie outside" in said[0]
    assert any("of train lie" in p for p in depth.look(index, (0, 20_000)).problems())


def test_a_set_of_8_and_16_bits_is_said_to_be_mixed(tmp_path: Path) -> None:
    root = tmp_path / "set"
    fill(root, {f"{split}/{label}": 4 for split in ("train", "val", "test") for label in ("bar", "spot")})
    plain = build_index(Settings(str(root)))
    assert depth.look(plain) == depth.Depth(images=24)
    (unneeded,) = depth.look(plain, (0.0, 100.0)).problems()
    assert "changes nothing" in unneeded
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 4096, (16, 16)).astype(np.uint16)
        Image.fromarray(values).save(root / "train" / "bar" / f"deep {number}.png")
    seen = depth.look(build_index(Settings(str(root))))
    assert (seen.images, seen.deep) == (27, 3)
    assert any(
        p.startswith("3 of 27 images have more than 8 bits per channel, the others 8")
        for p in seen.problems()
    )


def test_further_pages_are_said(tmp_path: Path) -> None:
    index = thermal(tmp_path)
    path = index.samples[0].path
    path.write_bytes(tiff(np.asarray(Image.open(path)), pages=3))
    assert "1 files hold several pages, of which only the first is looked at." in depth.look(index).problems()


def test_the_audit_compares_frames_through_the_window(tmp_path: Path) -> None:
    """By their whole range these frames are all one grey, in which no copy is found."""
    index = thermal(tmp_path)
    ramp = 21_300 + 10 * np.add.outer(np.arange(40), np.arange(50) % 7)
    generator = np.random.default_rng(1)
    for sample in (index.split("train")[0], index.split("test")[0]):
        sample.path.write_bytes(tiff((ramp + generator.normal(0, 5, ramp.shape)).astype(np.uint16)))
    report = audit(build_index(Settings(str(tmp_path))))
    assert len(report.near_duplicates) == 1
    assert report.depth.problems()[0] in report.problems()


def test_numbers_that_are_all_one(tmp_path: Path) -> None:
    index = thermal(tmp_path)
    for sample in index.samples:
        sample.path.write_bytes(tiff(np.full((8, 8), 7, np.uint16)))
    seen = depth.look(index)
    assert seen.proposed is None
    assert any("are 7: nothing can be seen" in p for p in seen.problems())
    assert suggest_window(seen) == ()


def test_colour_of_which_8_bits_are_read_is_refused_with_a_window_before_training(tmp_path: Path) -> None:
    thermal(tmp_path / "set")
    values = np.full((40, 50, 3), 21_500, ">u2")
    place = tmp_path / "set" / "train" / "bar" / "colour.ppm"
    place.write_bytes(b"P6 50 40 65535\n" + values.tobytes())
    (tmp_path / "set" / "val" / "spot" / "x.ppm").write_bytes(place.read_bytes())
    index = build_index(Settings(str(tmp_path / "set")))
    window = (20_900.0, 22_100.0)
    seen = depth.look(index, window)
    assert seen.reduced == ("train/bar/colour.ppm", "val/spot/x.ppm")
    stated = "2 images hold 16 bits per channel in a form of which only 8 can be read"
    assert any(problem.startswith(stated) for problem in seen.problems())
    assert any(problem.startswith(stated) for problem in audit(index, window=window).problems())
    assert not any(problem.startswith(stated) for problem in depth.look(index).problems())
    with pytest.raises(DataError, match=r"first train/bar/colour\.ppm"):
        run(Settings(str(tmp_path / "set")), DataInputs(seed=0, window=window), out=tmp_path)
