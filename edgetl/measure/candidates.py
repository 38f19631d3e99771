"""The models that may ship, and how they are run as their targets would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.bundle.manifest import ModelFormat
from edgetl.keys import UNKEYED
from edgetl.tasks.base import Outputs

if TYPE_CHECKING:
    import numpy as np

    from edgetl.inputs.image import PreprocessSpec
    from edgetl.runtime.engines.base import Backend


@dataclass(frozen=True, kw_only=True)
class CandidateModel:
    """An ONNX file that may ship, or the .tflite file that was written of it."""

    name: str
    precision: str
    target: str
    onnx: Path
    input: str = "float32-nchw"
    tflite: Path | None = field(default=None, metadata=UNKEYED)

    @property
    def file(self) -> Path:
        """What ships."""
        return self.tflite or self.onnx


def open_backend(file: Path, *, threads: int) -> Backend:
    """The engine that takes a variant's file.

    Raises:
        MissingDependencyError: it is not installed.
        ModelError: the file cannot be loaded.
    """
    if format_of(file) is ModelFormat.TFLITE:
        from edgetl.runtime.engines.litert import LiteRtBackend

        return LiteRtBackend(file.read_bytes(), threads=threads)
    from edgetl.runtime.engines.onnxruntime import OnnxBackend

    return OnnxBackend(file, threads=threads)


def format_of(file: Path) -> ModelFormat:
    """What a variant's file is."""
    return ModelFormat(file.suffix.removeprefix("."))


def runner(
    backend: Backend, file: Path, target: str, spec: PreprocessSpec, content: bytes | None = None
) -> Callable[[np.ndarray], Outputs]:
    """A variant as a function from pixels (N, S, S, 3) uint8 to its outputs, computed as its target would.

    `content` is what `backend` has opened, where that is not the file as it is.
    """
    from edgetl.inputs.image import normalise
    from edgetl.processor import computes
    from edgetl.quantize.score import simulated
    from edgetl.runtime.engines.base import run_pixels

    if computes(target) or format_of(file) is ModelFormat.TFLITE:  # the engine that it is made for
        return lambda pixels: run_pixels(backend, pixels, spec)
    run, inside = simulated(content or file), backend.input.dtype == "uint8"
    return lambda pixels: run(pixels if inside else normalise(pixels, spec))
