"""ONNX Runtime as the inference engine: the one place of the runtime that imports it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import MissingDependencyError, ModelError
from edgetl.files import cache_dir
from edgetl.packages import GPU_ENGINE, missing
from edgetl.process import usable_cores
from edgetl.processor import refuse_another
from edgetl.quiet import quietly
from edgetl.runtime.engines.base import Backend, Bound, Opened, Opening, check_signature, empty, mismatch
from edgetl.runtime.forks import Inheritable, Refusing, start, wait_for
from edgetl.tasks.base import Outputs, TensorSpec
from edgetl.text import first_line

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(double)": "float64",
}
_ERROR_SEVERITY = 3
_SPIN_US = "1000"
"""A waiting thread spins so many microseconds, enough from layer to layer. The engine's own 43 ms take cores from
whatever else the device does, its start first of all."""


class Device(StrEnum):
    """Where the model runs: the CPU, or an NVIDIA GPU through ONNX Runtime's CUDA or TensorRT provider."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


T = TypeVar("T")


def open_model(asked: Opening, device: Device) -> Opened:
    """A model on the device; on the CPU workers get it on one thread.

    There the model is read while the engine is imported, and what decodes pictures while the engine loads the model.
    """
    if device is not Device.CPU:
        return Opened(backend=OnnxBackend(asked.read(), threads=asked.threads, device=device))

    def single() -> Backend:
        return OnnxBackend(asked.read(), threads=1)

    content = _Meanwhile(asked.read)
    offered = tuple(import_engine().get_available_providers())
    model = content.result()
    wait_for(_Meanwhile(_warm_up).thread)
    backend = OnnxBackend(model, threads=asked.threads)
    return Opened(backend=backend, single=single if asked.threads > 1 else None, offered=offered)


def _warm_up() -> None:
    from edgetl.inputs.image import warm_up

    warm_up()


class _Meanwhile(Generic[T]):
    """Work that a thread does meanwhile; its error is raised where the result is asked for."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        """Wait for it."""
        self.thread.join()
        if self._error is not None:
            raise self._error
        return self._result


class OnnxBackend(Inheritable):
    """A model in ONNX Runtime, ready to run.

    One call runs its operators one after the other, each on `threads` threads: that gives the lowest
    latency on classifiers, whose graphs are chains.

    Args:
        model: an ONNX file, or its bytes.
        threads: threads inside one call; every usable core where unset.
        device: where to run.
        spin: whether waiting threads spin. It is faster where the cores are ours, since waking a thread costs
            more than a small layer; where other programs want them it starves both. Unset: spin with more
            than one thread and no more threads than cores.
        profile: a folder for the engine's profile of every call, which slows them down; see `end_profile`.
        pack_weights: whether weights are laid out for the kernels, as is fastest. A profile shows the shapes of those
            that are not.
        left_out: names of the engine's optimisers that are not to run.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed, or cannot use the device.
        ForkError: the device is a GPU that a parent of this forked process has used.
        ModelError: the model cannot be loaded, or is not one image tensor in, float tensors out.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        threads: int | None = None,
        device: Device = Device.CPU,
        spin: bool | None = None,
        profile: Path | None = None,
        pack_weights: bool = True,
        left_out: Sequence[str] = (),
    ) -> None:
        ort = import_engine()
        cores = usable_cores()
        self.threads = cores if threads is None else threads
        self._copies = device is not Device.CPU
        if self._copies:
            start("CUDA")
        name = str(model) if isinstance(model, Path) else "the model"
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _ERROR_SEVERITY
        spins = 1 < self.threads <= cores if spin is None else spin
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
        if own_cores := _own_cores(self.threads):
            options.add_session_config_entry("session.intra_op_thread_affinities", own_cores)
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile / "profile")
        if not pack_weights:
            options.add_session_config_entry("session.disable_prepacking", "1")
        wanted = _providers(device, ort)
        try:
            self._session = ort.InferenceSession(
                str(model) if isinstance(model, Path) else model,
                options,
                providers=[name for name, _ in wanted],
                provider_options=[settings for _, settings in wanted],
                enable_fallback=0,
                disabled_optimizers=list(left_out),
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base.
            raise ModelError(f"ONNX Runtime cannot load {name}: {first_line(error)}") from error
        self.watch_forks()
        self._session._model_bytes = None  # It keeps a second copy of the model for a fallback that is off.
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        if self.providers[:1] != (wanted[0][0],):
            got = ", ".join(self.providers)
            raise _device_missing(device, f"asked for {wanted[0][0]}, the session got {got}")
        self.input, self.outputs = _signature(self._session, name)
        self._names, self._dtype = [tensor.name for tensor in self.outputs], np.dtype(self.input.dtype)
        self._fixed, self._tail = self.input.shape[0], self.input.shape[1:]

    def run(self, images: NDArray[Any]) -> Outputs:
        """Float32 outputs by name of images (N, 3, S, S) float32, or (N, S, S, 3) uint8 where the model takes those.

        Raises:
            TensorError: images have another shape or dtype, or a batch that the model was not made for.
        """
        if not isinstance(images, np.ndarray) or images.dtype != self._dtype or not self._fits(images.shape):
            raise mismatch(self.input, images)
        if not images.shape[0]:
            return empty(self.outputs, 0)
        return dict(zip(self._names, self._session.run(self._names, {self.input.name: images}), strict=True))

    def bind(self, images: NDArray[Any]) -> Bound:
        """A call that runs the model on what then stands in `images`; see `Backend.bind`."""
        if images.dtype != self._dtype or not images.flags.c_contiguous or not self._fits(images.shape):
            raise mismatch(self.input, images)
        outputs = empty(self.outputs, len(images))
        if not all(array.size for array in outputs.values()):
            return lambda: self.run(images)
        binding = self._session.io_binding()
        binding.bind_cpu_input(self.input.name, images)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, np.float32, list(array.shape), array.ctypes.data)
        copies = self._copies

        def call() -> Outputs:
            if copies:  # What a GPU reads was copied when it was bound.
                binding.bind_cpu_input(self.input.name, images)
            self._session.run_with_iobinding(binding)
            return outputs

        return call

    def end_profile(self) -> Path:
        """Write the profile of the calls so far and return its file, in Chrome's trace format; for `profile`."""
        return Path(self._session.end_profiling())

    def close(self) -> None:
        """Free the model."""
        self._session = None

    def natives(self) -> Iterable[object]:
        """The engine, for `Inheritable`."""
        return () if self._session is None else (self._session._sess,)

    def in_child(self) -> None:
        """Refuse to run, for `Inheritable`."""
        self._session = None if self._session is None else Refusing()

    def _fits(self, shape: tuple[int, ...]) -> bool:
        if shape[1:] == self._tail and (self._fixed is None or shape[0] == self._fixed):
            return True
        # A model with a free height or width still takes what fits its other sides.
        return len(shape) == len(self.input.shape) and all(
            want is None or have == want for have, want in zip(shape, self.input.shape, strict=True)
        )


def placement(model: bytes, device: Device) -> dict[str, int]:
    """Count a model's nodes by the provider that ran them in one call, from ONNX Runtime's own profile of it.

    Nodes that a device's provider lacks run on the CPU, and every change of sides copies tensors.

    Returns:
        A provider's name to a number of nodes after fusion, e.g. `{"CUDAExecutionProvider": 52}`.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed, or cannot use the device.
        ModelError: the model cannot be loaded.
    """
    import json
    import tempfile
    from collections import Counter

    ort = import_engine()
    wanted = _providers(device, ort)
    options = ort.SessionOptions()
    options.log_severity_level = _ERROR_SEVERITY
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = ort.InferenceSession(
                model, options, providers=[n for n, _ in wanted], provider_options=[s for _, s in wanted]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base.
            raise ModelError(f"ONNX Runtime cannot load the model: {first_line(error)}") from error
        spec, _ = _signature(session, "the model")
        shape = [1 if length is None else length for length in spec.shape]
        session.run(None, {spec.name: np.zeros(shape, dtype=spec.dtype)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = {
        (event["args"]["provider"], event["name"])
        for event in events
        if event.get("cat") == "Node" and event.get("args", {}).get("provider")
    }
    return dict(Counter(provider for provider, _ in sorted(ran)))


def _own_cores(threads: int) -> str:
    """A core for each thread but the caller's, in ONNX Runtime's form; none where there are not as many as threads.

    It does so itself where the number of threads is not set to take. Else a thread that wakes may land on the core of
    the one that woke it, and the two share a core until the kernel looks again.
    """
    if threads == 1 or not hasattr(os, "sched_getaffinity"):
        return ""
    cores = sorted(os.sched_getaffinity(0))
    return ";".join(str(core + 1) for core in cores[1:]) if len(cores) == threads else ""


def import_engine() -> Any:
    """Import ONNX Runtime, which takes longer than reading a model.

    Raises:
        MissingDependencyError: it is not installed, or crashes here since QEMU shows it another machine's processor.
    """
    refuse_another("ONNX Runtime")
    try:
        with quietly():
            import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime") from error
    return onnxruntime


def _providers(device: Device, ort: Any) -> list[tuple[str, dict[str, str]]]:
    """Providers with their settings, the wanted one first; the others take the operators that it lacks."""
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    cuda: tuple[str, dict[str, str]] = ("CUDAExecutionProvider", {"use_tf32": "0"})
    match device:
        case Device.CPU:
            return [cpu]
        case Device.CUDA:
            wanted = [cuda, cpu]
        case Device.TENSORRT:
            # Its engines are built here and cached in the user's own folder.
            kept = {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": str(cache_dir() / "ort-tensorrt"),
            }
            wanted = [("TensorrtExecutionProvider", kept), cuda, cpu]
        case _:
            assert_never(device)
    offered = ort.get_available_providers()
    if wanted[0][0] not in offered:
        raise _device_missing(device, f"this ONNX Runtime offers {', '.join(offered)}")
    return wanted


def _device_missing(device: Device, found: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"ONNX Runtime on {device} ({found})",
        f"Check the driver with nvidia-smi, then: pip uninstall -y onnxruntime && pip install {GPU_ENGINE}",
    )


def _signature(session: Any, name: str) -> tuple[TensorSpec, tuple[TensorSpec, ...]]:
    inputs, outputs = (
        tuple(_tensor(t) for t in tensors) for tensors in (session.get_inputs(), session.get_outputs())
    )
    if len(inputs) != 1:
        raise ModelError(f"{name} has {len(inputs)} inputs, expected one.")
    check_signature(name, inputs[0], outputs)
    return inputs[0], outputs


def _tensor(node: Any) -> TensorSpec:
    shape = tuple(length if isinstance(length, int) else None for length in node.shape)
    return TensorSpec(name=node.name, dtype=_DTYPES.get(node.type, node.type), shape=shape)
