"""OpenVINO as the inference engine, on the CPU: the one place that imports it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ModelError
from edgetl.packages import missing
from edgetl.quiet import quietly
from edgetl.runtime.engines.base import Bound, Opened, Opening, check_signature, empty, mismatch, on_cpu
from edgetl.runtime.forks import Inheritable, refuse, start
from edgetl.tasks.base import Outputs, TensorSpec


def open_model(asked: Opening) -> Opened:
    """A model on the CPU; workers get it on one thread."""
    return on_cpu(asked, OpenVinoBackend)


class OpenVinoBackend(Inheritable):
    """A model in OpenVINO on the CPU, in float32 where the model is: no silent change to bfloat16, nor to INT8
    arithmetic where weights are stored in INT8.

    Args:
        model: an ONNX model's bytes.
        threads: threads inside one call.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
        ForkError: a parent of this forked process has used OpenVINO.
        ModelError: the model cannot be loaded, or is not one image tensor in, float tensors out.
    """

    def __init__(self, model: bytes, *, threads: int) -> None:
        try:
            with quietly():
                import openvino
        except ImportError as error:
            raise missing("openvino") from error
        start("OpenVINO")
        self.threads = threads
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        }
        try:
            core = openvino.Core()
            read = core.read_model(model)
            # Compiled, an output is also known by what it is a copy of.
            names = [port.any_name for port in read.outputs]
            self._model = core.compile_model(read, "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot load the model: {_last_line(error)}") from error
        self.providers = tuple(f"OpenVINO {name}" for name in self._model.get_property("EXECUTION_DEVICES"))
        self.input, self.outputs = _signature(self._model, names)
        self._names = names
        self._local = threading.local()
        self.watch_forks()

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Float32 outputs by name of images (N, 3, S, S) float32.

        Raises:
            TensorError: images have another shape or dtype.
        """
        if not isinstance(images, np.ndarray) or images.dtype != np.float32 or not self._fits(images.shape):
            raise mismatch(self.input, images)
        if self.inherited:
            refuse()
        if not images.shape[0]:
            return empty(self.outputs, 0)
        request = getattr(self._local, "request", None)
        if request is None:  # One request serves one thread at a time.
            request = self._local.request = self._model.create_infer_request()
        shared = np.ascontiguousarray(images)
        found = request.infer([shared], share_inputs=True, share_outputs=False)
        return {name: found[at] for at, name in enumerate(self._names)}

    def bind(self, images: NDArray[Any]) -> Bound:
        """A call that runs the model on what then stands in `images`; see `Backend.bind`."""
        if images.dtype != np.float32 or not images.flags.c_contiguous or not self._fits(images.shape):
            raise mismatch(self.input, images)
        if not len(images):
            return lambda: self.run(images)
        if self.inherited:
            refuse()
        request = self._model.create_infer_request()

        def call() -> Outputs:
            if self.inherited:
                refuse()
            found = request.infer([images], share_inputs=True, share_outputs=True)
            return {name: found[at] for at, name in enumerate(self._names)}

        return call

    def close(self) -> None:
        """Free the model."""
        self._model, self._local = None, threading.local()

    def natives(self) -> Iterable[object]:
        """The compiled model and its requests, for `Inheritable`."""
        return () if self._model is None else (self._model,)

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.input.shape) and all(
            want is None or have == want for have, want in zip(shape, self.input.shape, strict=True)
        )


def _signature(model: Any, names: Sequence[str]) -> tuple[TensorSpec, tuple[TensorSpec, ...]]:
    if len(model.inputs) != 1:
        raise ModelError(f"The model has {len(model.inputs)} inputs, expected one.")
    images = _tensor(model.input(0), model.input(0).any_name)
    outputs = tuple(_tensor(port, name) for port, name in zip(model.outputs, names, strict=True))
    check_signature("The model", images, outputs, baked=False)
    return images, outputs


def _tensor(port: Any, name: str) -> TensorSpec:
    shape = tuple(None if length.is_dynamic else length.get_length() for length in port.partial_shape)
    return TensorSpec(name=name, dtype=str(port.element_type.to_dtype()), shape=shape)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
