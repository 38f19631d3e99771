"""The table of engines, and what one must offer to a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.manifest import ModelFormat, Variant
from edgetl.errors import ModelError, TensorError
from edgetl.inputs.spec import PreprocessSpec, normalise
from edgetl.processor import computes
from edgetl.records.frozen import dataclass
from edgetl.runtime.targets import EngineName
from edgetl.tasks.base import Outputs, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An inference engine: the one place that says what it needs and which variants suit it.

    Attributes:
        name: as users call it.
        packages: the distributions that bring it; one of them is enough.
        model_format: the files that it takes, or that it is compiled from.
        on_cpu: whether it runs on the CPU: then it suits what the CPU's kernels compute.
        made_for: further values of `Variant.target` that suit it. Signed symmetric INT8 is slow outside TensorRT.
        provider: its name in ONNX Runtime, where that runs it.
    """

    name: EngineName
    packages: tuple[str, ...]
    model_format: ModelFormat = ModelFormat.ONNX
    on_cpu: bool = False
    made_for: tuple[str, ...] = ()
    provider: str = ""

    def suits(self, variant: Variant, arch: str | None = None) -> bool:
        """Whether it computes the variant as it was made; `arch` is the CPU's family, this machine's where unset."""
        if variant.format is not self.model_format:
            return False
        return variant.target in self.made_for or (self.on_cpu and computes(variant.target, arch))

    def wants(self, arch: str) -> tuple[str, ...]:
        """What messages list: the values of `Variant.target` that suit it."""
        return (("any", "cpu", f"cpu-{arch}") if self.on_cpu else ()) + self.made_for


ENGINES: Mapping[EngineName, Engine] = {
    engine.name: engine
    for engine in (
        # Either package of ONNX Runtime runs on the CPU; only one of them is there.
        Engine(name=EngineName.CPU, packages=("onnxruntime", "onnxruntime-gpu"), on_cpu=True),
        Engine(
            name=EngineName.CUDA,
            packages=("onnxruntime-gpu",),
            made_for=("any", "gpu"),
            provider="CUDAExecutionProvider",
        ),
        Engine(
            name=EngineName.ORT_TENSORRT,
            packages=("onnxruntime-gpu",),
            made_for=("any", "gpu", "tensorrt", "tensorrt-rtx"),
            provider="TensorrtExecutionProvider",
        ),
        Engine(name=EngineName.OPENVINO, packages=("openvino",), on_cpu=True, made_for=("openvino",)),
        Engine(
            name=EngineName.TENSORRT, packages=("tensorrt",), made_for=("any", "tensorrt", "tensorrt-rtx")
        ),
        Engine(
            name=EngineName.TENSORRT_RTX,
            packages=("tensorrt-rtx",),
            made_for=("any", "tensorrt", "tensorrt-rtx"),
        ),
    )
}
"""Every engine by its target; `auto` is none of them."""


def engine_of(target: EngineName) -> Engine:
    """A target's engine; of `auto` the CPU's, on which bundles are measured."""
    return ENGINES[EngineName.CPU if target is EngineName.AUTO else target]


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


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
