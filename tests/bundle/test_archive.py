from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.bundle import archive
from edgetl.bundle.archive import Bundle, is_safe_name, open_bundle, write_archive
from edgetl.bundle.manifest import SCHEMA_VERSION, Manifest, Member, encode
from edgetl.bundle.pack import pack
from edgetl.errors import BundleError, BundleIntegrityError, BundleSchemaError, StorageError
from tests.bundles import contents


@dataclass(frozen=True)
class Packed:
    """A packed bundle: its bytes, its contents, and where each part of the file lies."""

    path: Path
    content: bytes
    manifest: Manifest
    files: dict[str, bytes]
    regions: dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    folder = tmp_path_factory.mktemp("packed")
    path = folder / "flowers.edgetl"
    manifest = pack(contents(folder), path)
    bundle = open_bundle(path)
    regions = {}
    with zipfile.ZipFile(path) as zipped:
        for info in zipped.infolist():
            start = info.header_offset + 30 + len(info.filename)
            regions[f"header of {info.filename}"] = (info.header_offset, start)
            regions[info.filename] = (start, start + info.file_size)
        end = path.stat().st_size
        regions["directory"] = (zipped.start_dir, end - 22 - len(zipped.comment))
        regions["end record"] = (end - 22 - len(zipped.comment), end - len(zipped.comment))
        regions["seal"] = (end - len(zipped.comment), end)
    return Packed(path, path.read_bytes(), manifest, everything(bundle), regions)


def everything(bundle: Bundle) -> dict[str, bytes]:
    return {member.file: bundle.read(member) for member in bundle.manifest.members()}


def members(packed: Packed) -> dict[str, bytes | Path]:
    return dict(packed.files)


# --- what is written ----------------------------------------------------------------------------------------


def test_a_bundle_holds_what_was_packed(packed: Packed) -> None:
    bundle = open_bundle(packed.path)
    bundle.verify()
    assert bundle.manifest == packed.manifest
    assert sorted(packed.files) == [
        "golden/00.png",
        "golden/01.jpg",
        "golden/02.png",
        "golden/fp32.npz",
        "golden/int8-cpu-x86.npz",
        "models/fp32.onnx",
        "models/int8-cpu-x86.onnx",
    ]
    assert bundle.model() == packed.files["models/fp32.onnx"]
    assert bundle.model("int8-cpu-x86") == packed.files["models/int8-cpu-x86.onnx"]
    logits = bundle.golden_outputs("int8-cpu-x86")["logits"]
    assert logits.shape == (3, 3)
    assert logits.dtype == np.float32


def test_any_zip_tool_reads_it_and_members_are_stored(packed: Packed) -> None:
    with zipfile.ZipFile(packed.path) as zipped:
        assert zipped.testzip() is None
        assert {info.compress_type for info in zipped.infolist()} == {zipfile.ZIP_STORED}
        assert zipped.read("manifest.json") == encode(packed.manifest)


def test_equal_contents_give_an_equal_file(packed: Packed, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / "again.edgetl"
    pack(contents(tmp_path), again)
    assert again.read_bytes() == packed.content


def test_unpack_writes_every_file(packed: Packed, tmp_path: Path) -> None:
    open_bundle(packed.path).unpack(tmp_path / "out")
    found = {
        p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")
    }
    assert found == {**packed.files, "manifest.json": encode(packed.manifest)}


def test_a_failed_write_leaves_the_old_bundle(packed: Packed, tmp_path: Path) -> None:
    path = tmp_path / "b.edgetl"
    path.write_bytes(packed.content)
    wrong = {**members(packed), "models/fp32.onnx": b"\0" * len(packed.files["models/fp32.onnx"])}
    with pytest.raises(ValueError, match=r"models/fp32\.onnx is not what the manifest says"):
        write_archive(packed.manifest, wrong, path)
    assert path.read_bytes() == packed.content
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        write_archive(packed.manifest, members(packed), tmp_path / "file" / "b.edgetl")


def test_unknown_variants_are_refused_with_the_known_ones(packed: Packed) -> None:
    with pytest.raises(BundleError, match=r"has no variant 'fp61'; it has fp32, int8-cpu-x86\.$"):
        open_bundle(packed.path).model("fp61")


# --- what is refused ----------------------------------------------------------------------------------------


def altered(packed: Packed, path: Path, offset: int, flip: int) -> None:
    content = bytearray(packed.content)
    content[offset] ^= flip
    path.write_bytes(content)


def assert_found(packed: Packed, path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        open_bundle(path).verify()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["first", "middle", "last"])
def test_one_altered_byte_in_any_part_of_the_file_is_found(packed: Packed, tmp_path: Path, end: str) -> None:
    assert len(packed.regions) == 2 * 8 + 3
    path = tmp_path / "altered.edgetl"
    for name, (start, stop) in packed.regions.items():
        assert stop > start, name
        altered(packed, path, {"first": start, "middle": (start + stop) // 2, "last": stop - 1}[end], 0x01)
        assert_found(packed, path)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_one_altered_byte_anywhere_is_found(packed: Packed, data: st.DataObject) -> None:
    region = data.draw(st.sampled_from(sorted(packed.regions)))
    start, stop = packed.regions[region]
    offset = data.draw(st.integers(start, stop - 1))
    path = packed.path.with_name("drawn.edgetl")
    altered(packed, path, offset, data.draw(st.integers(1, 255)))
    assert_found(packed, path)


def test_every_altered_byte_of_the_zip_structures_is_found(packed: Packed, tmp_path: Path) -> None:
    path = tmp_path / "altered.edgetl"
    structures = [r for name, r in packed.regions.items() if not name.startswith(("golden", "models"))]
    offsets = [i for start, stop in structures for i in range(start, stop, 3)]
    assert len(offsets) > 1000
    for offset in offsets:
        altered(packed, path, offset, 0x80)
        with pytest.raises(BundleError):
            open_bundle(path)


@settings(max_examples=200, deadline=None)
@given(share=st.floats(0.0, 1.0, exclude_max=True))
def test_a_bundle_truncated_at_any_length_is_refused(packed: Packed, share: float) -> None:
    path = packed.path.with_name("cut.edgetl")
    path.write_bytes(packed.content[: int(share * len(packed.content))])
    with pytest.raises(BundleIntegrityError, match="truncated"):
        open_bundle(path)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 29, -1, -22, -78, -100])
def test_truncation_at_the_edges(packed: Packed, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.edgetl"
    path.write_bytes(packed.content[:length])
    with pytest.raises(BundleIntegrityError, match="truncated"):
        open_bundle(path)


@pytest.mark.parametrize(
    "extra", [(b"\0", b""), (b"", b"\0"), (b"#!/bin/sh\n", b""), (b"", b"PK\x05\x06" + bytes(18))]
)
def test_bytes_before_or_after_are_found(packed: Packed, tmp_path: Path, extra: tuple[bytes, bytes]) -> None:
    path = tmp_path / "longer.edgetl"
    path.write_bytes(extra[0] + packed.content + extra[1])
    with pytest.raises(BundleError):
        open_bundle(path)


def test_contents_altered_after_opening_are_found_before_use(packed: Packed, tmp_path: Path) -> None:
    path = tmp_path / "b.edgetl"
    path.write_bytes(packed.content)
    bundle = open_bundle(path)
    altered(packed, path, packed.regions["models/fp32.onnx"][0] + 5, 0xFF)
    with pytest.raises(BundleIntegrityError, match=r"models/fp32\.onnx was altered"):
        bundle.model()
    assert bundle.model("int8-cpu-x86")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello world", "is not an edgetl bundle"),
        (b"\x89PNG\r\n", "is not an edgetl bundle"),
        (b"PK", "truncated"),
    ],
)
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.edgetl"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=reason):
        open_bundle(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"There is no bundle at .*no\.edgetl\.$"):
        open_bundle(tmp_path / "no.edgetl")
    with pytest.raises(BundleError, match="Cannot read the bundle"):
        open_bundle(tmp_path)


def test_another_zip_is_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("readme.txt", "hello")
    with pytest.raises(BundleError, match=r"is not an edgetl bundle \(it has no manifest\.json\)"):
        open_bundle(path)


def test_a_newer_schema_in_a_whole_bundle(packed: Packed, tmp_path: Path) -> None:
    path = tmp_path / "new.edgetl"
    write_archive(replace(packed.manifest, schema_version=SCHEMA_VERSION + 1), members(packed), path)
    with pytest.raises(BundleSchemaError, match="Install a wheel of that version of edgetl"):
        open_bundle(path)


# --- what would be unsafe -----------------------------------------------------------------------------------

UNSAFE = [
    "../evil",
    "models/../../evil",
    "models/..",
    "/etc/passwd",
    "models\\evil",
    "C:/evil",
    "C:evil",
    "models//a",
    "models/",
    "./a",
    ".hidden",
    "a b",
    "naïve",
    "",
    "a" * 256,
    "con\n",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names(name: str) -> None:
    assert not is_safe_name(name)


def test_safe_names(packed: Packed) -> None:
    assert all(map(is_safe_name, ["manifest.json", *packed.files, "engines/a-sm89.engine"]))


def write_by_hand(path: Path, entries: Iterator[tuple[zipfile.ZipInfo, bytes]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as zipped:
        for info, content in entries:
            zipped.writestr(info, content)
        zipped.comment = b"edgetl-sha256:" + b"0" * 64


def seal(path: Path) -> None:
    """Make the seal right, as someone who means harm would."""
    with path.open("r+b") as file:
        digest = archive._seal(file, archive._spans(file, "x"))
        file.seek(-64, 2)
        file.write(digest.encode())


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "models\\evil", "C:/evil", "golden/../../x"])
def test_a_path_that_climbs_out_is_refused(packed: Packed, tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.edgetl"
    entries = [("manifest.json", encode(packed.manifest)), *packed.files.items(), (name, b"boo")]
    write_by_hand(path, ((zipfile.ZipInfo(n), c) for n, c in entries))
    with pytest.raises(BundleIntegrityError, match="holds the unsafe path"):
        open_bundle(path)


def test_a_climbing_path_in_the_manifest_cannot_be_written(packed: Packed, tmp_path: Path) -> None:
    member = Member(file="../evil", size_bytes=3, sha256="0" * 64)
    golden = replace(packed.manifest.golden, images=(*packed.manifest.golden.images, member))
    with pytest.raises(ValueError, match="unsafe member name"):
        write_archive(
            replace(packed.manifest, golden=golden), {**members(packed), "../evil": b"boo"}, tmp_path / "x"
        )


def test_a_symbolic_link_is_refused(packed: Packed, tmp_path: Path) -> None:
    path = tmp_path / "evil.edgetl"
    link = zipfile.ZipInfo("models/link.onnx")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    plain = (
        (zipfile.ZipInfo(n), c)
        for n, c in [("manifest.json", encode(packed.manifest)), *packed.files.items()]
    )
    write_by_hand(path, iter([*plain, (link, b"/etc/passwd")]))
    with pytest.raises(BundleIntegrityError, match=r"holds the symbolic link 'models/link\.onnx'"):
        open_bundle(path)


@pytest.mark.parametrize("second", ["models/fp32.onnx", "models/FP32.onnx"])
def test_a_name_held_twice_is_refused(packed: Packed, tmp_path: Path, second: str) -> None:
    path = tmp_path / "twice.edgetl"
    entries = [
        *packed.files.items(),
        ("models/xp32.onnx", b"other"),
        ("manifest.json", encode(packed.manifest)),
    ]
    write_by_hand(path, ((zipfile.ZipInfo(n), c) for n, c in entries))
    path.write_bytes(path.read_bytes().replace(b"models/xp32.onnx", second.encode()))
    with pytest.raises(BundleIntegrityError, match="holds two members of one name"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"models/spare.onnx": b"x"}, r"holds 'models/spare\.onnx', which its manifest does not list"),
        ({"models/fp32.onnx": None}, r"lacks 'models/fp32\.onnx', which its manifest lists"),
        ({"models/fp32.onnx": b"short"}, r"models/fp32\.onnx has 5 bytes, its manifest says \d+"),
    ],
)
def test_members_must_be_those_of_the_manifest(
    packed: Packed, tmp_path: Path, change: dict[str, bytes | None], reason: str
) -> None:
    path = tmp_path / "x.edgetl"
    entries = {"manifest.json": encode(packed.manifest), **packed.files, **change}
    write_by_hand(path, ((zipfile.ZipInfo(n), c) for n, c in entries.items() if c is not None))
    with pytest.raises(BundleIntegrityError, match="its seal does not match"):
        open_bundle(path)
    seal(path)
    with pytest.raises(BundleIntegrityError, match=reason):
        open_bundle(path)


def test_a_model_of_the_right_size_but_another_content_is_found_when_read(
    packed: Packed, tmp_path: Path
) -> None:
    path = tmp_path / "x.edgetl"
    other = bytes(len(packed.files["models/fp32.onnx"]))
    entries = {"manifest.json": encode(packed.manifest), **packed.files, "models/fp32.onnx": other}
    write_by_hand(path, ((zipfile.ZipInfo(n), c) for n, c in entries.items()))
    seal(path)
    with pytest.raises(BundleIntegrityError, match=r"models/fp32\.onnx was altered"):
        open_bundle(path).model()


def test_compressed_members_are_refused(packed: Packed, tmp_path: Path) -> None:
    path = tmp_path / "x.edgetl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in [("manifest.json", encode(packed.manifest)), *packed.files.items()]:
            zipped.writestr(name, content)
    with pytest.raises(BundleIntegrityError, match="is not stored plainly; it was not written by edgetl"):
        open_bundle(path)
