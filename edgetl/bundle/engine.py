"""Compile an engine from a bundle's model, and remember which engines were compiled on this machine.

An engine is native code. The runtime loads one only where it was built here or stands in a bundle whose signature
the user requires; "here" is the user's cache folder, which holds the SHA-256 of every engine built.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.manifest import Precision, Variant
from edgetl.bundle.pack import add_engine, engine_name
from edgetl.errors import BundleError
from edgetl.export.tensorrt import build_engine
from edgetl.files import cache_dir, write_bytes, write_json
from edgetl.progress import SILENT, Progress
from edgetl.records import EngineRecord

BUNDLE_SUFFIX = ".edgetl"


def build_from_bundle(
    bundle: Path,
    *,
    target: str,
    compute_capabilities: tuple[str, ...] = (),
    variant: str | None = None,
    max_batch: int = 8,
    output: Path | None = None,
    progress: Progress = SILENT,
) -> EngineRecord:
    """Compile an engine for batches of 1 to `max_batch` images and write it.

    Args:
        bundle: the bundle.
        target: `tensorrt` or `tensorrt-rtx`.
        compute_capabilities: GPUs for TensorRT-RTX, as in `("89",)`.
        variant: the model; where unset, the one made for `target`, else the float32 one.
        max_batch: the largest batch; the engine is tuned for 1.
        output: an engine file, or a bundle (`.edgetl`, it may be the same one) that will hold the engine too; where
            unset, an engine file beside the bundle.
        progress: where to report.

    Raises:
        BundleError: the bundle cannot be used or has no such variant.
        ConfigError: the target, a GPU or the batch is wrong.
        MissingDependencyError: TensorRT is not installed, or needs a GPU that is not here.
        ModelError: TensorRT refuses the model.
        StorageError: the output or the cache folder cannot be written.
    """
    opened = open_bundle(bundle)
    chosen = opened.variant(variant) if variant else _suited(opened, target)
    built = build_engine(
        opened.read(chosen.member),
        target=target,
        compute_capabilities=compute_capabilities,
        batch=(1, 1, max_batch),
        progress=progress,
    )
    record = replace(built.record, variant=chosen.name)
    path = output or bundle.with_name(f"{bundle.stem}-{engine_name(chosen.name, record)}")
    remember(record)
    if path.suffix == BUNDLE_SUFFIX:
        if opened.signature is not None:
            progress.warning(f"{path}: with another engine the signature no longer holds; sign it again.")
        add_engine(opened, variant=chosen.name, content=built.content, record=record, out=path)
    else:
        write_bytes(path, built.content)
    return replace(record, path=str(path))


def remember(record: EngineRecord) -> None:
    """Note that an engine was built on this machine.

    Raises:
        StorageError: the cache folder cannot be written.
    """
    write_json(_note(record.sha256), record)


def built_here(sha256: str) -> bool:
    """Whether the engine of this SHA-256 was built on this machine."""
    return _note(sha256).is_file()


def _note(sha256: str) -> Path:
    return cache_dir() / "engines" / f"{sha256}.json"


def _suited(bundle: Bundle, target: str) -> Variant:
    variants = bundle.manifest.variants
    found = next((v for v in variants if v.target == target), None)
    found = found or next((v for v in variants if v.precision is Precision.FP32), None)
    if found is None:
        names = ", ".join(v.name for v in variants)
        raise BundleError(f"{bundle.path} has no variant made for {target} and none in fp32; it has {names}.")
    return found
