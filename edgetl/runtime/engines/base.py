"""What an engine is asked to open, and what it must offer to a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.manifest import Variant
from edgetl.errors import ModelError, TensorError
from edgetl.inputs.spec import PreprocessSpec, normalise
from edgetl.records.frozen import dataclass
from edgetl.tasks.base import Outputs, TensorSpec

if TYPE_CHECKING:
    from edgetl.bundle.archive import Bundle


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What an engine is to open.

    Attributes:
        bundle: the bundle.
        variant: which of its models.
        threads: of the engine on the CPU.
        signed: the bundle's signature was required and held.
        shown: further outputs' names, and the model's tensors that they show.
    """

    bundle: Bundle
    variant: Variant
    threads: int
    signed: bool = False
    shown: Mapping[str, str] = field(default_factory=dict)

    def read(self) -> bytes:
        """The model's file, with the further outputs."""
        content = self.bundle.read(self.variant.member)
        if not self.shown:
            return content
        from edgetl.runtime.wire import with_outputs

        return with_outputs(content, self.shown)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model that an engine runs.

    Attributes:
        backend: runs it.
        single: opens the same model on one thread, for workers that each run their own image; None where they share
            `backend`.
        origin: where a compiled engine came from, in a few words.
        offered: the providers that ONNX Runtime has here, where that was asked.
    """

    backend: Backend
    single: Callable[[], Backend] | None = None
    origin: str = ""
    offered: tuple[str, ...] = ()


def on_cpu(asked: Opening, backend: Callable[..., Backend]) -> Opened:
    """What `backend(model, threads=...)` runs on the CPU; workers get it on one thread."""

    def single() -> Backend:
        return backend(asked.read(), threads=1)

    opened = backend(asked.read(), threads=asked.threads)
    return Opened(backend=opened, single=single if asked.threads > 1 else None)


Bound = Callable[[], Outputs]
"""Runs a model on fixed buffers; for one thread at a time."""


class Backend(Protocol):
    """One loaded model: images (N, 3, S, S) float32 or pictures (N, S, S, 3) uint8 in, float32 tensors by name out.

    `run` may be called from many threads.
    """

    @property
    def input(self) -> TensorSpec:
        """The images."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What comes out, in the model's order; the first axis of each is the batch."""

    @property
    def providers(self) -> tuple[str, ...]:
        """What really computes, in order of preference."""

    @property
    def threads(self) -> int:
        """Threads inside one call."""

    def run(self, images: NDArray[Any]) -> Outputs:
        """The outputs for images of `input`'s shape and dtype.

        Raises:
            TensorError: images have another shape or dtype.
        """

    def bind(self, images: NDArray[Any]) -> Bound:
        """A call that runs the model on what then stands in `images`, a contiguous buffer as `run` takes.

        Its results are buffers too: the next call overwrites them. Nothing is checked or allocated per call.
        Each thread needs its own.

        Raises:
            TensorError: images have another shape, dtype or layout.
        """

    def close(self) -> None:
        """Free the model; `run` must not be called again."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def run_pixels(backend: Backend, pixels: NDArray[np.uint8], spec: PreprocessSpec) -> Outputs:
    """The outputs for pixels (N, S, S, 3) uint8, normalised here unless the model does it itself."""
    return backend.run(pixels if backend.input.dtype == "uint8" else normalise(pixels, spec))


def check_signature(
    name: str, images: TensorSpec, outputs: Sequence[TensorSpec], *, baked: bool = True
) -> None:
    """Whether a model is one that can be run at all: pictures in, at least one batch of floats out.

    Args:
        name: what messages call the model.
        images: its input.
        outputs: its outputs.
        baked: whether the engine takes models that normalise pixels themselves.

    Raises:
        ModelError: naming the tensor that is something else.
    """
    dtypes = ("float32", "uint8") if baked else ("float32",)
    if len(images.shape) != 4 or images.dtype not in dtypes:
        kind = "(N, 3, S, S) float32" + (" or (N, S, S, 3) uint8" if baked else "")
        raise ModelError(f"{name}: tensor {images.name} is {images}, expected {kind}.")
    for tensor in outputs:
        if len(tensor.shape) < 2 or tensor.dtype != "float32":
            raise ModelError(f"{name}: tensor {tensor.name} is {tensor}, expected (N, ...) float32.")


def empty(outputs: Sequence[TensorSpec], rows: int) -> dict[str, NDArray[np.float32]]:
    """Buffers for so many rows of each output; lengths that are open are 0."""
    return {t.name: np.empty((rows, *(n or 0 for n in t.shape[1:])), dtype=np.float32) for t in outputs}


def describe(value: Any) -> str:
    """What came, for a message: `(2, 3, 32, 32) float64`, or the type where it is no array."""
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return f"a {type(value).__name__}"


def mismatch(spec: TensorSpec, value: Any) -> TensorError:
    """The error for an array that does not fit `spec`."""
    return TensorError(f"{spec.name}: got {describe(value)}, expected {spec}.")
