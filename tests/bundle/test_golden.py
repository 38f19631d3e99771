from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.bundle import golden
from edgetl.bundle.golden import TOLERANCE, compare, decode_outputs, encode_image, encode_outputs
from edgetl.bundle.manifest import Precision
from edgetl.errors import BundleIntegrityError, ImageError, TensorError
from edgetl.inputs.image import PreprocessSpec, read_numbers
from edgetl.records.codec import to_json
from edgetl.tasks.base import Classification
from edgetl.tasks.classification.task import ClassificationTask
from tests.bundles import SPEC, picture
from tests.deep_images import png16, tiff

TASK = ClassificationTask(spec=Classification(labels=("a", "b")))
TEN = ClassificationTask(spec=Classification(labels=tuple("abcdefghij")))
RECORDED = np.array([[4.0, 1.0], [-8.0, 2.0]], dtype=np.float32)


def check(computed: np.ndarray, precision: Precision, same: bool = True) -> golden.GoldenCheck:
    return compare(
        variant="v",
        precision=precision,
        task=TASK,
        recorded={"logits": RECORDED},
        computed={"logits": computed},
        pixels_identical=same,
    )


def test_every_precision_has_a_tolerance() -> None:
    assert set(TOLERANCE) == set(Precision)


@pytest.mark.parametrize("precision", Precision)
def test_the_tolerance_is_relative_to_the_largest_logit(precision: Precision) -> None:
    allowed = TOLERANCE[precision] * 8.0
    inside, outside = RECORDED.copy(), RECORDED.copy()
    inside[0, 0] += allowed * 0.99
    outside[0, 0] += allowed * 1.01
    assert check(inside, precision).passed
    assert not check(outside, precision).passed
    assert check(inside, precision).allowed_difference == pytest.approx(allowed)


def test_int8_is_allowed_what_its_own_roundings_move() -> None:
    """Two engines that round apart pass, sums that saturate do not, and no limit is below the plain one."""
    generator = np.random.default_rng(0)
    floats = generator.normal(0, 3, (64, 10)).astype(np.float32)
    one, other = (floats + generator.normal(0, 0.15, floats.shape).astype(np.float32) for _ in range(2))

    def found(computed: np.ndarray, recorded: np.ndarray, precision: Precision = Precision.INT8) -> bool:
        return compare(
            variant="v",
            precision=precision,
            task=TEN,
            recorded={"logits": recorded},
            computed={"logits": computed},
            pixels_identical=True,
            floats={"logits": floats},
        ).passed

    assert np.abs(one - other).max() > TOLERANCE[Precision.INT8] * np.abs(one).max()
    assert found(other, one)
    assert not found(other, one, Precision.FP32)
    assert not found(np.clip(one, -6, 6), one)  # what saturates
    assert found(floats + 0.04 * np.abs(floats).max(), floats)
    assert not found(floats + 0.06 * np.abs(floats).max(), floats)


def test_the_limit_of_int8_has_a_ceiling_and_grows_with_its_noise() -> None:
    floats = np.random.default_rng(0).normal(0, 3, (8, 10)).astype(np.float32)
    found = []
    for noise in (0.0, 0.1, 0.15, 5.0):
        recorded = floats + noise * np.where(np.arange(10) % 2, 1, -1).astype(np.float32)
        found.append(golden.tolerance(Precision.INT8, TEN, {"logits": recorded}, {"logits": floats}))
        scale = np.abs(recorded).max()
    # 80 values at a chance of 1 in 1,000: the square root of 2 and 4.75 root mean squares.
    assert found[1] * np.abs(floats + 0.1 * np.where(np.arange(10) % 2, 1, -1)).max() == pytest.approx(
        2**0.5 * 4.7519 * 0.1, rel=1e-4
    )
    assert found[0] == TOLERANCE[Precision.INT8] < found[1] < found[2] < found[3] == golden.INT8_CEILING
    assert scale > 1.0
    assert golden.tolerance(Precision.INT8, TEN, {"logits": recorded}) == TOLERANCE[Precision.INT8]
    with pytest.raises(TensorError, match="expected"):
        golden.tolerance(Precision.INT8, TEN, {"logits": recorded[:2]}, {"logits": floats})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_passes_and_travels_as_json(value: float) -> None:
    broken = RECORDED.copy()
    broken[1, 1] = value
    found = check(broken, Precision.INT8)
    assert not found.passed
    json.dumps(to_json(found), allow_nan=False)


def test_the_reason_tells_preprocessing_from_the_engine() -> None:
    other = RECORDED[:, ::-1].copy()
    assert check(RECORDED, Precision.FP32).reason == (
        "Variant v computes what was recorded: on 2 golden images the largest difference of logits is 0, "
        "allowed is 0.008."
    )
    engine, pixels = check(other, Precision.FP32), check(other, Precision.FP32, same=False)
    assert engine.same == 0.0
    assert engine.reason.endswith(
        "the pixels are identical, so the inference engine computes something else."
    )
    assert pixels.reason.endswith("so look at the version of Pillow first.")


def test_shapes_must_agree() -> None:
    with pytest.raises(TensorError, match=r"logits: got shape \(1, 2\), expected \(2, 2\)"):
        check(RECORDED[:1], Precision.FP32)


def test_outputs_round_trip() -> None:
    found = decode_outputs(encode_outputs({"logits": RECORDED}), TASK, 2, "x")
    assert np.array_equal(found["logits"], RECORDED)
    assert encode_outputs({"logits": RECORDED.astype(">f8")}) == encode_outputs({"logits": RECORDED})
    assert encode_outputs({"b": RECORDED, "a": RECORDED}) == encode_outputs({"a": RECORDED, "b": RECORDED})


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def zipped(content: bytes, *, name: str = "logits.npy", how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def test_the_one_array_of_schema_1_is_still_read() -> None:
    assert np.array_equal(decode_outputs(npy(RECORDED), TASK, 2, "x")["logits"], RECORDED)


EVIL = npy(np.array([{"evil": 1}], dtype=object))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "x does not hold the output logits: "),
        (b"\x93NUMPY\x01", "x does not hold the output logits: "),
        (EVIL, "x does not hold the output logits: Object arrays cannot be loaded"),
        (zipped(EVIL), "x does not hold the output logits: Object arrays cannot be loaded"),
        (
            zipped(npy(RECORDED), how=zipfile.ZIP_DEFLATED),
            "does not hold the output logits: it is compressed",
        ),
        (
            zipped(npy(RECORDED), name="scores.npy"),
            "does not hold the output logits: .*no item named 'logits.npy'",
        ),
        (
            encode_outputs({"logits": RECORDED[:1]}),
            r"x: logits is \(1, 2\) float32, expected finite \(2, 2\) float32",
        ),
        (encode_outputs({"logits": RECORDED * np.inf}), "expected finite"),
    ],
)
def test_broken_outputs_are_refused_and_nothing_is_unpickled(content: bytes, reason: str) -> None:
    with pytest.raises(BundleIntegrityError, match=reason):
        decode_outputs(content, TASK, 2, "x")


def test_small_pictures_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    assert encode_image(path, SPEC) == picture()


def test_large_pictures_become_small_jpegs_with_room_to_resize(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture(size=(400, 300)))
    content = encode_image(path, SPEC)
    assert len(content) < 20_000
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "JPEG"
        assert min(image.size) == 2 * SPEC.size


def test_broken_pictures_are_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(picture()[:100])
    with pytest.raises(ImageError, match=r"broken\.png"):
        encode_image(path, SPEC)


@pytest.mark.parametrize("dtype", ["u2", ">u2", "i4", "f4"])
def test_a_large_frame_of_more_than_8_bits_keeps_its_numbers(tmp_path: Path, dtype: str) -> None:
    """Else a bundle's proof would begin behind its window."""
    spec = PreprocessSpec(size=16, window=(20_000.0, 24_000.0), guess_floats=False)
    values = np.random.default_rng(0).integers(19_000, 25_000, (300, 400)).astype(dtype)
    (tmp_path / "frame.tif").write_bytes(tiff(values, ">" if dtype == ">u2" else "<"))
    content = encode_image(tmp_path / "frame.tif", spec)
    kept = read_numbers(content)
    assert kept is not None
    assert np.array_equal(kept, values[::9, ::9])
    (tmp_path / "small.tif").write_bytes(tiff(values[:40, :40]))
    assert encode_image(tmp_path / "small.tif", spec) == (tmp_path / "small.tif").read_bytes()


def test_a_large_colour_frame_of_16_bits_keeps_its_numbers_where_there_is_a_window(tmp_path: Path) -> None:
    spec = PreprocessSpec(size=16, window=(20_000.0, 24_000.0), guess_floats=False)
    values = np.random.default_rng(0).integers(19_000, 25_000, (300, 400, 3)).astype(np.uint16)
    (tmp_path / "frame.png").write_bytes(png16(values))
    kept = read_numbers(encode_image(tmp_path / "frame.png", spec))
    assert kept is not None
    assert np.array_equal(kept, values[::9, ::9])
    with Image.open(io.BytesIO(encode_image(tmp_path / "frame.png", SPEC))) as plain:
        assert plain.format == "JPEG"  # without a window, 8 bits are all that is read
