"""Engines that were built already. Whatever an engine depends on is in its key, so none is ever guessed to fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgetl.export.tensorrt.builder import BuiltEngine
from edgetl.export.tensorrt.gpu import Gpu
from edgetl.export.tensorrt.options import BuildOptions, EngineTarget
from edgetl.files import cache_dir, read_json, sha256_bytes, sha256_json, write_bytes, write_json
from edgetl.records.variants import EngineRecord


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """Everything that decides whether an engine still fits.

    Attributes:
        onnx_sha256: of the model.
        options: precision, batches, workspace and every flag.
        tensorrt_version: that compiles.
        gpu: name of the GPU at hand; empty where GPUs are named in the options.
        driver: its driver's version.
    """

    onnx_sha256: str
    options: BuildOptions
    tensorrt_version: str
    gpu: str = ""
    driver: str = ""

    @classmethod
    def of(cls, onnx: bytes, options: BuildOptions, version: str, gpu: Gpu | None) -> EngineKey:
        """The key of a build on this machine."""
        at_hand = gpu if options.target is EngineTarget.TENSORRT else None
        return cls(
            onnx_sha256=sha256_bytes(onnx),
            options=options,
            tensorrt_version=version,
            gpu=at_hand.name if at_hand else "",
            driver=at_hand.driver if at_hand else "",
        )

    @property
    def digest(self) -> str:
        """The key as 64 hex digits."""
        return sha256_json(self)


def folder() -> Path:
    """Where engines are cached."""
    return cache_dir() / "engines"


def load(key: EngineKey, warn: Callable[[str], None]) -> BuiltEngine | None:
    """The engine of that key; None where there is none, or where its file is truncated or altered (it says so)."""
    try:
        record = read_json(_record(key), EngineRecord)
        path = _engine(record)
        content = path.read_bytes()
    except (OSError, ValueError):
        return None
    if len(content) != record.size_bytes or sha256_bytes(content) != record.sha256:
        warn(f"The cached engine {path} is truncated or altered; it is built again.")
        return None
    return BuiltEngine(content, replace(record, cached=True))


def store(key: EngineKey, built: BuiltEngine) -> None:
    """Keep an engine. Its record is written last and names it by its content, so that what is half-written is not
    found, and two processes that build the same cannot mix theirs.

    Raises:
        StorageError: it cannot be written.
    """
    write_bytes(_engine(built.record), built.content)
    write_json(_record(key), built.record)
    remember(built.record)


def _record(key: EngineKey) -> Path:
    return folder() / f"{key.digest}.json"


def _engine(record: EngineRecord) -> Path:
    return folder() / f"{record.sha256}.engine"


def remember(record: EngineRecord) -> None:
    """Note that an engine was built on this machine: native code from elsewhere is not loaded unsigned.

    Raises:
        StorageError: the cache folder cannot be written.
    """
    write_json(_note(record.sha256), record)


def built_here(sha256: str) -> bool:
    """Whether the engine of this SHA-256 was built on this machine."""
    return _note(sha256).is_file()


def _note(sha256: str) -> Path:
    return folder() / "built" / f"{sha256}.json"


def timing_cache(options: BuildOptions, version: str, gpu: Gpu | None) -> Path | None:
    """The device's own file of kernel timings; None for TensorRT-RTX, which has none.

    Of two processes that build at once the last one's timings stay: the other's cost time again, and change nothing.
    """
    if options.target is not EngineTarget.TENSORRT or gpu is None:
        return None
    device = json.dumps([gpu.name, gpu.driver, version])
    return cache_dir() / "timing" / f"{sha256_bytes(device.encode())[:16]}.cache"
