"""Numbers beyond 8 bits: one window a set, whatever file or array they come in."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgetl.errors import ImageError, TensorError
from edgetl.inputs.image import (
    PreprocessSpec,
    Resize,
    decode,
    load_pixels,
    read_header,
    read_numbers,
    to_pixels,
)
from edgetl.records.codec import from_json, to_json
from tests.deep_images import png16, tiff
from tests.metadata_files import encoded, png_chunk

WINDOW = (20_000.0, 24_000.0)
SPEC = PreprocessSpec(size=16, resize=Resize.SQUASH, window=WINDOW, guess_floats=False)
PLAIN = PreprocessSpec(size=16, resize=Resize.SQUASH, guess_floats=False)
OLD = PreprocessSpec(size=16, resize=Resize.SQUASH)


def numbers(channels: int = 1, dtype: str = "u2") -> NDArray[Any]:
    """(16, 16) or (16, 16, channels) numbers around the window, some outside of it."""
    values = np.random.default_rng(channels).integers(19_000, 25_000, (16, 16, channels))
    return (values[..., 0] if channels == 1 else values).astype(dtype)


def windowed(values: NDArray[Any], window: tuple[float, float] = WINDOW) -> NDArray[np.uint8]:
    low, high = window
    levels = np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else levels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "u4", "f4"])
def test_grey_tiffs_of_every_kind_are_windowed(dtype: str, planar: int, packed: bool, order: str) -> None:
    values = numbers(dtype=dtype)
    content = tiff(values, order, planar=planar, packed=packed)
    if dtype == "u4" and order == ">":
        with pytest.raises(ImageError, match="holds numbers of a kind that cannot be read"):
            load_pixels(content, SPEC)
        return
    assert np.array_equal(load_pixels(content, SPEC), windowed(values))
    assert np.array_equal(read_numbers(content), values)
    assert read_header(content).deep


def test_unsigned_32_bits_do_not_wrap() -> None:
    values = np.full((8, 8), 4_000_000_000, np.uint32)
    values[0, 0] = 0
    assert (
        decode(tiff(values), spec=PreprocessSpec(size=8, window=(0, 2**32 - 1))).getpixel((4, 4))
        == (237,) * 3
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_16_bit_colour_in_tiffs_keeps_its_lower_bytes(order: str, packed: bool) -> None:
    values = numbers(3)
    assert np.array_equal(load_pixels(tiff(values, order, packed=packed), SPEC), windowed(values))
    assert np.array_equal(load_pixels(tiff(values, order, packed=packed), PLAIN), values >> 8)
    for spec in (SPEC, PLAIN):
        with pytest.raises(ImageError, match="in a plane of its own"):
            load_pixels(tiff(values, order, planar=2, packed=packed), spec)
    opaque = np.dstack([values, np.full((16, 16), 65535, np.uint16)])
    assert np.array_equal(load_pixels(tiff(opaque, order, packed=packed), SPEC), windowed(values))


def test_16_bit_pngs_of_every_kind_are_windowed() -> None:
    grey, colour, alpha = numbers(1), numbers(3), np.full((16, 16), 65535, np.uint16)
    alpha[:8] = 0
    white = np.full((8, 16, 3), 255)
    for values, expected in ((grey, windowed(grey)), (colour, windowed(colour))):
        assert np.array_equal(load_pixels(png16(values), SPEC), expected)
        laid = load_pixels(png16(np.dstack([values, alpha])), SPEC)
        assert np.array_equal(laid, np.concatenate([white, expected[8:]]))
    keyed = png16(colour, png_chunk(b"tRNS", bytes(6)))
    assert np.array_equal(load_pixels(keyed, SPEC), windowed(colour))


def test_numbers_are_turned_upright_like_pictures() -> None:
    from tests.metadata_files import exif

    values = numbers()
    content = png16(values, png_chunk(b"eXIf", exif(6)))
    assert np.array_equal(load_pixels(content, SPEC), np.rot90(windowed(values), -1))


@pytest.mark.parametrize("dtype", ["u2", ">u2", "f4", ">f4"])
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_windowed_as_files_are(dtype: str, channels: int) -> None:
    values = numbers(channels, dtype)
    assert np.array_equal(to_pixels(values, SPEC), windowed(values))
    if values.dtype.kind == "u":
        assert np.array_equal(to_pixels(values, PLAIN), load_pixels(png16(numbers(channels)), PLAIN))
    else:
        for spec in (PLAIN, OLD):
            with pytest.raises(
                ImageError, match=r"holds floats, and there is no window .*preprocess\.window"
            ):
                to_pixels(values, spec)
        values[2, 2] = np.nan
        with pytest.raises(ImageError, match="The image: holds values that are not finite"):
            to_pixels(values, SPEC)


def test_arrays_of_rgba() -> None:
    values = np.dstack([numbers(3), np.full((16, 16), 65535, np.uint16)])
    assert np.array_equal(to_pixels(values, SPEC), windowed(values[..., :3]))
    with pytest.raises(TensorError, match=r"\(16, 16, 4\) float32, expected .* or \(H, W\) float32"):
        to_pixels(values.astype(np.float32), SPEC)
    with pytest.raises(ImageError, match="is 2x2 pixels"):
        to_pixels(np.zeros((2, 2), np.uint16), SPEC)


def test_pillow_images_are_windowed_where_they_hold_the_numbers() -> None:
    for content in (png16(numbers()), tiff(numbers(dtype="f4")), tiff(numbers(dtype="i4"))):
        with Image.open(io.BytesIO(content)) as opened:
            assert np.array_equal(to_pixels(opened, SPEC), windowed(numbers()))
    with (
        Image.open(io.BytesIO(png16(numbers(3)))) as opened,
        pytest.raises(ImageError, match="Pillow reduces its 16 bits per channel to 8; give the file's path"),
    ):
        to_pixels(opened, SPEC)


def test_8_bit_pictures_are_what_a_window_makes() -> None:
    picture = Image.fromarray(windowed(numbers(3)))
    for content in (encoded(picture, "PNG"), encoded(picture.convert("L"), "TIFF")):
        assert np.array_equal(load_pixels(content, SPEC), load_pixels(content, PLAIN))
        assert read_numbers(content) is None
        assert not read_header(content).deep


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spec", [SPEC, OLD])
def test_floats_that_are_no_numbers_are_refused(value: float, spec: PreprocessSpec) -> None:
    values = numbers(dtype="f4")
    values[3, 3] = value
    with pytest.raises(ImageError, match="The image: holds values that are not finite"):
        load_pixels(tiff(values), spec)
    with pytest.raises(ImageError, match="x: holds values that are not finite"):
        read_numbers(tiff(values), name="x")


def test_what_cannot_be_read_in_full_is_refused_under_a_window() -> None:
    wide = b"P6 16 16 65535\n" + numbers(3).astype(">u2").tobytes()
    with pytest.raises(ImageError, match="in a form of which only 8 can be read"):
        load_pixels(wide, SPEC)
    assert load_pixels(wide, PLAIN).shape == (16, 16, 3)
    assert (read_header(wide).deep, read_header(wide).reduced, read_numbers(wide)) == (
        False,
        True,
        None,
    )  # a set of these is one of 8 bits
    for values in (numbers(dtype="f8"), numbers(3, "f4")):
        with pytest.raises(ImageError, match="holds numbers of a kind that cannot be read"):
            load_pixels(tiff(values), SPEC)


def test_no_two_images_of_a_set_are_scaled_apart() -> None:
    """A dark float image keeps its place beside a bright one: what an image holds does not decide how it is read."""
    dark, bright = np.full((16, 16), 0.5, np.float32), np.full((16, 16), 2.0, np.float32)
    spec = PreprocessSpec(size=16, resize=Resize.SQUASH, window=(0.0, 2.0), guess_floats=False)
    assert load_pixels(tiff(dark), spec)[0, 0, 0] == 64
    assert load_pixels(tiff(bright), spec)[0, 0, 0] == 255
    with pytest.raises(ImageError, match="no window"):
        load_pixels(tiff(dark), PLAIN)


# --- bundles from before there were windows ---------------------------------------------------------------


def test_a_spec_without_the_new_words_keeps_its_pixels() -> None:
    saved = to_json(OLD)
    del saved["window"], saved["guess_floats"]
    spec = from_json(PreprocessSpec, json.loads(json.dumps(saved)))
    assert spec == OLD
    values = np.arange(65536).reshape(256, 256).astype(np.uint16)
    as_then = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    for content in (png16(values), tiff(values), tiff(values, ">")):
        assert np.array_equal(np.asarray(decode(content, spec=spec))[..., 0], as_then)
    signed = numbers(dtype="i4") - 22_000
    assert np.array_equal(
        np.asarray(decode(tiff(signed), spec=spec))[..., 0],
        (np.clip(signed, 0, 65535) * 255 + 32767) // 65535,
    )
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    for floats in (ramp, ramp * 255, ramp * 3 - 1):
        scale = 255.0 if floats.max() <= 1 else 1.0
        then = np.rint(np.clip(floats * scale, 0, 255)).astype(np.uint8)
        assert np.array_equal(np.asarray(decode(tiff(floats), spec=spec))[..., 0], then)


@pytest.mark.parametrize("window", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_window_that_spans_nothing_is_refused(window: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"window is .* expected two finite numbers, low below high"):
        PreprocessSpec(size=8, window=window)


@pytest.mark.parametrize("spec", [SPEC, PLAIN])
def test_broken_bytes_of_numbers_give_an_image_or_one_sentence(spec: PreprocessSpec) -> None:
    sound = [
        png16(numbers()),
        png16(numbers(3)),
        png16(numbers(4)),
        tiff(numbers(3), ">"),
        tiff(numbers(dtype="f4")),
    ]
    sound += [tiff(numbers(dtype="i2"), ">", packed=True), tiff(numbers(4), packed=True, planar=2)]
    generator = random.Random(0)
    said = []
    for _ in range(300):
        content = bytearray(generator.choice(sound))
        for _ in range(generator.randint(1, 4)):
            # Directories lie at the end of these files, and headers at the start.
            at = generator.randrange(60) if generator.random() < 0.5 else -generator.randint(1, 200)
            content[at] = generator.choice((generator.randrange(256), 0, 1, 2, 255))
        for read in (lambda c: load_pixels(c, spec), read_numbers, read_header):
            try:
                read(bytes(content[: generator.choice((None, len(content) // 2))]))
            except ImageError as error:
                said.append(str(error))
    assert said
    assert [text for text in said if not text.startswith("The image: ") or "\n" in text] == []
    # Warnings are errors in tests, and would be found here.
    assert [text for text in said if "Tag " in text or "too many entries" in text or "Possibly" in text] == []
