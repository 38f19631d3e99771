"""LiteRT (TensorFlow Lite) as the inference engine, on the CPU through XNNPACK: the one place that imports it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ModelError
from edgetl.packages import missing
from edgetl.processor import refuse_another
from edgetl.runtime.engines.base import Bound, Opened, Opening, check_signature, empty, mismatch, on_cpu
from edgetl.runtime.forks import Inheritable, refuse
from edgetl.tasks.base import Outputs, TensorSpec
from edgetl.text import first_line

_NOTICE = b"INFO: Created TensorFlow Lite XNNPACK delegate"
_STDERR = 2
_noticed = False


def open_model(asked: Opening) -> Opened:
    """A model on the CPU; workers get it on one thread."""
    return on_cpu(asked, LiteRtBackend)


class LiteRtBackend(Inheritable):
    """A model in LiteRT, which takes one image at a time.

    An interpreter serves one thread at a time, so each thread that calls gets its own.

    Args:
        model: the bytes of a .tflite file, as `edgetl.export.litert` writes it.
        threads: threads inside one call.

    Raises:
        MissingDependencyError: LiteRT is not installed, or crashes here since QEMU shows it another processor.
        ModelError: the model cannot be loaded, or is not one image tensor in, float tensors out.
    """

    def __init__(self, model: bytes, *, threads: int) -> None:
        refuse_another("LiteRT")
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise missing("ai_edge_litert") from error
        self.threads = threads
        self.providers = ("LiteRT XNNPACK",)

        def opened() -> Any:
            interpreter = Interpreter(model_content=model, num_threads=threads)
            interpreter.allocate_tensors()
            return interpreter

        self._open: Callable[[], Any] | None = opened
        try:
            with _without_notice():
                first = opened()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT cannot load the model: {first_line(error)}") from error
        self._local = threading.local()
        self._local.interpreter = first
        self._natives = [first]
        self._lock = threading.Lock()
        self.input, self.outputs = _signature(first)
        self._planes = self.input.dtype == "float32"
        self._source = first.get_input_details()[0]["index"]
        self._results = {tensor["name"]: tensor["index"] for tensor in first.get_output_details()}
        self.watch_forks()

    def run(self, images: NDArray[Any]) -> Outputs:
        """Float32 outputs by name of images (N, 3, S, S) float32, or (N, S, S, 3) uint8 where the model takes those.

        Raises:
            TensorError: images have another shape or dtype.
        """
        if not isinstance(images, np.ndarray) or not self._fits(images):
            raise mismatch(self.input, images)
        if self.inherited:
            refuse()
        interpreter, outputs = self._interpreter(), empty(self.outputs, len(images))
        self._compute(interpreter, images, outputs)
        return outputs

    def bind(self, images: NDArray[Any]) -> Bound:
        """A call that runs the model on what then stands in `images`; see `Backend.bind`."""
        if not self._fits(images) or not images.flags.c_contiguous:
            raise mismatch(self.input, images)
        if self.inherited:
            refuse()
        interpreter, outputs = self._new(), empty(self.outputs, len(images))

        def call() -> Outputs:
            if self.inherited:
                refuse()
            self._compute(interpreter, images, outputs)
            return outputs

        return call

    def _compute(
        self, interpreter: Any, images: NDArray[Any], outputs: dict[str, NDArray[np.float32]]
    ) -> None:
        # LiteRT keeps channels behind height and width.
        pictures = images.transpose(0, 2, 3, 1) if self._planes else images
        for at in range(len(images)):
            interpreter.set_tensor(self._source, np.ascontiguousarray(pictures[at : at + 1]))
            interpreter.invoke()
            for name, index in self._results.items():
                outputs[name][at] = interpreter.get_tensor(index)[0]

    def _interpreter(self) -> Any:
        """The calling thread's own."""
        found = getattr(self._local, "interpreter", None)
        if found is None:
            found = self._local.interpreter = self._new()
        return found

    def _new(self) -> Any:
        assert self._open is not None
        opened = self._open()
        with self._lock:
            self._natives.append(opened)
        return opened

    def close(self) -> None:
        """Free the model."""
        self._open, self._local, self._natives = None, threading.local(), []

    def natives(self) -> Iterable[object]:
        """The interpreters, for `Inheritable`."""
        return tuple(self._natives)

    def _fits(self, images: NDArray[Any]) -> bool:
        return images.dtype == self.input.dtype and images.shape[1:] == self.input.shape[1:]


@contextmanager
def _without_notice() -> Iterator[None]:
    """Keep from standard error what LiteRT says there of its first interpreter; all else is passed on."""
    global _noticed
    try:
        kept = None if _noticed else os.dup(_STDERR)
    except OSError:  # there is none
        kept = None
    if kept is None:
        yield
        return
    _noticed = True
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if not line.startswith(_NOTICE):
                    os.write(_STDERR, line)


def _signature(interpreter: Any) -> tuple[TensorSpec, tuple[TensorSpec, ...]]:
    inputs = [_tensor(details) for details in interpreter.get_input_details()]
    if len(inputs) != 1:
        raise ModelError(f"The model has {len(inputs)} inputs, expected one.")
    [images] = inputs
    if images.dtype == "float32" and len(images.shape) == 4:
        _, height, width, channels = images.shape
        images = replace(images, shape=(None, channels, height, width))
    outputs = tuple(_tensor(details) for details in interpreter.get_output_details())
    check_signature("The model", images, outputs)
    return images, outputs


def _tensor(details: Any) -> TensorSpec:
    # Images are run one by one, so that any number of them goes.
    shape = (None, *(int(length) for length in details["shape"][1:]))
    return TensorSpec(name=details["name"], dtype=np.dtype(details["dtype"]).name, shape=shape)
