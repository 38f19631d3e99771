"""What an inference engine must offer to a session."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.inputs.spec import PreprocessSpec, normalise
from edgetl.tasks.base import TensorSpec

Bound = Callable[[], NDArray[np.float32]]
"""Runs a model on fixed buffers; for one thread at a time."""


class Backend(Protocol):
    """One loaded model: images (N, 3, S, S) float32 or pictures (N, S, S, 3) uint8 in, logits (N, C) float32 out.

    `run` may be called from many threads.
    """

    @property
    def input(self) -> TensorSpec:
        """The images."""

    @property
    def output(self) -> TensorSpec:
        """The logits."""

    @property
    def providers(self) -> tuple[str, ...]:
        """What really computes, in order of preference."""

    @property
    def threads(self) -> int:
        """Threads inside one call."""

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Logits (N, C) of images of `input`'s shape and dtype.

        Raises:
            TensorError: images have another shape or dtype.
        """

    def bind(self, images: NDArray[Any]) -> Bound:
        """A call that runs the model on what then stands in `images`, a contiguous buffer as `run` takes.

        Its result (N, C) is a buffer too: the next call overwrites it. Nothing is checked or allocated a call.
        Each thread needs its own.

        Raises:
            TensorError: images have another shape, dtype or layout.
        """

    def close(self) -> None:
        """Free the model; `run` must not be called again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def run_pixels(backend: Backend, pixels: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Logits (N, C) of pixels (N, S, S, 3) uint8, normalised here unless the model does it itself."""
    return backend.run(pixels if backend.input.dtype == "uint8" else normalise(pixels, spec))


def describe(value: Any) -> str:
    """What came, for a message: `(2, 3, 32, 32) float64`, or the type where it is no array."""
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return f"a {type(value).__name__}"


def mismatch(spec: TensorSpec, value: Any) -> TensorError:
    """The error for an array that does not fit `spec`."""
    return TensorError(f"{spec.name}: got {describe(value)}, expected {spec}.")
