"""What stands next to an image's pixels: taken off before decoding; only the orientation is read from it.

Cameras and editors write metadata that decoders stumble over: rationals out of range, text that unpacks to gigabytes,
profiles cut short, tags that point behind the end. None of it is the picture. So a decoder gets a file without it, and
the orientation is read here, by one small reader of EXIF (CIPA DC-008) for all formats; where there is none in EXIF,
from the XMP packet, where that has it as a plain attribute or element. What cannot be read counts as absent.

Only the parts of the container that lie before the pixels are walked; where they do not add up, the rest is handed on
as it is, and the decoder judges it. The standard library alone.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

__all__ = [
    "JPEG",
    "PNG",
    "TIFF",
    "UPRIGHT",
    "WEBP",
    "from_hex",
    "has_pages",
    "orientation",
    "without_metadata",
]

UPRIGHT = 1
"""EXIF's orientation of a picture that is stored as it is to be seen; 2 to 8 are its mirrorings and turns."""

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
"""How files start: little and big endian, with the two bytes swapped as some write them, and BigTIFF."""
WEBP = b"WEBP"

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ORIENTATION = 274
_XMP_ORIENTATION = rb"""tiff:Orientation(?:\s*=\s*["']|>)\s*([0-9])"""
_MAX_TEXT = 1 << 20
"""Bytes of unpacked text that are looked at."""

# JPEG (ITU T.81, B.1.1.3): JFIF and Adobe say what the colours are, where they are whole; the others only describe.
_JPEG_BESIDE = (*range(0xE0, 0xF0), 0xFE)
_JPEG_COLOURS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
"""How the segments start that say what the colours are, and how long they are at least: as libjpeg asks for it."""
_JPEG_END = (0xD9, 0xDA)
_JPEG_BARE = (0x01, *range(0xD0, 0xD8))
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}

# TIFF 6.0, its supplements, and the codecs' own: the tags without which the first page cannot be decoded.
_PIXEL_TAGS = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
_PIXEL_TAGS |= {332, 334, 336, 338, 339, 340, 341, 347, *range(512, 522), *range(529, 533), 50674}
_ONE_VALUE = {
    256,
    257,
    259,
    262,
    266,
    277,
    278,
    284,
    292,
    293,
    317,
    322,
    323,
    332,
    334,
    512,
    513,
    514,
    515,
    531,
}
_SAMPLES, _PLANES, _XMP_TAG = 277, 284, 700
_TEXTS = (1, 2, 7)
"""TIFF's types of bytes."""
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
"""TIFF's types, and the bytes of a value of each."""
_FORMATS = {1: "B", 3: "H", 4: "L", 5: "LL", 6: "b", 8: "h", 9: "l", 10: "ll", 11: "f", 12: "d", 16: "Q"}
"""TIFF's types of numbers; of one value, two for the rationals."""


def without_metadata(content: bytes) -> tuple[bytes, int]:
    """An encoded image as its decoder should see it, and its orientation, 1 to 8 as in EXIF.

    The pixels are those of `content`; of a TIFF of several pages, the first page is left, and nothing of one whose
    directory cannot be read.
    """
    if content.startswith(JPEG):
        return _jpeg(content)
    if content.startswith(PNG):
        return _png(content)
    if content.startswith(TIFF):
        return _tiff(content)
    if content.startswith(b"RIFF") and content[8:12] == WEBP:
        return _webp(content)
    return content, UPRIGHT


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation that an EXIF block says, with or without its `Exif` mark, or else an XMP packet; 1 to 8."""
    while exif.startswith(_EXIF):
        exif = exif[len(_EXIF) :]
    # A tag that is there and makes no sense stays in force: XMP is asked only where EXIF says nothing.
    said: object = None
    if (entry := _first(exif).get(_ORIENTATION)) is not None:
        said = _number(exif, entry)
    if said is None and (found := re.search(_XMP_ORIENTATION, xmp)):
        said = int(found[1])
    return int(said) if isinstance(said, int | float) and said in range(1, 9) else UPRIGHT


def samples(content: bytes) -> int:
    """Channels of a TIFF's first page; 1 where it does not say."""
    said = next((_number(content, entry) for tag, entry in _entries(content) if tag == _SAMPLES), 1)
    return said if isinstance(said, int) else 1


def has_pages(content: bytes) -> bool:
    """Whether a TIFF holds a further page or a smaller copy of the first; False for other formats."""
    if not content.startswith(TIFF):
        return False
    order, big = _order(content), _is_big(content)
    offset, count, length = ("Q", "Q", 20) if big else ("L", "H", 12)
    try:
        (at,) = struct.unpack_from(order + offset, content, 8 if big else 4)
        (entries,) = struct.unpack_from(order + count, content, at)
        after = at + struct.calcsize(order + count) + entries * length
        return bool(struct.unpack_from(order + offset, content, after)[0])
    except (struct.error, OverflowError):
        return False


# --- JPEG -------------------------------------------------------------------------------------------------


def _jpeg(content: bytes) -> tuple[bytes, int]:
    exif, xmp = b"", b""
    kept, start, at, last = [], 0, 2, len(content)
    while (mark := content.find(b"\xff", at)) >= 0 and mark + 4 <= last:
        if mark > at:  # junk, as where a segment is longer than it says: decoders look for the next mark
            kept.append(content[start:at])
            start = mark
        at = mark
        marker = content[at + 1]
        if marker in _JPEG_END:
            break
        if marker in (0x00, 0xFF) or marker in _JPEG_BARE:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if end < at + 4 or end > last:
            break
        body = content[at + 4 : end] if marker in _JPEG_BESIDE else b""
        head, least = _JPEG_COLOURS.get(marker, (b"", 0))
        if marker in _JPEG_BESIDE and not (least and len(body) >= least and body.startswith(head)):
            if marker == 0xE1:
                if body.startswith(_EXIF):
                    exif += body[len(_EXIF) :]  # a long block is split over several segments
                elif body.startswith(_XMP):
                    xmp = body
            kept.append(content[start:at])
            start = end
        at = end
    if not kept:
        return content, UPRIGHT
    return b"".join((*kept, content[start:])), orientation(exif, xmp)


# --- PNG --------------------------------------------------------------------------------------------------


def _png(content: bytes) -> tuple[bytes, int]:
    exif, profile, xmp = None, b"", b""
    kept, start, at, last = [], 0, len(PNG), len(content)
    while at + 8 <= last:
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        end = at + 12 + length
        if not kind.isalpha() or kind == b"IEND":
            break
        # A small first letter: the chunk is no part of the picture. tRNS is, all the same.
        beside = bool(kind[0] & 0x20) and kind != b"tRNS"
        if end > last:
            if beside:
                kept.append(content[start:at])
                start = last
            break
        if beside:
            body = content[at + 8 : end - 4]
            if (kind == b"eXIf" or kind in _PNG_TEXT) and _sound(content, at, end):
                if kind == b"eXIf":
                    exif = body
                else:
                    keyword, text = _png_text(kind, body)
                    if keyword == b"Raw profile type exif":
                        profile = text
                    elif keyword == b"XML:com.adobe.xmp":
                        xmp = text
            kept.append(content[start:at])
            start = end
        at = end
    if not kept:
        return content, UPRIGHT
    found = orientation(from_hex(profile.decode("latin-1")) if exif is None else exif, xmp)
    return b"".join((*kept, content[start:])), found


def _sound(content: bytes, at: int, end: int) -> bool:
    return zlib.crc32(content[at + 4 : end - 4]) == int.from_bytes(content[end - 4 : end], "big")


def _png_text(kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Keyword and text of a chunk; no text where it cannot be unpacked."""
    keyword, _, rest = body.partition(b"\0")
    match kind:
        case b"tEXt":
            return keyword, rest
        case b"zTXt":
            return keyword, _unpacked(rest[1:])
        case _:
            packed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
            return keyword, _unpacked(text) if packed else text


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _MAX_TEXT)
    except zlib.error:
        return b""


def from_hex(profile: str) -> bytes:
    """An EXIF block as ImageMagick writes it: a line break, its name and its length, each on a line; hex digits."""
    try:
        return bytes.fromhex("".join(profile.split("\n")[3:]))
    except ValueError:
        return b""


# --- WebP -------------------------------------------------------------------------------------------------


def _webp(content: bytes) -> tuple[bytes, int]:
    if content[12:16] != b"VP8X" or len(content) < 30:
        return content, UPRIGHT
    flags, found = content[20], dict.fromkeys(_WEBP_FLAGS, b"")
    kept, at = bytearray(), 12
    while at + 8 <= len(content):
        kind, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        if kind not in found:
            kept += content[at:end]
        elif flags & _WEBP_FLAGS[kind] and not found[kind]:
            found[kind] = content[at + 8 : at + 8 + length]
        at = end
    kept += content[at:]
    kept[8] &= ~sum(_WEBP_FLAGS.values()) & 0xFF  # VP8X is the first chunk: its flags follow kind and length
    head = b"RIFF" + (len(kept) + 4).to_bytes(4, "little") + WEBP
    return head + bytes(kept), orientation(found[b"EXIF"], found[b"XMP "])


# --- TIFF, which EXIF is too ------------------------------------------------------------------------------


def _tiff(content: bytes) -> tuple[bytes, int]:
    """A TIFF whose only directory names what its first page's pixels need; it stands where the first one stood.

    Pillow takes the order of planes from a tag that means nothing where there is one sample per pixel, and then
    misreads such files; so it goes too. It warns of entries that cannot be read, which go, and of too
    many values, of which the first stays, as it would take it.
    """
    entries = _first(content)
    single = _SAMPLES not in entries or _number(content, entries[_SAMPLES]) == 1
    kept, total = [], 0
    for tag, entry in sorted(entries.items()):
        if tag in _PIXEL_TAGS and not (tag == _PLANES and single):
            short, size = _readable(content, tag, entry)
            total += size
            if short and total <= len(content):
                kept.append(short)
    if not kept:
        return b"", UPRIGHT
    order, big = _order(content), _is_big(content)
    offset, count = ("Q", "Q") if big else ("L", "H")
    (at,) = struct.unpack_from(order + offset, content, 8 if big else 4)
    directory = struct.pack(order + count, len(kept)) + b"".join(kept) + struct.pack(order + offset, 0)
    said = orientation(content, _value(content, entries[_XMP_TAG]) if _XMP_TAG in entries else b"")
    return b"".join((content[:at], directory, content[at + len(directory) :])), said


def _first(content: bytes) -> dict[int, bytes]:
    """The entries by tag; of several for one tag, the first."""
    found: dict[int, bytes] = {}
    for tag, entry in _entries(content):
        found.setdefault(tag, entry)
    return found


def _readable(content: bytes, tag: int, entry: bytes) -> tuple[bytes, int]:
    """An entry, with one value where its tag has one, and the bytes that it takes elsewhere; empty without a value."""
    order, big = _order(content), len(entry) == 20
    number = "Q" if big else "L"
    kind, count = struct.unpack_from(order + "H" + number, entry, 2)
    unit = _BYTES.get(kind, 0)
    if tag in _ONE_VALUE and kind not in _TEXTS and count > 1:
        value = _value(content, entry, unit)[:unit]
        count = 1
        field = value.ljust(8 if big else 4, b"\0") if unit <= (8 if big else 4) else entry[-4:]
        entry = entry[:4] + struct.pack(order + number, 1) + field
        if len(value) < unit:
            return b"", 0
    size = unit * count
    if size <= (8 if big else 4):
        return (entry if size else b""), 0
    (at,) = struct.unpack(order + number, entry[12:] if big else entry[8:])
    return (entry if at + size <= len(content) else b""), size


def _order(content: bytes) -> str:
    return ">" if content.startswith(b"MM") else "<"


def _is_big(content: bytes) -> bool:
    return content[2:4] in (b"+\0", b"\0+")


def _entries(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and bytes of each entry in the first directory, as far as they lie in the content."""
    if not content.startswith(TIFF):
        return
    order, big = _order(content), _is_big(content)
    offset, count, length = ("Q", "Q", 20) if big else ("L", "H", 12)
    try:
        (at,) = struct.unpack_from(order + offset, content, 8 if big else 4)
        (entries,) = struct.unpack_from(order + count, content, at)
    except (struct.error, OverflowError):
        return
    at += struct.calcsize(order + count)
    for start in range(at, min(at + entries * length, len(content) - length + 1), length):
        entry = content[start : start + length]
        yield struct.unpack_from(order + "H", entry)[0], entry


def _value(content: bytes, entry: bytes, size: int = 1) -> bytes:
    """An entry's bytes, of which each value takes `size`; as many as there are."""
    order, big = _order(content), len(entry) == 20
    (count,) = struct.unpack_from(order + ("Q" if big else "L"), entry, 4)
    field = entry[12:] if big else entry[8:]
    if count * size <= len(field):
        return field[: count * size]
    (at,) = struct.unpack(order + ("Q" if big else "L"), field)
    return content[at : at + count * size]


def _number(content: bytes, entry: bytes) -> int | float | str:
    """An entry's first value; text where it is no number or lies outside the content."""
    order = _order(content)
    code = _FORMATS.get(struct.unpack_from(order + "H", entry, 2)[0])
    if code is None:
        return "no number"
    size = struct.calcsize(order + code)
    value = _value(content, entry, size)[:size]
    if len(value) < size:
        return "nothing"
    numbers = struct.unpack(order + code, value)
    if len(numbers) == 1:
        return numbers[0]  # type: ignore[no-any-return]
    return numbers[0] / numbers[1] if numbers[1] else "not finite"
