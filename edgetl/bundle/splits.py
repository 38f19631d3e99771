"""`splits.bin`: which images a bundle was trained on, chosen by and tested on, as shortened content hashes.

One line of JSON (`{"bytes": 6, "train": 800, "val": 100, "test": 100}`), then for each split in this order the first
6 bytes of every image file's SHA-256, sorted. With 60,000 images these are 360 kB, and the chance that an image from
elsewhere is taken for one of them is 2e-10.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import BundleIntegrityError

FILE = "splits.bin"
SPLITS = ("train", "val", "test")
_BYTES = 6


class Splits:
    """The images of each split.

    Args:
        hashes: a split's name to its sorted shortened hashes, uint64.
    """

    def __init__(self, hashes: Mapping[str, NDArray[np.uint64]]) -> None:
        self._hashes = hashes

    def holds(self, split: str, sha256: Sequence[str]) -> NDArray[np.bool_]:
        """For each image's SHA-256, in hex, whether it was in the split; an empty text never is."""
        known = np.array([bool(text) for text in sha256], dtype=bool)
        return known & np.isin(_shortened(text or "0" * 2 * _BYTES for text in sha256), self._hashes[split])

    def count(self, split: str) -> int:
        """How many different images a split has."""
        return len(self._hashes[split])

    def shortened(self, split: str) -> list[str]:
        """A split's shortened hashes in hex, which `encode` takes in place of whole ones."""
        return [f"{value:0{2 * _BYTES}x}" for value in self._hashes[split].tolist()]

    def with_trained(self, sha256: Sequence[str]) -> Splits:
        """With further images, by SHA-256 in hex, that were learned from."""
        more = np.union1d(self._hashes["train"], _shortened(sha256))
        return Splits({**self._hashes, "train": more})

    def encoded(self) -> bytes:
        """The file's content."""
        return _encoded(self._hashes)


def encode(sha256: Mapping[str, Iterable[str]]) -> bytes:
    """The file's content, from the SHA-256 in hex of every image of each split."""
    return _encoded({split: np.unique(_shortened(sha256.get(split, ()))) for split in SPLITS})


def _encoded(hashes: Mapping[str, NDArray[np.uint64]]) -> bytes:
    head = {"bytes": _BYTES, **{split: len(found) for split, found in hashes.items()}}
    rows = [found.astype(">u8").view(np.uint8).reshape(-1, 8)[:, -_BYTES:] for found in hashes.values()]
    return json.dumps(head).encode() + b"\n" + b"".join(row.tobytes() for row in rows)


def decode(content: bytes, where: str) -> Splits:
    """Read what `encode` wrote; `where` names it in errors.

    Raises:
        BundleIntegrityError: it is something else.
    """
    try:
        line, _, body = content.partition(b"\n")
        head = json.loads(line)
        counts = [int(head[split]) for split in SPLITS]
        if head["bytes"] != _BYTES or min(counts) < 0 or len(body) != _BYTES * sum(counts):
            raise ValueError("its head contradicts its size")
    except (ValueError, KeyError, TypeError) as error:
        raise BundleIntegrityError(f"{where} is broken: {error}.") from error
    rows = np.zeros((sum(counts), 8), dtype=np.uint8)
    rows[:, -_BYTES:] = np.frombuffer(body, dtype=np.uint8).reshape(-1, _BYTES)
    values = rows.view(">u8").ravel().astype(np.uint64)
    return Splits(dict(zip(SPLITS, np.split(values, np.cumsum(counts)[:-1]), strict=True)))


def _shortened(sha256: Iterable[str]) -> NDArray[np.uint64]:
    return np.array([int(text[: 2 * _BYTES], 16) for text in sha256], dtype=np.uint64)
