"""Metadata beside sound pixels: whatever it holds, the pixels stay, and at most they are turned."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.errors import ImageError
from edgetl.inputs.image import PreprocessSpec, Resize, decode, to_pixels
from edgetl.inputs.metadata import UPRIGHT, orientation, without_metadata
from tests import metadata_files as files

SPEC = PreprocessSpec(size=16, resize=Resize.SQUASH)


def all_turns(kind: str) -> list[np.ndarray]:
    """The picture's pixels in that format, in all eight orientations."""
    stored = decode(without_metadata(files.with_metadata(kind, files.exif(1)))[0])
    return [np.asarray(stored), *(np.asarray(stored.transpose(turn)) for turn in Image.Transpose)]


def fuzz(cases: int, seed: int) -> int:
    """Mutate metadata; how many cases were turned otherwise than the original."""
    turned = 0
    for kind in files.KINDS:
        content = files.with_metadata(kind, files.exif(6), files.XMP % 3, bytes(range(64)))
        stretches, turns = files.beside(content, kind), all_turns(kind)
        original, generator = np.asarray(decode(content)), random.Random(f"{kind} {seed}")
        for case in range(cases):
            changed = files.mutated(content, stretches, generator)
            pixels = np.asarray(decode(changed))
            assert any(np.array_equal(pixels, other) for other in turns), f"{kind}, case {case}"
            turned += not np.array_equal(pixels, original)
    return turned


def test_no_mutation_of_metadata_changes_a_pixel() -> None:
    assert fuzz(60, seed=0) > 0


@pytest.mark.parametrize("kind", [k for k in files.KINDS if k != "GIF"])
def test_a_picture_with_broken_metadata_is_turned_as_it_says(kind: str) -> None:
    # The rational with a sign and the offset behind the end are what decoders stumble over.
    content = files.with_metadata(kind, files.exif(6), b"<not closed", b"\xff" * 32)
    turns = all_turns(kind)
    assert np.array_equal(np.asarray(decode(content)), turns[1 + Image.Transpose.ROTATE_270])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        (6, 3, 6),
        (6, 4, 6),
        (6, 5, 6),
        (6, 10, 1),
        (0, 3, 1),
        (9, 3, 1),
        (65535, 3, 1),
        ("6", 2, 1),
        ("upside", 2, 1),
    ],
)
def test_orientations_that_make_no_sense_count_as_none(
    value: object, kind: int, found: int, order: str
) -> None:
    block = files.exif(value, order, kind)
    assert orientation(block) == orientation(b"Exif\0\0" + block) == found


def test_xmp_is_asked_only_where_exif_says_nothing() -> None:
    assert orientation(b"", files.XMP % 8) == 8
    assert orientation(b"", b"<tiff:Orientation>3</tiff:Orientation>") == 3
    assert orientation(files.exif(6), files.XMP % 8) == 6
    assert orientation(files.exif(9), files.XMP % 8) == UPRIGHT
    assert orientation(b"", b"tiff:Orientation=6") == UPRIGHT


@pytest.mark.parametrize("cut", range(0, len(files.exif()), 3))
def test_exif_that_is_cut_short_is_read_as_far_as_it_goes(cut: int) -> None:
    assert orientation(files.exif(6)[:cut]) in (UPRIGHT, 6)


def test_a_jpeg_s_exif_of_many_segments_and_of_the_largest_size() -> None:
    base = files.encoded(files.picture(), "JPEG")
    huge = files.jpeg_segment(0xE1, b"Exif\0\0" + files.exif(6) + bytes(65_000)) * 40
    assert decode(base[:2] + huge + base[2:]).size == (16, 24)


@pytest.mark.parametrize(
    "segment",
    [
        files.jpeg_segment(0xEE, b"Adobe"),
        files.jpeg_segment(0xE0, b"JFIF\0\1"),
        files.jpeg_segment(0xE0, b""),
        files.jpeg_segment(0xED, b"Photoshop 3.0\0" + b"8BIM\xff\xff\xff\xff"),
        files.jpeg_segment(0xE2, b"MPF\0") + b"junk after a segment that is longer than it says",
        b"\xff\xff\xff" + files.jpeg_segment(0xFE, b""),
    ],
    ids=["cut Adobe", "cut JFIF", "empty", "cut Photoshop", "junk between segments", "filled"],
)
def test_a_jpeg_s_segments_harm_no_pixel_and_hide_no_orientation(segment: bytes) -> None:
    base, turned = files.with_metadata("JPEG", files.exif(6)), all_turns("JPEG")
    found = np.asarray(decode(base[:2] + segment + base[2:]))
    assert np.array_equal(found, turned[1 + Image.Transpose.ROTATE_270])


def test_an_attribute_of_xmp_may_stand_in_either_quotes() -> None:
    for packet in (b'tiff:Orientation="6"', b"tiff:Orientation = '6'", b"<tiff:Orientation> 6</"):
        assert orientation(b"", packet) == 6


@pytest.mark.parametrize(
    "chunk",
    [
        files.png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000))),
        files.png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(80_000_000))),
        files.png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(9000))[:20]),
        files.png_chunk(b"eXIf", b"Exif\0\0junk"),
        files.png_chunk(b"tEXt", b"Title\0text", crc=0),
        files.png_chunk(b"acTL", struct.pack(">LL", 0, 0)),
        files.png_chunk(b"pHYs", b""),
        files.png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n   4\nnot hexadecimal"),
    ],
    ids=[
        "text bomb",
        "international text bomb",
        "cut profile",
        "no exif",
        "wrong checksum",
        "no frames",
        "empty",
        "hex",
    ],
)
@pytest.mark.parametrize("where", ["before the pixels", "behind them"])
def test_a_png_s_chunks_harm_no_pixel(chunk: bytes, where: str) -> None:
    base = files.encoded(files.picture(), "PNG")
    at = 33 if where == "before the pixels" else len(base) - 12
    assert np.array_equal(np.asarray(decode(base[:at] + chunk + base[at:])), np.asarray(files.picture()))
    if where == "behind them":  # also where the file ends within the text
        assert np.array_equal(np.asarray(decode(base[:at] + chunk[:-6])), np.asarray(files.picture()))


def test_a_png_turns_as_imagemagick_s_profile_says() -> None:
    block = files.exif(3)
    text = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    base = files.encoded(files.picture(), "PNG")
    chunks = (
        files.png_chunk(b"tEXt", b"Raw profile type exif\0" + text),
        files.png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
    )
    for chunk in chunks:
        found = decode(base[:33] + chunk + base[33:])
        assert np.array_equal(
            np.asarray(found), np.asarray(files.picture().transpose(Image.Transpose.ROTATE_180))
        )


def test_what_is_no_metadata_stays() -> None:
    transparent = files.encoded(files.picture().quantize(4), "PNG", transparency=0)
    assert without_metadata(transparent) == (transparent, UPRIGHT)
    adobe = files.encoded(files.picture().convert("CMYK"), "JPEG")
    assert without_metadata(adobe) == (adobe, UPRIGHT)
    assert without_metadata(b"") == (b"", UPRIGHT)
    for start in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0+", b"RIFF\0\0\0\0WEBPVP8X"):
        for tail in (b"", b"\0", b"\xff" * 40, bytes(40)):
            assert without_metadata(start + tail)[1] == UPRIGHT


def test_pixels_that_are_cut_short_stay_an_error() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        content = files.with_metadata(kind, files.exif(6), b"x", b"y")
        plain = files.encoded(Image.effect_noise((64, 64), 80).convert("RGB"), kind)
        with pytest.raises(ImageError):
            decode(plain[: len(plain) // 2])
        assert decode(content).size in ((16, 24), (24, 16))


def test_a_pillow_image_is_turned_alike_and_quietly(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        content = files.with_metadata(kind, files.exif(6), b"x", zlib.compress(b"y" * 50))
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as opened:
            assert np.array_equal(to_pixels(opened, SPEC), to_pixels(decode(content), SPEC)), kind
