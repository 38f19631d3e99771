"""A bundle as an OCI artifact in an image layout: the folder that registries' tools copy, and where the bundle lies.

The folder is that of the OCI Image Format Specification 1.1 ("OCI Image Layout Specification"): `oci-layout`,
`index.json`, and `blobs/sha256/DIGEST`. Its index names one image manifest, whose `artifactType` is `ARTIFACT`, whose
config is the empty descriptor, and whose only layer is the bundle's file, byte for byte ("Guidelines for Artifact
Usage"). `edgetl.deploy.oci` writes it. Layouts that other tools made of a pulled artifact are read alike, with the
manifest inside a further index, too.

Every blob's size and SHA-256 are checked before it is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.errors import BundleError, BundleIntegrityError
from edgetl.files import sha256_bytes, sha256_file

ARTIFACT = "application/vnd.edgetl.bundle"
LAYER = "application/vnd.edgetl.bundle+zip"
IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
LAYOUT_FILE, INDEX_FILE = "oci-layout", "index.json"
LAYOUT_VERSION = "1.0.0"
REF_NAME = "org.opencontainers.image.ref.name"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_JSON_BYTES = 4 << 20
"""What registries take of a manifest."""
_MAX_DEPTH = 3
"""Indexes inside each other."""


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """What names a blob; see "OCI Content Descriptors". `tag` is the name that an index gives it, "" where none."""

    media_type: str
    sha256: str
    size_bytes: int
    tag: str = ""


def is_layout(path: Path) -> bool:
    """Whether a path is a folder that says it is an image layout."""
    return (path / LAYOUT_FILE).is_file()


def blob_path(folder: Path, sha256: str) -> Path:
    """Where a blob stands."""
    return folder / "blobs" / "sha256" / sha256


def bundle_file(folder: Path) -> Path:
    """The file of the one bundle that a layout holds, its hashes checked.

    Raises:
        BundleError: it holds no bundle or several, is of another version, or cannot be read.
        BundleIntegrityError: a blob is not what its descriptor says, or a file is no such JSON.
    """
    version = _read_json(folder / LAYOUT_FILE).get("imageLayoutVersion")
    if version != LAYOUT_VERSION:
        raise BundleError(f"{folder} is an image layout of version {version!r}, expected {LAYOUT_VERSION}.")
    found = {layer.sha256: layer for layer in _layers(folder, _read_json(folder / INDEX_FILE), _MAX_DEPTH)}
    if not found:
        raise BundleError(
            f"{folder} is an OCI image layout, but holds no edgetl bundle; its artifact type would be {ARTIFACT}."
        )
    if len(found) > 1:
        tags = ", ".join(sorted(layer.tag or layer.sha256[:12] for layer in found.values()))
        raise BundleError(
            f"{folder} holds {len(found)} bundles ({tags}); copy one of them into a layout of its own."
        )
    (layer,) = found.values()
    path = blob_path(folder, layer.sha256)
    _check_size(path, layer)
    if sha256_file(path) != layer.sha256:
        raise _altered(path)
    return path


def _layers(folder: Path, index: Mapping[str, Any], depth: int) -> Iterator[Descriptor]:
    """The bundles' layers below an index."""
    for entry in _list(index, "manifests", folder / INDEX_FILE):
        found = _descriptor(entry, folder / INDEX_FILE)
        if found.media_type == IMAGE_INDEX and depth:
            yield from _layers(folder, _read_blob(folder, found), depth - 1)
        elif found.media_type == IMAGE_MANIFEST:
            path = blob_path(folder, found.sha256)
            for one in _list(_read_blob(folder, found), "layers", path):
                layer = _descriptor(one, path)
                if layer.media_type == LAYER:
                    yield Descriptor(
                        media_type=LAYER, sha256=layer.sha256, size_bytes=layer.size_bytes, tag=found.tag
                    )


def _descriptor(value: Any, where: Path) -> Descriptor:
    if not isinstance(value, Mapping):
        raise _broken(where, "a descriptor is no JSON object")
    kind, digest, size = (value.get(name) for name in ("mediaType", "digest", "size"))
    named = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if not isinstance(kind, str) or named is None or not isinstance(size, int) or isinstance(size, bool):
        raise _broken(where, f"a descriptor has the digest {digest!r:.90} and the size {size!r:.30}")
    annotations = value.get("annotations")
    tag = annotations.get(REF_NAME) if isinstance(annotations, Mapping) else ""
    return Descriptor(
        media_type=kind, sha256=named[1], size_bytes=size, tag=tag if isinstance(tag, str) else ""
    )


def _read_blob(folder: Path, found: Descriptor) -> Mapping[str, Any]:
    path = blob_path(folder, found.sha256)
    _check_size(path, found)
    content = _content(path)
    if sha256_bytes(content) != found.sha256:
        raise _altered(path)
    return _decoded(content, path)


def _check_size(path: Path, found: Descriptor) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise BundleIntegrityError(
            f"{path} is missing, and the layout's index leads to it. Get a fresh copy."
        ) from None
    except OSError as error:
        raise BundleError(f"Cannot read {path}: {error.strerror}.") from error
    if size != found.size_bytes:
        raise BundleIntegrityError(
            f"{path} has {size} bytes, its descriptor says {found.size_bytes}. Get a fresh copy."
        )


def _read_json(path: Path) -> Mapping[str, Any]:
    return _decoded(_content(path), path)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise BundleError(f"Cannot read {path}: {error.strerror}.") from error
    if len(content) > _MAX_JSON_BYTES:
        raise _broken(path, "it is too large to be true")
    return content


def _decoded(content: bytes, path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error)) from error
    if not isinstance(value, Mapping):
        raise _broken(path, "it is no JSON object")
    return value


def _list(value: Mapping[str, Any], name: str, where: Path) -> list[Any]:
    found = value.get(name)
    if not isinstance(found, list):
        raise _broken(where, f"it has no list of {name}")
    return found


def _broken(path: Path, reason: str) -> BundleIntegrityError:
    return BundleIntegrityError(f"{path} is no file of an OCI image layout: {reason}. Get a fresh copy.")


def _altered(path: Path) -> BundleIntegrityError:
    return BundleIntegrityError(f"{path} was altered: its SHA-256 is not its name. Get a fresh copy.")
