"""A bundle as an OCI artifact, so that devices pull it through the registries and updaters that they have.

The layout is described in `edgetl.bundle.layout`. Equal bundles give equal files: nothing of the time or the machine is
in them. `skopeo copy oci:FOLDER docker://REGISTRY/NAME:TAG`, `oras cp --from-oci-layout` and `crane push` take the
folder as it is.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetl._version import __version__
from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.layout import (
    ARTIFACT,
    EMPTY,
    IMAGE_INDEX,
    IMAGE_MANIFEST,
    INDEX_FILE,
    LAYER,
    LAYOUT_FILE,
    LAYOUT_VERSION,
    REF_NAME,
    blob_path,
    is_layout,
)
from edgetl.bundle.manifest import Variant
from edgetl.bundle.signature import claimed
from edgetl.errors import ConfigError
from edgetl.files import sha256_bytes, storage_errors, write_bytes
from edgetl.records.variants import OciRecord

PREFIX = "edgetl."
"""Of the annotations that are ours."""
_TITLE = "org.opencontainers.image.title"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""What registries take as a tag: OCI Distribution Specification 1.1, "Pulling manifests"."""
_EMPTY_CONTENT = b"{}"


def write_oci(bundle: Path, out: Path, *, tag: str = "latest") -> OciRecord:
    """Write a bundle as an image layout with one artifact; what its index named before is replaced in one step.

    Args:
        bundle: the bundle; each file in it is checked first.
        out: the folder: a new or empty one, or a layout.
        tag: the artifact's name in the layout.

    Raises:
        BundleError: the bundle cannot be used, or was altered.
        ConfigError: the tag is none, or the folder holds something else.
        StorageError: the folder cannot be written.
    """
    if _TAG.fullmatch(tag) is None:
        raise ConfigError(
            f"tag: got {tag!r}, expected letters, digits, and after the first one also . _ -, at most 128."
        )
    opened = open_bundle(bundle)
    opened.verify()
    with storage_errors(out):
        if out.is_dir() and not is_layout(out) and any(out.iterdir()):
            raise ConfigError(f"{out} holds other files; name a new folder for the layout, or an empty one.")
        before = set(_blobs(out))
    content = opened.content()
    name = f"{opened.manifest.name}.edgetl"
    layer = _descriptor(LAYER, content) | {"annotations": {_TITLE: name}}
    manifest = _encoded(
        {
            "schemaVersion": 2,
            "mediaType": IMAGE_MANIFEST,
            "artifactType": ARTIFACT,
            "config": _descriptor(EMPTY, _EMPTY_CONTENT)
            | {"data": base64.b64encode(_EMPTY_CONTENT).decode()},
            "layers": [layer],
            "annotations": annotations_of(opened),
        }
    )
    index = _encoded(
        {
            "schemaVersion": 2,
            "mediaType": IMAGE_INDEX,
            "manifests": [
                _descriptor(IMAGE_MANIFEST, manifest)
                | {"artifactType": ARTIFACT, "annotations": {REF_NAME: tag}}
            ],
        }
    )
    written = [blob_path(out, sha256_bytes(one)) for one in (content, _EMPTY_CONTENT, manifest)]
    for path, one in zip(written, (content, _EMPTY_CONTENT, manifest), strict=True):
        write_bytes(path, one)
    write_bytes(out / LAYOUT_FILE, _encoded({"imageLayoutVersion": LAYOUT_VERSION}))
    write_bytes(out / INDEX_FILE, index)  # Last: until then the old artifact stands.
    with storage_errors(out):
        for path in before - set(written):
            path.unlink(missing_ok=True)
    return OciRecord(
        path=str(out),
        digest=f"sha256:{sha256_bytes(manifest)}",
        artifact_type=ARTIFACT,
        tag=tag,
        layer=f"sha256:{sha256_bytes(content)}",
        size_bytes=len(content),
        annotations=annotations_of(opened),
    )


def annotations_of(bundle: Bundle) -> dict[str, str]:
    """What a registry shows of a bundle without pulling it: name, task, variants, scores, latency, signature.

    Scores and latency are the default variant's, as the bundle's manifest has them.
    """
    known, default = bundle.manifest, bundle.variant()
    found = {
        _TITLE: known.name,
        f"{PREFIX}schema": str(known.schema_version),
        f"{PREFIX}task": known.task.kind,
        f"{PREFIX}classes": str(len(known.labels)),
        f"{PREFIX}size": str(known.preprocess.size),
        f"{PREFIX}variants": ",".join(variant.name for variant in known.variants),
        f"{PREFIX}default": default.name,
        f"{PREFIX}created-by": known.provenance.created_by or f"edgetl {__version__}",
        f"{PREFIX}manifest.sha256": sha256_bytes(bundle.manifest_bytes),
        **_figures(default),
    }
    if known.provenance.created:
        found["org.opencontainers.image.created"] = known.provenance.created
    if bundle.signature is not None:
        found[f"{PREFIX}signature.public-key"], signature = claimed(bundle)
        found[f"{PREFIX}signature"] = signature.hex()
    return dict(sorted(found.items()))


def _figures(variant: Variant) -> dict[str, str]:
    found = {}
    for split, scores in (("val", variant.val), ("test", variant.test)):
        if scores is not None:
            found[f"{PREFIX}{split}.images"] = str(scores.images)
            for metric, score in scores.scores.items():
                found[f"{PREFIX}{split}.{metric}"] = f"{score.value:.6g}"
                if score.interval is not None:
                    found[f"{PREFIX}{split}.{metric}.interval"] = "{:.6g} {:.6g}".format(*score.interval)
    if variant.latency is not None:
        for name in ("p50", "p90", "p99"):
            found[f"{PREFIX}latency.{name}-ms"] = f"{getattr(variant.latency, f'{name}_ms'):.6g}"
        found[f"{PREFIX}latency.threads"] = str(variant.latency.threads)
    if variant.machine is not None:
        found[f"{PREFIX}latency.machine"] = variant.machine.fingerprint
    return found


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256_bytes(content)}", "size": len(content)}


def _encoded(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _blobs(folder: Path) -> list[Path]:
    blobs = folder / "blobs" / "sha256"
    return [path for path in blobs.iterdir() if path.is_file()] if blobs.is_dir() else []
