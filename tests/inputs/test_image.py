from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgetl.errors import ImageError, TensorError
from edgetl.inputs.image import (
    MIN_SIDE,
    Decoding,
    Interpolation,
    PreprocessSpec,
    Resize,
    _to_rgb,
    decode,
    load_batch,
    load_pixels,
    normalise,
    read_header,
    to_pixels,
)
from edgetl.records.codec import from_json, to_json
from tests.deep_images import tiff

MODES = tuple(Image.MODES)
"""All modes that this version of Pillow has: a new one must be given a rule."""
SQUASH = PreprocessSpec(size=16, resize=Resize.SQUASH)


def noise(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width: int, height: int) -> Image.Image:
    """A picture without detail, so that how it is resampled hardly matters."""
    return Image.fromarray(noise(4, 4)).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def in_mode(mode: str, width: int, height: int) -> Image.Image:
    if mode.startswith("I;16"):
        values = np.random.default_rng(0).integers(0, 65536, (height, width))
        order = ">u2" if mode == "I;16B" else "<u2"
        return Image.frombytes(mode, (width, height), values.astype(order).tobytes())
    rgb = Image.fromarray(noise(width, height))
    match mode:
        case "I":
            return Image.fromarray(noise(width, height)[..., 0].astype(np.int32) * 257)
        case "La":
            return rgb.convert("LA").convert("La")
        case "RGBa":
            return rgb.convert("RGBA").convert("RGBa")
        case "PA":
            return rgb.convert("P").convert("PA")
        case "LAB":
            return Image.frombytes("LAB", (width, height), noise(width, height).tobytes())
        case _:
            return rgb.convert(mode)


# --- the spec -----------------------------------------------------------------------------------------------


def test_spec_travels_as_json() -> None:
    spec = PreprocessSpec(size=96, resize=Resize.PAD, interpolation=Interpolation.LANCZOS, mean=(0, 0.5, 1))
    assert from_json(PreprocessSpec, json.loads(json.dumps(to_json(spec)))) == spec


def test_spec_in_json_refuses_an_unknown_filter() -> None:
    saved = to_json(PreprocessSpec(size=96)) | {"interpolation": "cubic"}
    with pytest.raises(ValueError, match=r"interpolation is 'cubic', expected one of 'nearest', 'bilinear'"):
        from_json(PreprocessSpec, saved)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size is 0, expected at least 1"),
        ({"size": 8, "crop_fraction": 0.0}, "crop_fraction is 0.0, expected above 0"),
        ({"size": 8, "std": (1.0, 0.0, 1.0)}, r"std is \(1.0, 0.0, 1.0\), expected numbers above 0"),
        ({"size": 8, "mean": (float("nan"), 0.0, 0.0)}, "mean is .*expected finite numbers"),
    ],
)
def test_spec_refuses_values_out_of_range(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PreprocessSpec(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "fraction", "side"), [(144, 0.9, 160), (224, 0.875, 256), (160, 0.9, 177), (64, 1, 64)]
)
def test_resized_side_is_the_floor_as_in_timm(size: int, fraction: float, side: int) -> None:
    assert PreprocessSpec(size=size, crop_fraction=fraction).resized_side == side


# --- decoding -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resize", Resize)
def test_every_mode_gives_rgb_pixels(mode: str, resize: Resize) -> None:
    pixels = to_pixels(in_mode(mode, 23, 17), PreprocessSpec(size=16, resize=resize))
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 1


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(MIN_SIDE, 90),
    height=st.integers(MIN_SIDE, 90),
    kind=st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"]),
    size=st.integers(1, 48),
    resize=st.sampled_from(Resize),
    fraction=st.floats(0.05, 1.0),
    interpolation=st.sampled_from(Interpolation),
)
def test_any_file_gives_the_right_shape_and_range(
    width: int,
    height: int,
    kind: str,
    size: int,
    resize: Resize,
    fraction: float,
    interpolation: Interpolation,
) -> None:
    spec = PreprocessSpec(size=size, resize=resize, crop_fraction=fraction, interpolation=interpolation)
    batch = load_batch([encoded(Image.fromarray(noise(width, height)), kind)], spec)
    assert batch.shape == (1, 3, size, size)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    assert -2.2 < batch.min() <= batch.max() < 2.7


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"]))
def test_broken_bytes_give_an_image_or_an_image_error(data: st.DataObject, kind: str) -> None:
    content = bytearray(encoded(smooth(20, 20), kind))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        assert decode(bytes(content)).mode == "RGB"
    except ImageError as error:
        message = str(error)
    else:
        message = "The image: is fine"
    assert message.startswith("The image: ")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int) -> None:
    upright = smooth(40, 24)
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, "JPEG", quality=100, subsampling=0, exif=exif)
    expected = np.asarray(upright, dtype=int)
    assert np.abs(np.asarray(decode(content), dtype=int) - expected).mean() < 2
    opened = Image.open(io.BytesIO(content))
    assert np.array_equal(to_pixels(opened, SQUASH), to_pixels(decode(content), SQUASH))


def test_transparency_is_laid_over_white() -> None:
    rgba = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    rgba.putpixel((0, 0), (200, 0, 0, 255))
    paletted = rgba.convert("RGB").quantize(4)
    for image in (rgba, rgba.convert("RGBA").convert("RGBa")):
        pixels = np.asarray(_to_rgb(image))
        assert pixels[0, 0].tolist() == [200, 0, 0]
        assert pixels[4, 4].tolist() == [255, 255, 255]
    content = encoded(paletted, "PNG", transparency=paletted.getpixel((4, 4)))
    assert np.asarray(decode(content))[4, 4].tolist() == [255, 255, 255]


def test_sixteen_bits_keep_their_range() -> None:
    values = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    decoded = np.asarray(decode(encoded(Image.fromarray(values))))
    assert decoded[..., 0].tolist() == np.rint(values / 257.0).astype(int).tolist()
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_floats_are_scaled_from_one_or_from_255() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    expected = np.rint(ramp * 255).astype(np.uint8)
    for values in (ramp, ramp * 255):
        assert np.array_equal(np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[..., 0], expected)
    ramp[0, 0] = np.nan
    with pytest.raises(ImageError, match="values that are not finite"):
        decode(encoded(Image.fromarray(ramp), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation_and_first_page_of_many(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    more = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **more)
    assert np.asarray(decode(content))[0, 0].tolist() == [255, 0, 0]
    assert read_header(content).pages == (kind == "TIFF")


RULES = {
    "1": lambda rgb: np.where(np.asarray(rgb.convert("1")), 255, 0)[..., None],
    "L": lambda rgb: np.asarray(rgb.convert("L"))[..., None],
    "LA": lambda rgb: np.asarray(rgb.convert("L"))[..., None],
    "La": lambda rgb: np.asarray(rgb.convert("L"))[..., None],
    "P": lambda rgb: np.asarray(rgb.convert("P").convert("RGB")),
    "PA": lambda rgb: np.asarray(rgb.convert("P").convert("RGB")),
    "RGB": np.asarray,
    "RGBX": np.asarray,
    "RGBA": np.asarray,
    "RGBa": np.asarray,
    "CMYK": np.asarray,
    "YCbCr": lambda rgb: np.asarray(rgb.convert("YCbCr").convert("RGB")),
    "HSV": lambda rgb: np.asarray(rgb.convert("HSV").convert("RGB")),
    "LAB": None,
    "I": lambda rgb: np.asarray(rgb)[..., :1],
    "F": lambda rgb: np.asarray(rgb.convert("L"))[..., None],
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N")),
}
"""What an opaque picture in each mode is in RGB, from the RGB picture that it was made of; None is said elsewhere."""


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_its_rule(mode: str) -> None:
    rule, image = RULES[mode], in_mode(mode, 16, 16)
    pixels = to_pixels(image, PreprocessSpec(size=16, resize=Resize.SQUASH))
    if rule is not None:
        expected = rule(Image.fromarray(noise(16, 16)))
    elif mode == "LAB":
        expected = np.asarray(image.convert("RGB"))
    else:
        expected = np.rint(np.asarray(image) / 257.0)[..., None]
    assert np.array_equal(pixels, np.broadcast_to(expected, (16, 16, 3)))


def test_cmyk_and_ycck_jpegs_are_told_apart_by_adobe_s_mark() -> None:
    content = bytearray(
        encoded(Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK"), "JPEG", quality=100)
    )
    transform = content.index(b"Adobe") + 11
    assert content[transform] == 0
    assert np.abs(np.asarray(decode(bytes(content)), dtype=int) - [250, 10, 10]).max() < 12
    # The same numbers taken for YCCK (inverted, as Adobe stores them): no longer red.
    content[transform] = 2
    assert np.abs(np.asarray(decode(bytes(content)), dtype=int) - [250, 10, 10]).max() > 50


def test_a_gif_whose_frame_is_larger_than_the_file_says_is_refused_quietly() -> None:
    content = bytearray(encoded(Image.new("P", (8, 8)), "GIF"))
    at = content.rindex(b",", 0, len(content) - 5)
    content[at + 5 : at + 9] = (10_000).to_bytes(2, "little") + (9_000).to_bytes(2, "little")
    with pytest.raises(ImageError, match="more than 89 million pixels are refused"):
        decode(bytes(content))


def test_a_tiff_of_many_channels_is_refused_without_a_word_on_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ImageError, match="has 9 channels; at most 6 can be read"):
        decode(tiff(np.zeros((8, 8, 9), np.uint8)))
    assert capfd.readouterr() == ("", "")


def test_big_jpeg_is_decoded_reduced_but_never_below_the_hint() -> None:
    content = encoded(smooth(1600, 1200), "JPEG", quality=95)
    assert decode(content).size == (1600, 1200)
    assert decode(content, 150).size == (200, 150)
    assert decode(content, 151).size == (400, 300)
    assert decode(content, 1000).size == (1600, 1200)
    spec = PreprocessSpec(size=64)
    full = to_pixels(decode(content), spec).astype(int)
    assert np.abs(full - load_pixels(content, spec)).mean() < 1.5


@pytest.mark.parametrize(("decoding", "reduced"), [(Decoding.SHARP, 1), (Decoding.FAST, 2)])
def test_pixels_of_a_camera_are_those_of_pillow_by_hand(decoding: Decoding, reduced: int) -> None:
    """640x480 at 224 px of 256: the resize makes it 341x256, of which columns 58 to 282 and rows 16 to 240 are kept."""
    content = encoded(Image.fromarray(noise(640, 480)), "JPEG")
    spec = PreprocessSpec(size=224, crop_fraction=0.875, decoding=decoding)
    size = (640 // reduced, 480 // reduced)
    box = (58 * size[0] / 341, 16 * size[1] / 256, 282 * size[0] / 341, 240 * size[1] / 256)
    with Image.open(io.BytesIO(content)) as image:
        image.draft(None, size)
        assert image.size == size
        by_hand = image.resize((224, 224), Image.Resampling.BICUBIC, box=box)
    assert np.array_equal(load_pixels(content, spec), by_hand)


@pytest.mark.parametrize("resize", Resize)
def test_fast_decoding_changes_jpegs_before_a_crop_only(resize: Resize) -> None:
    sharp = PreprocessSpec(size=28, crop_fraction=0.875, resize=resize)
    fast = replace(sharp, decoding=Decoding.FAST)
    picture = smooth(80, 60)
    jpeg, png = encoded(picture, "JPEG", quality=95), encoded(picture)
    assert np.array_equal(load_pixels(png, sharp), load_pixels(png, fast))
    apart = np.abs(load_pixels(jpeg, sharp).astype(int) - load_pixels(jpeg, fast))
    assert bool(apart.any()) == (resize is Resize.CROP)
    assert apart.mean() < 3


# --- refusals -----------------------------------------------------------------------------------------------


def refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        load_pixels(path, SQUASH)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


def test_refusals_name_the_file_and_the_reason(tmp_path: Path) -> None:
    jpeg, png = encoded(Image.fromarray(noise(64, 64)), "JPEG"), encoded(Image.fromarray(noise(64, 64)))
    refused(tmp_path, "empty.png", b"", "the file is empty.")
    refused(tmp_path, "text.jpg", b"not an image at all", "is not an image that can be read")
    refused(tmp_path, "ümlaut and space.jpg", jpeg[: len(jpeg) // 2], "is truncated")
    refused(tmp_path, "short.png", png[: len(png) // 2], "is truncated")
    refused(tmp_path, "header.jpg", jpeg[:20], "is not an image that can be read, or its start is corrupt")
    refused(tmp_path, "dot.png", encoded(Image.new("RGB", (1, 1))), "is 1x1 pixels; at least 4x4 are needed.")
    refused(tmp_path, "strip.png", encoded(Image.new("RGB", (500, 3))), "is 500x3 pixels; at least 4x4")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    refused(tmp_path, "flipped.png", bytes(flipped), "is corrupt")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    refused(tmp_path, "script.png", postscript, "is not an image that can be read")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: there is no such file\."):
        decode(tmp_path / "gone.png")
    with pytest.raises(ImageError, match=r"cannot be read \(Is a directory\)"):
        decode(tmp_path)


@pytest.mark.parametrize(("width", "height"), [(9_000, 10_000), (20_000, 10_000)])
def test_decompression_bomb_is_refused(width: int, height: int) -> None:
    content = bytearray(encoded(Image.new("1", (8, 8)), "PPM"))
    content = content.replace(b"8 8", f"{width} {height}".encode())
    with pytest.raises(ImageError, match="more than 89 million"):
        decode(bytes(content))


# --- resizing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interpolation", [Interpolation.BILINEAR, Interpolation.BICUBIC, Interpolation.LANCZOS]
)
@pytest.mark.parametrize("size", [(120, 80), (77, 131), (50, 50), (33, 200)])
def test_crop_equals_resizing_then_cropping(size: tuple[int, int], interpolation: Interpolation) -> None:
    spec = PreprocessSpec(size=48, crop_fraction=0.8, interpolation=interpolation)
    image = smooth(*size)
    side, shorter = spec.resized_side, min(size)
    whole = image.resize(
        (int(side * size[0] / shorter), int(side * size[1] / shorter)), Image.Resampling[interpolation.name]
    )
    left, top = round((whole.width - 48) / 2), round((whole.height - 48) / 2)
    expected = np.asarray(whole.crop((left, top, left + 48, top + 48)), dtype=int)
    difference = np.abs(to_pixels(image, spec) - expected)
    assert difference.max() <= 3
    assert difference.mean() < 0.2


def test_crop_of_an_extreme_strip_needs_little_memory() -> None:
    assert to_pixels(Image.new("RGB", (4, 60_000), "red"), PreprocessSpec(size=64)).shape == (64, 64, 3)


def test_image_of_the_right_size_is_left_alone() -> None:
    pixels = noise(32, 32)
    for resize in Resize:
        spec = PreprocessSpec(size=32, resize=resize, crop_fraction=1.0)
        assert np.array_equal(to_pixels(pixels, spec), pixels)


def test_pad_keeps_the_shape_and_fills_with_the_mean() -> None:
    spec = PreprocessSpec(size=32, resize=Resize.PAD)
    pixels = to_pixels(Image.new("RGB", (100, 50), "white"), spec)
    assert (pixels[8:24] == 255).all()
    border = normalise(pixels[None], spec)[0, :, [0, 7, 24, 31]]
    assert np.abs(border).max() < 0.01


def test_arrays_are_taken_as_images() -> None:
    grey = noise(20, 30)[..., 0]
    spec = PreprocessSpec(size=16)
    assert np.array_equal(to_pixels(grey, spec), to_pixels(Image.fromarray(grey), spec))
    assert np.array_equal(to_pixels(grey[..., None], spec), to_pixels(grey, spec))
    opaque = np.dstack([noise(20, 30), np.full((30, 20), 255, np.uint8)])
    assert np.array_equal(to_pixels(opaque, spec), to_pixels(opaque[..., :3], spec))


def test_arrays_of_another_kind_are_refused() -> None:
    with pytest.raises(TensorError, match=r"image is \(30, 20, 3\) float64, expected \(H, W, 3\) RGB"):
        to_pixels(noise(20, 30) / 255.0, SQUASH)  # type: ignore[arg-type]
    with pytest.raises(TensorError, match=r"image is \(3, 30, 20\) uint8"):
        to_pixels(noise(20, 30).transpose(2, 0, 1), SQUASH)
    with pytest.raises(ImageError, match="The image: is 2x2 pixels"):
        to_pixels(noise(2, 2), SQUASH)


# --- normalising --------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.05, 1)] * 3),
)
def test_normalise_follows_its_formula(
    count: int, height: int, width: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    spec = PreprocessSpec(size=8, mean=mean, std=std)
    out = normalise(pixels, spec)
    assert out.shape == (count, 3, height, width)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    expected = ((pixels / 255.0 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    assert np.allclose(out, expected, atol=2e-5)


def test_normalise_refuses_other_tensors() -> None:
    with pytest.raises(TensorError, match=r"pixels is \(1, 3, 8, 8\) uint8, expected \(N, H, W, 3\) uint8\."):
        normalise(np.zeros((1, 3, 8, 8), np.uint8), SQUASH)


def test_batch_is_the_same_with_threads(tmp_path: Path) -> None:
    sources: list[Path | bytes] = [encoded(Image.fromarray(noise(30, 20, seed))) for seed in range(5)]
    (tmp_path / "é 1.png").write_bytes(bytes(sources[0]))  # type: ignore[arg-type]
    sources.append(tmp_path / "é 1.png")
    one, four = load_batch(sources, SQUASH), load_batch(sources, SQUASH, threads=4)
    assert np.array_equal(one, four)
    assert np.array_equal(one[0], one[5])
    assert load_batch([], SQUASH).shape == (0, 3, 16, 16)


def test_needs_numpy_and_pillow_alone() -> None:
    code = (
        "import sys, edgetl.inputs.image; "
        "print([m for m in ('torch', 'pydantic', 'rich', 'typer', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
