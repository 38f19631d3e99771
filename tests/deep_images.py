"""Images of more than 8 bits, as cameras and microscopes write them."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.metadata_files import png_chunk

PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
"""The colour type of a PNG by its channels."""


def png16(values: NDArray[np.uint16], extra: bytes = b"") -> bytes:
    """A PNG of 16 bits per channel; (H, W), or (H, W, C) for 2 (grey and alpha), 3 or 4 channels."""
    height, width, channels = (*values.shape, 1)[:3]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">LLBBBBB", width, height, 16, PNG_COLOURS[channels], 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    first, *others = (png_chunk(kind, body) for kind, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + first + extra + b"".join(others)


def tiff(
    values: NDArray[Any], order: str = "<", *, planar: int = 1, packed: bool = False, pages: int = 1
) -> bytes:
    """A TIFF of any numbers: (H, W) or (H, W, C).

    Args:
        values: the numbers.
        order: `<` or `>`.
        planar: 1 interleaved, 2 a plane a channel.
        packed: with zlib.
        pages: so many, all alike.
    """
    height, width, channels = (*values.shape, 1)[:3]
    stored = values.astype(values.dtype.newbyteorder(order))
    planes = [stored[..., c] for c in range(channels)] if planar == 2 and channels > 1 else [stored]
    strips = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    content = (b"II*\0" if order == "<" else b"MM\0*") + b"\0\0\0\0"
    links = [4]
    for _ in range(pages):
        offsets = []
        for strip in strips:
            offsets.append(len(content))
            content += strip + b"\0" * (len(strip) % 2)
        rows: list[tuple[int, str, list[int]]] = [
            (256, "L", [width]),
            (257, "L", [height]),
            (258, "H", [8 * values.dtype.itemsize] * channels),
            (259, "H", [8 if packed else 1]),
            (262, "H", [2 if channels > 2 else 1]),
            (273, "L", offsets),
            (277, "H", [channels]),
            (278, "L", [height]),
            (279, "L", [len(strip) for strip in strips]),
            (284, "H", [planar]),
            *([(338, "H", [2])] if channels == 4 else []),
            (339, "H", [form] * channels),
        ]
        entries = b""
        for tag, code, numbers in rows:
            data = struct.pack(order + code * len(numbers), *numbers)
            if len(data) > 4:
                data, content = (
                    struct.pack(order + "L", len(content)),
                    content + data + b"\0" * (len(data) % 2),
                )
            entries += struct.pack(order + "HHL", tag, {"H": 3, "L": 4}[code], len(numbers)) + data.ljust(
                4, b"\0"
            )
        start = len(content)
        link = links[-1]
        content = content[:link] + struct.pack(order + "L", start) + content[link + 4 :]
        content += struct.pack(order + "H", len(rows)) + entries + b"\0\0\0\0"
        links.append(len(content) - 4)
    return content
