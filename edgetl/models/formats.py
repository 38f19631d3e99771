"""What a file of weights is, by its first bytes, so that what is wrong with it can be said in our own words."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

_HEAD = 1024
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LFS = b"version https://git-lfs"
_MOST_HEADER = 100_000_000
"""Bytes of the longest header that safetensors reads."""


class Format(StrEnum):
    """Of a file."""

    SAFETENSORS = "safetensors"
    TORCH = "torch"
    OTHER = "other"


def recognise(path: Path) -> Format:
    """What the file is, whatever it is called.

    Raises:
        OSError: it cannot be read.
    """
    head = _head(path)
    if head.startswith((_ZIP, _PICKLE)):
        return Format.TORCH
    if 2 <= int.from_bytes(head[:8], "little") <= _MOST_HEADER and head[8:9] == b"{":
        return Format.SAFETENSORS
    return Format.OTHER


def fault(path: Path) -> str:
    """Why a file that does not load may not: what it is instead, as it ends a sentence `FILE ...`.

    Raises:
        OSError: it cannot be read.
    """
    head = _head(path)
    match recognise(path):
        case Format.SAFETENSORS:
            expected, size = _expected_bytes(path), path.stat().st_size
            if expected is not None and size < expected:
                return f"is cut short: {size} of {expected} bytes are there. Get a fresh copy."
            return "is a damaged .safetensors file. Get a fresh copy."
        case Format.TORCH if head.startswith(_ZIP):
            if _is_whole_zip(path):
                return _MORE
            return "is cut short or damaged. Get a fresh copy."
        case Format.TORCH:
            return _MORE
        case _:
            pass
    if not head:
        return "is empty. Get a fresh copy."
    if head.startswith(_LFS):
        return "is a pointer of Git LFS and not the file itself. Fetch that with: git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page: the download gave a page in place of the file. Download the file itself."
    if _is_text(head):
        return "is a text file. Name a .safetensors file or a state dict of tensors (.pth)."
    return "is neither a .safetensors file nor a state dict that torch saved. Name one of these."


_MORE = (
    "is damaged, or holds more than tensors; code in it is never run. Where it was made, save only the tensors as a "
    ".safetensors file (safetensors.torch.save_model), or torch.save(model.state_dict(), ...)."
)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _expected_bytes(path: Path) -> int | None:
    """The size that a .safetensors file's header says; None where the header itself is broken."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length)
        if len(text) < length:
            return 8 + length
        tensors = {k: v for k, v in json.loads(text).items() if k != "__metadata__"}
        return 8 + length + max((int(v["data_offsets"][1]) for v in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None


def _is_whole_zip(path: Path) -> bool:
    import zipfile

    return zipfile.is_zipfile(path)


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", "ignore")
    return len(text) > 0.9 * len(head) and all(c.isprintable() or c in "\r\n\t" for c in text)
