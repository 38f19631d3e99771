"""Which engine runs a bundle here, and which of its variants, with the reason. Nothing is chosen silently.

The default variant was chosen with the accuracy floor in hand, by figures of one kind of processor, so it runs where it
was made to run on processors of that kind. Where it was not made to run, or a precision is asked for, the fastest
variant that was measured on such a processor, was made for this machine and is as accurate as the default one takes
its place. Figures of another kind of machine rank nothing: without figures of its own kind a target takes what was made
for it, INT8 only where the CPU has instructions for it, then the default, then the smallest in float, none of them less
accurate than the default. Where `edgetl tune` measured this bundle on this machine, `auto` runs what was the fastest
there.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.files import cache_dir, sha256_bytes
from edgetl.records.frozen import dataclass

if TYPE_CHECKING:
    from edgetl.bundle.archive import Bundle


class EngineName(StrEnum):
    """What runs the model.

    `auto` is what `edgetl tune` found the fastest here, else the CPU, on which bundles are measured. `cuda` and
    `ort-tensorrt` are ONNX Runtime's providers; `litert` runs .tflite files, `tensorrt` and `tensorrt-rtx` compiled
    engines.
    """

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    ORT_TENSORRT = "ort-tensorrt"
    OPENVINO = "openvino"
    LITERT = "litert"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a session runs: the variant's name, the engine, and why in one sentence.

    `measured_here` says that `edgetl tune` found it the fastest on this machine. `threads` is the number of threads
    that it is the fastest with, None where that was not measured on a machine like this one.
    """

    variant: str
    target: EngineName
    reason: str
    measured_here: bool = False
    threads: int | None = None


def tuned_path(bundle: Bundle) -> Path:
    """Where `edgetl tune` keeps what it found for a bundle.

    The manifest lists the SHA-256 of every other file, so its own stands for the whole bundle.

    Raises:
        StorageError: the user has no home folder.
    """
    return cache_dir() / "tuned" / f"{sha256_bytes(bundle.manifest_bytes)}.json"
