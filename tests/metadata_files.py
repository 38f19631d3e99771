"""Sound pictures with every kind of metadata, and where it lies in the file."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from edgetl.inputs.metadata import orientation

XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "MPO", "GIF")


def picture(side: tuple[int, int] = (24, 16)) -> Image.Image:
    """Corners of four colours, so that each of the eight orientations looks different."""
    small = np.array([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [250, 250, 10]]], np.uint8)
    return Image.fromarray(small).resize(side, Image.Resampling.NEAREST)


def exif(turn: object = 6, order: str = "<", kind: int = 3) -> bytes:
    """A block of EXIF with a maker, the orientation, a rational with a sign, and an offset to a further directory."""
    value = {
        2: lambda: str(turn).encode() + b"\0",
        3: lambda: struct.pack(order + "H", turn),
        4: lambda: struct.pack(order + "L", turn),
        5: lambda: struct.pack(order + "LL", turn, 1),  # type: ignore[arg-type]
        10: lambda: struct.pack(order + "ll", turn, -1),  # type: ignore[arg-type]
    }[kind]()
    rows = [
        (271, 2, b"Maker of cameras\0"),
        (274, kind, value),
        (37380, 10, struct.pack(order + "ll", -7, 3)),
    ]
    rows += [(34665, 4, struct.pack(order + "L", 1 << 30))]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "LH", 8, len(rows))
    at, entries, rest = 10 + 12 * len(rows) + 4, b"", b""
    for tag, form, data in rows:
        count = len(data) // {2: 1, 3: 2, 4: 4, 5: 8, 10: 8}[form]
        field = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "L", at + len(rest))
        rest += data if len(data) > 4 else b""
        entries += struct.pack(order + "HHL", tag, form, count) + field
    return head + entries + b"\0\0\0\0" + rest


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def png_chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG; with another checksum where one is given."""
    right = zlib.crc32(kind + body)
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", right if crc is None else crc)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file of that kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_metadata(kind: str, block: bytes, xmp: bytes = b"", icc: bytes = b"") -> bytes:
    """The picture as a file of that kind, with blocks that nobody checked."""
    match kind:
        case "JPEG" | "MPO":
            base = encoded(picture(), "JPEG", quality=95, subsampling=0)
            beside = jpeg_segment(0xE1, b"Exif\0\0" + block) + jpeg_segment(0xFE, b"a comment")
            beside += jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)
            beside += jpeg_segment(0xE2, (b"MPF\0" if kind == "MPO" else b"ICC_PROFILE\0\1\3") + icc)
            return base[:2] + beside + base[2:]
        case "PNG":
            base = encoded(picture(), "PNG")
            beside = png_chunk(b"eXIf", block) + png_chunk(b"iCCP", b"profile\0\0" + icc)
            beside += png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + png_chunk(
                b"tEXt", b"Title\0" + icc
            )
            return base[:33] + beside + base[33:-12] + png_chunk(b"zTXt", b"Comment\0\0" + icc) + base[-12:]
        case "WEBP":
            # Pillow writes the chunks; what is in them it does not look at.
            return encoded(
                picture(), kind, lossless=True, exif=block, xmp=xmp or b"x", icc_profile=icc or b"i"
            )
        case "TIFF":
            tags = {270: "t" * 40, 271: "Maker of cameras", 274: orientation(block), 700: xmp}
            return encoded(picture(), kind, icc_profile=icc or b"icc", tiffinfo=tags)
        case _:
            return encoded(picture(), kind, comment=block)


def beside(content: bytes, kind: str) -> list[range]:
    """The stretches of a file that hold the contents of metadata, in which any byte may be another."""
    found: list[range] = []
    match kind:
        case "JPEG" | "MPO":
            at = 2
            while content[at + 1] != 0xDA:
                length = struct.unpack_from(">H", content, at + 2)[0]
                if content[at + 1] in (0xE1, 0xE2, 0xFE):
                    found.append(range(at + 4, at + 2 + length))
                at += 2 + length
        case "PNG":
            at = 8
            while at < len(content):
                length = struct.unpack_from(">L", content, at)[0]
                if content[at + 4] & 0x20:
                    found.append(range(at + 8, at + 12 + length))
                at += 12 + length
        case "WEBP":
            at = 12
            while at < len(content):
                length = struct.unpack_from("<L", content, at + 4)[0]
                if content[at : at + 4] in (b"EXIF", b"XMP ", b"ICCP"):
                    found.append(range(at + 8, at + 8 + length))
                at += 8 + length + length % 2
        case "TIFF":
            start = struct.unpack_from("<L", content, 4)[0]
            for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", content, start)[0], 12):
                tag = struct.unpack_from("<H", content, at)[0]
                if tag in (270, 271, 274, 282, 283, 296, 305, 700, 34665, 34675, 37380):
                    found.append(range(at + 2, at + 12))
        case _:
            at = content.index(b"\x21\xfe")
            found.append(range(at + 3, at + 3 + content[at + 2]))
    return found


def mutated(content: bytes, stretches: list[range], generator: random.Random) -> bytes:
    """One to eight bytes of the metadata overwritten, or a stretch of it."""
    changed = bytearray(content)
    for _ in range(generator.randint(1, 8)):
        where = generator.choice(stretches)
        at = generator.choice(where)
        length = 1 if generator.random() < 0.6 else min(generator.randint(1, 12), where.stop - at)
        fill: Callable[[int], bytes] = generator.choice((generator.randbytes, lambda n: b"\xff" * n, bytes))
        changed[at : at + length] = fill(length)
    return bytes(changed)
