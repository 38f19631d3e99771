# ruff: noqa: N802, N815 - these are the names of CUDA and TensorRT.
"""A GPU and TensorRT made of numpy, small enough to read: device memory is host memory, streams run at once.

While a stream is captured, work is recorded instead of done; launching the graph does it. An engine maps images to
`pixels.mean per channel @ weights`, so that tests know its logits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

SIDE, LARGEST = 8, 4
WEIGHTS = np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, 3]], dtype=np.float32)


def logits(images: np.ndarray) -> np.ndarray:
    """What the fake engine computes."""
    return images.mean(axis=(2, 3)) @ WEIGHTS


class Code(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100


class FakeCuda:
    """`cuda.bindings.runtime`, as far as the backend uses it."""

    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self, *, devices: int = 1, memory_bytes: int = 1 << 30) -> None:
        self.devices, self.left = devices, memory_bytes
        self.memory: dict[int, Any] = {}
        self.captured: list[Callable[[], None]] | None = None
        self.graphs: list[list[Callable[[], None]]] = []
        self.launches = self.copies = 0
        self.streams = 0

    def cudaGetDeviceCount(self):
        return (Code.cudaSuccess, self.devices) if self.devices else (Code.cudaErrorNoDevice, None)

    def cudaGetDeviceProperties(self, device: int):
        return Code.cudaSuccess, SimpleNamespace(name=b"Fake GPU\x00", major=8, minor=9)

    def cudaStreamCreate(self):
        self.streams += 1
        return Code.cudaSuccess, 7

    def cudaStreamDestroy(self, stream: int):
        self.streams -= 1
        return (Code.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int):
        return (Code.cudaSuccess,)

    def _allocate(self, size: int):
        if size > self.left:
            return Code.cudaErrorMemoryAllocation, None
        self.left -= size
        block = (ctypes.c_byte * size)()
        self.memory[ctypes.addressof(block)] = block
        return Code.cudaSuccess, ctypes.addressof(block)

    def cudaHostAlloc(self, size: int, flags: int):
        return self._allocate(size)

    def cudaMalloc(self, size: int):
        return self._allocate(size)

    def cudaFree(self, address: int):
        del self.memory[address]
        return (Code.cudaSuccess,)

    cudaFreeHost = cudaFree

    def enqueue(self, work: Callable[[], None]) -> None:
        """Do the work, or record it where the stream is captured."""
        if self.captured is not None:
            self.captured.append(work)
        else:
            work()

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int):
        self.copies += 1
        self.enqueue(lambda: ctypes.memmove(to, source, size) and None)
        return (Code.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int):
        self.captured = []
        return (Code.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int):
        self.graphs.append(self.captured or [])
        self.captured = None
        return Code.cudaSuccess, len(self.graphs) - 1

    def cudaGraphInstantiate(self, graph: int, flags: int):
        return Code.cudaSuccess, graph

    def cudaGraphDestroy(self, graph: int):
        return (Code.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: int):
        self.graphs[graph] = []
        return (Code.cudaSuccess,)

    def cudaGraphLaunch(self, graph: int, stream: int):
        self.launches += 1
        for work in self.graphs[graph]:
            work()
        return (Code.cudaSuccess,)


class Context:
    """An execution context: knows addresses and a shape, computes on the fake device's memory."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.addresses, self.shape, self.fails = cuda, {}, (), False

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def execute_async_v3(self, stream: int) -> bool:
        if self.fails:
            return False
        shape = self.shape

        def work() -> None:
            images = _array(self.addresses["images"], shape)
            _array(self.addresses["logits"], (shape[0], 3))[:] = logits(images)

        self.cuda.enqueue(work)
        return True


def _array(address: int, shape: tuple[int, ...]) -> np.ndarray:
    block = (ctypes.c_float * int(np.prod(shape))).from_address(address)
    return np.ctypeslib.as_array(block).reshape(shape)


class Engine:
    """An engine of (N, 3, SIDE, SIDE) images and (N, 3) logits, for batches of `least` to LARGEST."""

    num_io_tensors = 2

    def __init__(self, cuda: FakeCuda, *, least: int = 1, dtype: type = np.float32) -> None:
        self.cuda, self.least, self.dtype = cuda, least, dtype
        self.contexts: list[Context] = []

    def get_tensor_name(self, index: int) -> str:
        return ("images", "logits")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "images" else "output"

    def get_tensor_dtype(self, name: str) -> type:
        return self.dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3, SIDE, SIDE) if name == "images" else (-1, 3)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [(n, 3, SIDE, SIDE) for n in (self.least, self.least, LARGEST)]

    def create_execution_context(self) -> Context:
        self.contexts.append(Context(self.cuda))
        return self.contexts[-1]


def fake_trt(engine: Engine | None, *, complaint: str = "") -> SimpleNamespace:
    """`tensorrt`, whose runtime gives `engine` for any bytes; None with a complaint in the log, as TensorRT does."""

    class ILogger:
        Severity = SimpleNamespace(ERROR=1)

    class Runtime:
        def __init__(self, log: Any) -> None:
            self.log = log

        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            if engine is None:
                self.log.log(1, complaint)
            return engine

    return SimpleNamespace(
        __name__="tensorrt",
        __version__="11.4.0",
        ILogger=ILogger,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
        nptype=lambda dtype: dtype,
    )
