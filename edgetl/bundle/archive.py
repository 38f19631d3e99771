"""The bundle's file format: writing, opening, and refusing what is not whole.

A bundle is a zip whose members are stored, not compressed. It holds `manifest.json`, `models/VARIANT.onnx` (or
`.tflite`), `golden/NN.jpg`, `golden/VARIANT.npy` and `splits.bin`, and, where they were built, `engines/*.engine`; a
signed one holds `signature.json` (see `edgetl.bundle.signature`). The archive's comment is the seal: `edgetl-sha256:`
and the SHA-256 in hex of every byte before the digest, except the contents of the members other than `manifest.json`
and `signature.json`. Those contents are covered by the hashes in the manifest. So a change of any one byte is
found: in the manifest, the signature or the zip's own structures when the bundle is opened, elsewhere before
the bytes are used.

Equal contents give an equal file: members stand in sorted order with one fixed date.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle import manifest
from edgetl.bundle.manifest import MANIFEST, Manifest, Member, Variant
from edgetl.errors import BundleError, BundleIntegrityError
from edgetl.files import atomic_path, sha256_bytes, storage_errors
from edgetl.records.frozen import dataclass
from edgetl.shell import command

if TYPE_CHECKING:
    import zipfile

    from edgetl.bundle.splits import Splits


SIGNATURE = "signature.json"
_SEAL = b"edgetl-sha256:"
_DIGITS = 64
_ZIP_START = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_MAX_MANIFEST_BYTES = 64 << 20
_SEALED = (MANIFEST, SIGNATURE)
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)*")
# A zip's central directory is read here: importing `zipfile` would cost a device more than reading a bundle does.
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_ENTRY_START, _END_START = b"PK\x01\x02", b"PK\x05\x06"
_MAX_COMMENT = 0xFFFF
_PIECE = 1 << 20


def is_safe_name(name: str) -> bool:
    """Whether a member may have this name: relative, ASCII, without `..`, backslash or drive letter."""
    return _SAFE_NAME.fullmatch(name) is not None and len(name) <= 255


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One entry of the zip's directory; `mode` is the file's Unix mode."""

    name: str
    offset: int
    size: int
    plain: bool
    mode: int


@dataclass(frozen=True, kw_only=True)
class _Span:
    """Where a member's content stands in the file, in bytes."""

    start: int
    size: int


class _Source:
    """The file that was opened, for as long as it is needed: what takes its name meanwhile is another bundle.

    On Windows, where nothing can replace a file that is open, it is opened for each read instead.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._descriptor = None if sys.platform == "win32" else os.dup(file.fileno())
        if self._descriptor is not None:
            # Not by `__del__`, which may run when the interpreter has taken the module's names away; and not when it
            # ends, since others may read to the last.
            weakref.finalize(self, os.close, self._descriptor).atexit = False

    def read(self, start: int, size: int) -> bytes:
        """As many bytes from there on as the file has, at most `size`; several threads may read at once.

        Raises:
            BundleError: it cannot be read.
        """
        if sys.platform == "win32" or self._descriptor is None:
            with _opened(self._path) as file:
                file.seek(start)
                return file.read(size)
        pieces, end = [], start + size
        with _read_errors(self._path):
            while start < end and (piece := os.pread(self._descriptor, end - start, start)):
                pieces.append(piece)
                start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle: each read is of the very file that was opened, and its bytes are checked before they are used.

    `manifest_bytes` are what was sealed and signed; `signature` is `signature.json`, None where there is none.
    """

    path: Path
    manifest: Manifest
    _spans: Mapping[str, _Span]
    _source: _Source
    manifest_bytes: bytes
    signature: bytes | None = None

    def read(self, member: Member) -> bytes:
        """One member's content.

        Raises:
            BundleIntegrityError: the content is not what the manifest says.
            BundleError: the file cannot be read any more.
        """
        span = self._spans[member.file]
        content = self._source.read(span.start, span.size)
        if len(content) != member.size_bytes or sha256_bytes(content) != member.sha256:
            raise BundleIntegrityError(
                f"{self.path}: {member.file} was altered: its SHA-256 is not the manifest's. Get a fresh copy."
            )
        return content

    def sha256(self) -> str:
        """SHA-256 of the whole file as 64 hex digits.

        Raises:
            BundleError: the file cannot be read any more.
        """
        digest, at = hashlib.sha256(), 0
        while piece := self._source.read(at, _PIECE):
            digest.update(piece)
            at += len(piece)
        return digest.hexdigest()

    def content(self) -> bytes:
        """The whole file's bytes.

        Raises:
            BundleError: the file cannot be read any more.
        """
        pieces, at = list[bytes](), 0
        while piece := self._source.read(at, _PIECE):
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces)

    def variant(self, name: str | None = None) -> Variant:
        """The variant of that name; the default one for None.

        Raises:
            BundleError: there is none of that name; the message lists those that are.
        """
        if (found := self.manifest.variant(name)) is not None:
            return found
        known = ", ".join(variant.name for variant in self.manifest.variants)
        raise BundleError(f"{self.path} has no variant {name!r}; it has {known}.")

    def model(self, name: str | None = None) -> bytes:
        """The ONNX model of a variant; the default one for None.

        Raises:
            BundleError: there is no such variant, or its file was altered.
        """
        return self.read(self.variant(name).member)

    def golden_images(self) -> tuple[bytes, ...]:
        """The golden pictures, encoded.

        Raises:
            BundleIntegrityError: one was altered.
        """
        return tuple(self.read(member) for member in self.manifest.golden.images)

    def golden_outputs(self, name: str | None = None) -> dict[str, NDArray[np.float32]]:
        """The outputs recorded for a variant, by name; the first axis is that of the golden images.

        Raises:
            BundleError: there is no such variant, or the file was altered or does not fit the manifest.
        """
        from edgetl.bundle import golden
        from edgetl.tasks.all import task_of

        member = self.manifest.golden.outputs[self.variant(name).name]
        return golden.decode_outputs(
            self.read(member),
            task_of(self.manifest.task),
            len(self.manifest.golden.images),
            f"{self.path}: {member.file}",
        )

    def splits(self) -> Splits | None:
        """Which images it was trained on; None where it does not say.

        Raises:
            BundleIntegrityError: the file was altered.
        """
        from edgetl.bundle import splits

        member = self.manifest.splits
        return None if member is None else splits.decode(self.read(member), f"{self.path}: {member.file}")

    def verify(self) -> None:
        """Check every member against the manifest.

        Raises:
            BundleIntegrityError: naming the first that differs.
        """
        for member in self.manifest.members():
            self.read(member)
        for variant in self.manifest.variants:
            self.golden_outputs(variant.name)

    def unpack(self, folder: Path) -> None:
        """Write `manifest.json` and every member below `folder`, each checked first.

        Raises:
            BundleIntegrityError: a member was altered.
            StorageError: the folder cannot be written.
        """
        contents = [(MANIFEST, self.manifest_bytes)]
        contents += [(SIGNATURE, self.signature)] if self.signature is not None else []
        for name, content in [*contents, *((m.file, self.read(m)) for m in self.manifest.members())]:
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)


def open_bundle(path: Path) -> Bundle:
    """Open a bundle: its structure and manifest are checked now, every other member when it is read.

    Args:
        path: the file; or the folder of an OCI image layout that holds it (`edgetl.bundle.layout`), whose hashes are
            checked first.

    Raises:
        BundleIntegrityError: it is truncated, altered, or holds unsafe or unlisted members.
        BundleSchemaError: it was written for a newer schema.
        BundleError: it is missing, cannot be read, or is no bundle.
    """
    place = path
    if path.is_dir():
        from edgetl.bundle import layout

        if layout.is_layout(path):
            place = layout.bundle_file(path)
    with _opened(place) as file:
        source = _Source(place, file)
        head = file.read(len(_ZIP_START))
        if not _ZIP_START.startswith(head):
            raise BundleError(f"{path} is not an edgetl bundle (it is not a zip file).")
        spans = _checked_members(file, path)
        content, signature = (_sealed_content(file, spans.get(name)) for name in _SEALED)
    assert content is not None  # A bundle without a manifest was refused.
    described = manifest.decode(content, str(path))
    _check_listing(described, spans, path)
    return Bundle(
        path=path,
        manifest=described,
        _spans=spans,
        _source=source,
        manifest_bytes=content,
        signature=signature,
    )


def write_archive(
    described: Manifest,
    contents: Mapping[str, bytes | Path],
    out: Path,
    *,
    signature: bytes | None = None,
) -> None:
    """Write a sealed bundle atomically; `contents` maps each member's name to its bytes or to a file of them.

    A `signature` is that of the manifest's bytes, as `edgetl.bundle.signature` makes it.

    Raises:
        BundleError: `out` is an OCI image layout, whose files are named by their content.
        StorageError: it cannot be written.
        ValueError: a name is unsafe, a content differs from the manifest, or the manifest contradicts itself.
    """
    listed = {member.file: member for member in described.members()}
    if wrong := [name for name in {*listed, *contents} if not is_safe_name(name)]:
        raise ValueError(f"unsafe member name {min(wrong)!r}")
    if listed.keys() != contents.keys():
        raise ValueError(f"listed and given members differ: {sorted(listed.keys() ^ contents.keys())}")
    if found := manifest.problems(described):
        raise ValueError("; ".join(found))
    check_writable(out)
    with atomic_path(out) as temporary, storage_errors(out):
        import zipfile

        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
            archive.writestr(_info(MANIFEST), manifest.encode(described))
            if signature is not None:
                archive.writestr(_info(SIGNATURE), signature)
            for name in sorted(contents):
                _store(archive, listed[name], contents[name])
            archive.comment = _SEAL + b"0" * _DIGITS
        with temporary.open("r+b") as file:
            digest = _seal(file, _spans(file, str(out)))
            file.seek(-_DIGITS, 2)
            file.write(digest.encode())


def check_writable(out: Path) -> None:
    """Raises BundleError where `out` is an OCI image layout, in which no bundle is changed in place."""
    if out.is_dir():
        from edgetl.bundle import layout

        if layout.is_layout(out):
            raise BundleError(
                f"{out} is an OCI image layout, whose files are named by their content and never changed. Write to a "
                f"file with -o NAME.edgetl, and then: {command('oci', 'NAME.edgetl', '-o', out)}"
            )


def _info(name: str) -> zipfile.ZipInfo:
    import zipfile

    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, 0o100644 << 16
    return info


def _store(archive: zipfile.ZipFile, member: Member, content: bytes | Path) -> None:
    info = _info(member.file)
    info.file_size = member.size_bytes
    digest = hashlib.sha256()
    with archive.open(info, "w") as target:
        if isinstance(content, bytes):
            digest.update(content)
            target.write(content)
        else:
            with content.open("rb") as source:
                while piece := source.read(1 << 20):
                    digest.update(piece)
                    target.write(piece)
    if digest.hexdigest() != member.sha256:
        raise ValueError(f"the content of {member.file} is not what the manifest says")


# --- reading ------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with _read_errors(path), path.open("rb") as file:
        yield file


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BundleError(f"There is no bundle at {path}.") from None
    except OSError as error:
        raise BundleError(f"Cannot read the bundle {path}: {error.strerror}.") from error


def _checked_members(file: IO[bytes], path: Path) -> Mapping[str, _Span]:
    spans = _spans(file, str(path))
    if MANIFEST not in spans:
        raise BundleError(f"{path} is not an edgetl bundle (it has no {MANIFEST}).")
    for name in _SEALED:
        if name in spans and spans[name].size > _MAX_MANIFEST_BYTES:
            raise BundleIntegrityError(f"{path}: {name} is too large to be true.")
    file.seek(0, 2)
    file.seek(max(0, file.tell() - len(_SEAL) - _DIGITS))
    if file.read() != _SEAL + _seal(file, spans).encode():
        raise BundleIntegrityError(
            f"{path} was altered or is truncated: its seal does not match. Get a fresh copy."
        )
    return spans


def _sealed_content(file: IO[bytes], span: _Span | None) -> bytes | None:
    if span is None:
        return None
    file.seek(span.start)
    return file.read(span.size)


def _spans(file: IO[bytes], where: str) -> dict[str, _Span]:
    """Find the members; refuse unsafe ones and any byte between them that belongs to none."""
    try:
        entries, end = _entries(file)
        for entry in entries:
            _check_entry(entry, where)
        names = [entry.name.casefold() for entry in entries]
        if len(set(names)) != len(names):
            raise BundleIntegrityError(
                f"{where} holds two members of one name; it was not written by edgetl."
            )
        spans, position = {}, 0
        for entry in entries:
            start = entry.offset + _header_size(file, entry.offset)
            if entry.offset != position:
                raise ValueError("members do not follow each other")
            spans[entry.name] = _Span(start=start, size=entry.size)
            position = start + entry.size
        if position != end:
            raise ValueError("the directory does not follow the members")
        return spans
    except (ValueError, struct.error, OSError) as error:
        raise BundleIntegrityError(f"{where} is truncated or altered ({error}). Get a fresh copy.") from error


def _entries(file: IO[bytes]) -> tuple[list[_Entry], int]:
    """The directory's entries in the order of their contents, and where the directory begins.

    The layout is that of PKWARE's APPNOTE.TXT 6.3, sections 4.3.12 and 4.3.16, without ZIP64.
    """
    file.seek(0, 2)
    length = file.tell()
    file.seek(max(0, length - _END.size - _MAX_COMMENT))
    tail = file.read()
    if (at := tail.rfind(_END_START)) < 0:
        raise ValueError("it has no end of directory")
    _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(tail, at)
    end = length - len(tail) + at
    if disk or first_disk or here != count or offset + size != end or end + _END.size + comment != length:
        raise ValueError("its end of directory contradicts the file")
    file.seek(offset)
    directory, entries, position = file.read(size), [], 0
    for _ in range(count):
        fields = _ENTRY.unpack_from(directory, position)
        flags, method, packed, plain = fields[3], fields[4], fields[8], fields[9]
        name_length, extra, note = fields[10:13]
        start = position + _ENTRY.size
        name = directory[start : start + name_length]
        position = start + name_length + extra + note
        if fields[0] != _ENTRY_START or len(name) != name_length or position > size:
            raise ValueError("its directory is broken")
        entries.append(
            _Entry(
                # Names that are not ASCII are refused, whatever they mean.
                name=name.decode("latin-1"),
                offset=fields[16],
                size=plain,
                plain=not method and not flags and packed == plain,
                mode=fields[15] >> 16,
            )
        )
    if position != size:
        raise ValueError("its directory is longer than its entries")
    return sorted(entries, key=lambda entry: entry.offset), offset


def _check_entry(entry: _Entry, where: str) -> None:
    if not is_safe_name(entry.name):
        raise BundleIntegrityError(f"{where} holds the unsafe path {entry.name!r}; nothing was read from it.")
    if stat.S_ISLNK(entry.mode):
        raise BundleIntegrityError(
            f"{where} holds the symbolic link {entry.name!r}; nothing was read from it."
        )
    if not entry.plain:
        raise BundleIntegrityError(
            f"{where}: {entry.name} is not stored plainly; it was not written by edgetl."
        )


def _header_size(file: IO[bytes], offset: int) -> int:
    file.seek(offset)
    fields = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if fields[0] != _ZIP_START:
        raise ValueError("a member's header is broken")
    return _LOCAL_HEADER.size + int(fields[9]) + int(fields[10])


def _seal(file: IO[bytes], spans: Mapping[str, _Span]) -> str:
    """SHA-256 over all bytes before the digest, the contents of the members but manifest and signature left out."""
    digest = hashlib.sha256()
    file.seek(0, 2)
    end, position = file.tell() - _DIGITS, 0
    skipped = sorted((s.start, s.size) for name, s in spans.items() if name not in _SEALED)
    for start, size in [*skipped, (end, 0)]:
        file.seek(position)
        digest.update(file.read(start - position))
        position = start + size
    return digest.hexdigest()


def _check_listing(described: Manifest, spans: Mapping[str, _Span], path: Path) -> None:
    listed = {member.file: member for member in described.members()}
    if extra := sorted(spans.keys() - {*listed, *_SEALED}):
        raise BundleIntegrityError(f"{path} holds {extra[0]!r}, which its manifest does not list.")
    if missing := sorted(listed.keys() - spans.keys()):
        raise BundleIntegrityError(f"{path} lacks {missing[0]!r}, which its manifest lists.")
    for name, member in listed.items():
        if spans[name].size != member.size_bytes:
            raise BundleIntegrityError(
                f"{path}: {name} has {spans[name].size} bytes, its manifest says {member.size_bytes}."
            )
