"""Which images a bundle was made from: shortened hashes, small, and checked as every other file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.pack import pack
from edgetl.bundle.splits import FILE, SPLITS, decode, encode
from edgetl.errors import BundleIntegrityError
from edgetl.files import sha256_bytes
from tests.bundles import contents


def _hashes(first: int, count: int) -> list[str]:
    return [sha256_bytes(str(number).encode()) for number in range(first, first + count)]


def test_sixty_thousand_images_take_less_than_a_megabyte() -> None:
    parts = {"train": _hashes(0, 48_000), "val": _hashes(48_000, 6_000), "test": _hashes(54_000, 6_000)}
    content = encode(parts)
    assert len(content) < 400_000
    assert content == encode({split: list(reversed(hashes)) for split, hashes in parts.items()})
    splits = decode(content, "x")
    others = _hashes(60_000, 20_000)
    for split, hashes in parts.items():
        assert splits.holds(split, hashes).all()
        assert not splits.holds(split, [*others, ""]).any()
        assert not any(splits.holds(other, hashes).any() for other in parts if other != split)


@pytest.mark.parametrize("parts", [{}, {"train": ["ab" * 32]}, {"test": ["0" * 64, "f" * 64]}])
def test_splits_may_be_empty(parts: dict[str, list[str]]) -> None:
    splits = decode(encode(parts), "x")
    for split in SPLITS:
        assert splits.holds(split, parts.get(split, [])).all()
        assert splits.holds(split, ["12" * 32]).tolist() == [False]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]\n", encode({"train": ["ab" * 32]})[:-1], b'{"bytes": 6, "train": "x"}\n']
)
def test_what_is_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(BundleIntegrityError, match="x is broken"):
        decode(content, "x")


def test_a_bundle_carries_them(tmp_path: Path) -> None:
    pack(replace(contents(tmp_path), splits={"train": _hashes(0, 5)}), tmp_path / "new.edgetl")
    bundle = open_bundle(tmp_path / "new.edgetl")
    bundle.verify()
    splits = bundle.splits()
    assert splits is not None
    assert splits.holds("train", _hashes(3, 4)).tolist() == [True, True, False, False]
    assert FILE in {member.file for member in bundle.manifest.members()}


def test_an_older_bundle_tells_nothing(tmp_path: Path) -> None:
    pack(contents(tmp_path), tmp_path / "old.edgetl")
    assert open_bundle(tmp_path / "old.edgetl").splits() is None
