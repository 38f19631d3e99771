"""TensorRT and TensorRT-RTX as inference engines: runs a compiled engine on an NVIDIA GPU.

Images go through pinned host buffers and one stream. One image per call, the latency case, is recorded as a CUDA
graph on its first call and replayed after, so that a call costs one launch. TensorRT-RTX compiles kernels when they
are first needed and is left to do so: its calls are not recorded.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import BundleError, MissingDependencyError, ModelError
from edgetl.export.tensorrt import EngineTarget, load_module
from edgetl.packages import missing
from edgetl.runtime.engines.base import Bound, check_signature, empty, mismatch
from edgetl.runtime.forks import Inheritable, refuse, start
from edgetl.shell import command
from edgetl.tasks.base import Outputs, TensorSpec


class TensorRtBackend(Inheritable):
    """An engine, ready to run. Calls from many threads take turns.

    Args:
        engine: a serialized engine. It is native code: give only one that was built here or is signed.
        target: whose engine it is.
        trt: the module `tensorrt` or `tensorrt_rtx`; imported where unset.
        cuda: the module `cuda.bindings.runtime`; imported where unset.

    Raises:
        MissingDependencyError: TensorRT, the CUDA bindings or a GPU is missing.
        ForkError: a parent of this forked process has used the GPU.
        BundleError: the engine was built for another GPU or version.
        ModelError: the engine is not one image tensor in, float tensors out.
    """

    threads = 1

    def __init__(
        self, engine: bytes, *, target: EngineTarget, trt: Any | None = None, cuda: Any | None = None
    ) -> None:
        trt = load_module(target) if trt is None else trt
        start("CUDA")
        self._cuda = _Cuda(_runtime() if cuda is None else cuda)
        self._cuda.need_device()
        self._log = _new_log(trt)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            reason = self._log.errors[-1] if self._log.errors else "it gave no reason"
            raise BundleError(
                f"{target} {trt.__version__} cannot load the engine: {' '.join(reason.split())} "
                f"Build it for this machine with: {command('build', 'BUNDLE', '--target', target)}"
            )
        self.input, self.outputs = _signature(self._engine, trt)
        self.providers = (f"{target} {trt.__version__} on {self._cuda.device_name()}",)
        self._least, self._largest = _batches(self._engine, self.input)
        self._lock = threading.Lock()
        self._stream = self._cuda.call("cudaStreamCreate")
        self._images = self._cuda.buffer((self._largest, *(n or 0 for n in self.input.shape[1:])))
        self._results = {
            tensor.name: self._cuda.buffer((self._largest, *(n or 0 for n in tensor.shape[1:])))
            for tensor in self.outputs
        }
        self._context = self._new_context()
        self._records = target is EngineTarget.TENSORRT and self._least == 1
        self._single: Any = (
            None  # The context that the graph was recorded with; shapes must not change under it.
        )
        self._graph: Any = None
        self.watch_forks()

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Float32 outputs by name of images (N, 3, S, S) float32; more than the engine takes go in several calls.

        Raises:
            TensorError: images have another shape or dtype, or are fewer than the engine takes.
        """
        fits = isinstance(images, np.ndarray) and images.dtype == np.float32
        if not fits or images.ndim != 4 or images.shape[1:] != self.input.shape[1:]:
            raise mismatch(self.input, images)
        if self.inherited:
            refuse()
        outputs = empty(self.outputs, len(images))
        with self._lock:
            for start in range(0, len(images), self._largest):
                part = images[start : start + self._largest]
                self._run(part)
                for name, array in outputs.items():
                    array[start : start + len(part)] = self._results[name].host[: len(part)]
        return outputs

    def bind(self, images: NDArray[Any]) -> Bound:
        """A call that runs the engine on what then stands in `images`; see `Backend.bind`."""
        if images.dtype != np.float32 or images.shape[1:] != self.input.shape[1:]:
            raise mismatch(self.input, images)
        return lambda: self.run(images)

    def close(self) -> None:
        """Free the engine and its buffers; a second call does nothing."""
        with self._lock:
            if self._engine is None or self.inherited:  # A child has no GPU to give anything back to.
                return
            self._cuda.call("cudaStreamSynchronize", self._stream)
            if self._graph is not None:
                self._cuda.call("cudaGraphExecDestroy", self._graph)
            self._images.free()
            for result in self._results.values():
                result.free()
            self._cuda.call("cudaStreamDestroy", self._stream)
            self._graph = self._single = self._context = self._engine = self._runtime = None

    def natives(self) -> Iterable[object]:
        """TensorRT's objects, for `Inheritable`."""
        return [n for n in (self._runtime, self._engine, self._context, self._single) if n is not None]

    def in_child(self) -> None:
        """Nobody in the child holds the lock, for `Inheritable`."""
        self._lock = threading.Lock()

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise ModelError("TensorRT gave no execution context; is the GPU's memory full?")
        context.set_tensor_address(self.input.name, self._images.device)
        for name, result in self._results.items():
            context.set_tensor_address(name, result.device)
        return context

    def _run(self, images: NDArray[np.float32]) -> None:
        """Fill the results' first rows."""
        count = len(images)
        if count < self._least:
            raise mismatch(self.input, images)
        self._images.host[:count] = images
        if count == 1 and self._records:
            if self._graph is None:
                self._graph = self._record()
            self._cuda.call("cudaGraphLaunch", self._graph, self._stream)
        else:
            self._enqueue(self._context, count)
        self._cuda.call("cudaStreamSynchronize", self._stream)

    def _enqueue(self, context: Any, count: int) -> None:
        context.set_input_shape(self.input.name, (count, *self.input.shape[1:]))
        self._images.to_device(count, self._stream)
        if not context.execute_async_v3(int(self._stream)):
            reason = self._log.errors[-1] if self._log.errors else "it gave no reason"
            raise ModelError(f"TensorRT could not run the engine: {' '.join(reason.split())}")
        for result in self._results.values():
            result.to_host(count, self._stream)

    def _record(self) -> Any:
        """One image's copies and kernels as a CUDA graph; the first run, outside it, sets the context up."""
        self._single = self._new_context()
        self._enqueue(self._single, 1)
        self._cuda.call("cudaStreamSynchronize", self._stream)
        mode = self._cuda.module.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda.call("cudaStreamBeginCapture", self._stream, mode)
        self._enqueue(self._single, 1)
        graph = self._cuda.call("cudaStreamEndCapture", self._stream)
        ready = self._cuda.call("cudaGraphInstantiate", graph, 0)
        self._cuda.call("cudaGraphDestroy", graph)
        return ready


class _Cuda:
    """The CUDA runtime with its error codes turned into exceptions."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function; its one result, or None.

        Raises:
            ModelError: it failed; carries CUDA's name of the error.
        """
        code, *results = getattr(self.module, name)(*arguments)
        if int(code) != 0:
            raise ModelError(f"{name} failed: {getattr(code, 'name', code)}.")
        return results[0] if results else None

    def need_device(self) -> None:
        """Raise MissingDependencyError where there is no GPU."""
        code, count = self.module.cudaGetDeviceCount()
        if int(code) != 0 or count < 1:
            raise MissingDependencyError(
                f"An NVIDIA GPU (CUDA says {getattr(code, 'name', code)})",
                "Check the driver with nvidia-smi, or choose the target cpu",
            )

    def device_name(self) -> str:
        """The GPU's name and compute capability."""
        found = self.call("cudaGetDeviceProperties", 0)
        name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
        return f"{name.rstrip(chr(0))} (compute capability {found.major}.{found.minor})"

    def buffer(self, shape: tuple[int, ...]) -> _Buffer:
        """A pinned host buffer and one on the GPU, both float32 of that shape."""
        return _Buffer(self, shape)


class _Buffer:
    """Host and device memory of one tensor. `host` is an array over the pinned memory, `device` an address."""

    def __init__(self, cuda: _Cuda, shape: tuple[int, ...]) -> None:
        self._cuda, count = cuda, int(np.prod(shape))
        self._pinned = cuda.call("cudaHostAlloc", 4 * count, 0)
        self.device = int(cuda.call("cudaMalloc", 4 * count))
        pinned = (ctypes.c_float * count).from_address(int(self._pinned))
        self.host: NDArray[np.float32] = np.ctypeslib.as_array(pinned).reshape(shape)

    def to_device(self, rows: int, stream: Any) -> None:
        """Copy the first rows to the GPU, in the stream."""
        kind = self._cuda.module.cudaMemcpyKind.cudaMemcpyHostToDevice
        size = self.host[:rows].nbytes
        self._cuda.call("cudaMemcpyAsync", self.device, int(self._pinned), size, kind, stream)

    def to_host(self, rows: int, stream: Any) -> None:
        """Copy the first rows from the GPU, in the stream."""
        kind = self._cuda.module.cudaMemcpyKind.cudaMemcpyDeviceToHost
        size = self.host[:rows].nbytes
        self._cuda.call("cudaMemcpyAsync", int(self._pinned), self.device, size, kind, stream)

    def free(self) -> None:
        """Give both back."""
        self.host = np.empty((0,), dtype=np.float32)
        self._cuda.call("cudaFreeHost", self._pinned)
        self._cuda.call("cudaFree", self.device)


def gpu_name(cuda: Any | None = None) -> str:
    """The first GPU's name and compute capability, which engines are built for.

    Raises:
        MissingDependencyError: there is no GPU, or no CUDA bindings.
    """
    wrapped = _Cuda(_runtime() if cuda is None else cuda)
    wrapped.need_device()
    return wrapped.device_name()


def _runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise missing("cuda.bindings") from error
    return runtime


def _new_log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps errors for messages."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Log()


def _batches(engine: Any, images: TensorSpec) -> tuple[int, int]:
    """The least and the largest number of images per call."""
    if images.shape[0] is not None:
        return images.shape[0], images.shape[0]
    least, _, largest = engine.get_tensor_profile_shape(images.name, 0)
    return int(least[0]), int(largest[0])


def _signature(engine: Any, trt: Any) -> tuple[TensorSpec, tuple[TensorSpec, ...]]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    tensors: dict[Any, list[TensorSpec]] = {trt.TensorIOMode.INPUT: [], trt.TensorIOMode.OUTPUT: []}
    for name in names:
        shape = tuple(None if length < 0 else int(length) for length in engine.get_tensor_shape(name))
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
        tensors[engine.get_tensor_mode(name)].append(TensorSpec(name=name, dtype=dtype, shape=shape))
    inputs, outputs = tensors[trt.TensorIOMode.INPUT], tuple(tensors[trt.TensorIOMode.OUTPUT])
    if len(inputs) != 1:
        raise ModelError(f"The engine has {len(inputs)} inputs, expected one.")
    check_signature("The engine", inputs[0], outputs, baked=False)
    for tensor in (inputs[0], *outputs):
        if None in tensor.shape[1:]:
            raise ModelError(
                f"The engine's tensor {tensor.name} is {tensor}, expected one open length, the first."
            )
    return inputs[0], outputs
