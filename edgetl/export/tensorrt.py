"""Compile ONNX to a TensorRT engine: one path for TensorRT (10.12 and later, and 11) and TensorRT-RTX.

Both have the same Python API, so the module is a parameter of `compile_engine`. Networks are strongly typed:
precision comes from the ONNX alone (half-precision tensors, Q/DQ nodes), and TF32 is off, so that float32 means
float32. TensorRT-RTX compiles for named GPUs on a machine that has none; TensorRT compiles for the GPU at hand.

That an engine compiles says neither that it runs nor that it is faster: measure it on its GPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, assert_never

from edgetl.errors import ConfigError, MissingDependencyError, ModelError
from edgetl.files import sha256_bytes, write_bytes
from edgetl.progress import SILENT, Progress
from edgetl.records import EngineRecord

WORKSPACE_BYTES = 1 << 30
"""Default scratch memory that a layer may use."""
_NO_GPU = "cudaError 35"
_SHOWN_ERRORS = 3


class EngineTarget(StrEnum):
    """Which of the two compiles, and later runs, the engine."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to compile for.

    Attributes:
        target: the engine's family.
        compute_capabilities: GPUs for TensorRT-RTX, as in `("86", "89")`; empty for TensorRT.
        batch: the (least, tuned, largest) number of images a call; a model with a fixed batch ignores it.
        workspace_bytes: scratch memory that a layer may use.
        timing_cache: a file with TensorRT's measurements of kernels, read where it exists and written after;
            TensorRT-RTX has none.
    """

    target: EngineTarget
    compute_capabilities: tuple[str, ...] = ()
    batch: tuple[int, int, int] = (1, 1, 8)
    workspace_bytes: int = WORKSPACE_BYTES
    timing_cache: Path | None = None


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine and what it is."""

    content: bytes
    record: EngineRecord


def build_engine(
    onnx: Path | bytes,
    *,
    target: str,
    compute_capabilities: Sequence[str] = (),
    batch: tuple[int, int, int] = (1, 1, 8),
    workspace_bytes: int = WORKSPACE_BYTES,
    timing_cache: Path | None = None,
    progress: Progress = SILENT,
) -> BuiltEngine:
    """Compile an ONNX model; see `BuildOptions` for the arguments.

    Raises:
        ConfigError: the target, a GPU or the batch is wrong.
        MissingDependencyError: TensorRT is not installed, or needs a GPU that is not here.
        ModelError: TensorRT refuses the model; the message carries its reasons.
        StorageError: the timing cache cannot be written.
    """
    if target not in set(EngineTarget):
        raise ConfigError(f"target: got {target!r}, expected {' or '.join(EngineTarget)}.")
    options = BuildOptions(
        target=EngineTarget(target),
        compute_capabilities=tuple(compute_capabilities),
        batch=batch,
        workspace_bytes=workspace_bytes,
        timing_cache=timing_cache,
    )
    return compile_engine(load_module(options.target), onnx, options, progress=progress)


def load_module(target: EngineTarget) -> Any:
    """Import `tensorrt` or `tensorrt_rtx`.

    Raises:
        MissingDependencyError: it is not installed, or its libraries are missing.
    """
    try:
        match target:
            case EngineTarget.TENSORRT:
                import tensorrt

                return tensorrt
            case EngineTarget.TENSORRT_RTX:
                import tensorrt_rtx

                return tensorrt_rtx
            case _:
                assert_never(target)
    except (ImportError, OSError, RuntimeError) as error:
        raise _missing(target) from error


def compile_engine(
    trt: Any, onnx: Path | bytes, options: BuildOptions, *, progress: Progress = SILENT
) -> BuiltEngine:
    """As `build_engine`, with the module that compiles (`tensorrt` or `tensorrt_rtx`) passed in."""
    _check_batch(options.batch)
    gpus = _compute_capabilities(trt, options)
    _check_onnx(onnx)
    started = time.monotonic()
    log = _new_log(trt)
    with progress.task(f"Compiling with {options.target}", total=2) as task:
        builder = _new_builder(trt, log, options.target)
        network, parser = _parse(trt, builder, log, onnx)
        task.advance(note="parsed")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        config.clear_flag(trt.BuilderFlag.TF32)
        if gpus:
            config.num_compute_capabilities = len(gpus)
            for index, gpu in enumerate(gpus.values()):
                config.set_compute_capability(gpu, index)
        batch = _add_profile(builder, config, network, options.batch)
        cache = _open_timing_cache(config, options, progress)
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise ModelError(_refusal(options.target, log.errors))
        content = bytes(serialized)
        task.advance(note=f"{len(content) / 1e6:.1f} MB")
    if cache is not None and options.timing_cache is not None:
        write_bytes(options.timing_cache, bytes(cache.serialize()))
    del parser  # It owns memory that the network reads while it is compiled.
    record = EngineRecord(
        target=options.target.value,
        compute_capabilities=tuple(gpus),
        tensorrt_version=str(trt.__version__),
        batch=batch,
        size_bytes=len(content),
        sha256=sha256_bytes(content),
        seconds=time.monotonic() - started,
    )
    return BuiltEngine(content, record)


# --- checks -----------------------------------------------------------------------------------------------


def _check_batch(batch: tuple[int, int, int]) -> None:
    least, tuned, largest = batch
    if not 1 <= least <= tuned <= largest:
        raise ConfigError(f"batch: got {batch}, expected 1 <= least <= tuned <= largest.")


def _compute_capabilities(trt: Any, options: BuildOptions) -> dict[str, Any]:
    """The GPUs to compile for, by their numbers, each once; none for TensorRT."""
    match options.target:
        case EngineTarget.TENSORRT:
            if options.compute_capabilities:
                raise ConfigError(
                    "tensorrt compiles for the GPU of this machine: leave the compute capabilities out, "
                    "or choose the target tensorrt-rtx."
                )
            return {}
        case EngineTarget.TENSORRT_RTX:
            members = trt.ComputeCapability.__members__
            known = {name[2:]: value for name, value in members.items() if name.startswith("SM")}
            wanted = {_digits(text): text for text in options.compute_capabilities}
            listed = ", ".join(sorted(known, key=int))
            if not wanted:
                raise ConfigError(
                    f"tensorrt-rtx needs at least one compute capability, e.g. 89; it knows {listed}."
                )
            if unknown := [text for digits, text in wanted.items() if digits not in known]:
                raise ConfigError(
                    [
                        f"compute capability: got {text!r}, tensorrt-rtx {trt.__version__} knows {listed}."
                        for text in unknown
                    ]
                )
            return {digits: known[digits] for digits in wanted}
        case _:
            assert_never(options.target)


def _digits(text: str) -> str:
    """`89` for `8.9`, `sm89` and `sm_89`."""
    return text.lower().removeprefix("sm").removeprefix("_").replace(".", "")


def _check_onnx(onnx: Path | bytes) -> None:
    """Refuse what is no ONNX model early, where the checker is installed: TensorRT parses garbage happily."""
    if isinstance(onnx, Path) and not onnx.is_file():
        raise ModelError(f"There is no ONNX model at {onnx}.")
    if find_spec("onnx") is None:
        return
    from onnx import checker

    try:
        checker.check_model(str(onnx) if isinstance(onnx, Path) else onnx)
    except Exception as error:  # protobuf's and the checker's errors have no common base.
        name = str(onnx) if isinstance(onnx, Path) else "The model"
        raise ModelError(f"{name} is not a valid ONNX model: {str(error).splitlines()[0]}") from error


def _missing(target: EngineTarget) -> MissingDependencyError:
    match target:
        case EngineTarget.TENSORRT:
            return MissingDependencyError(
                "tensorrt with its libraries",
                "Install it on a machine with an NVIDIA GPU: pip install 'edgetl[tensorrt]' "
                "--extra-index-url https://pypi.nvidia.com",
            )
        case EngineTarget.TENSORRT_RTX:
            return MissingDependencyError("tensorrt_rtx", "Install it with: pip install 'edgetl[rtx]'")
        case _:
            assert_never(target)


# --- steps ------------------------------------------------------------------------------------------------


def _new_log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps errors for the message; without a GPU, TensorRT-RTX's complaints about that are harmless."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR and _NO_GPU not in message:
                self.errors.append(message)

    return Log()


def _new_builder(trt: Any, log: Any, target: EngineTarget) -> Any:
    try:
        return trt.Builder(log)
    except (TypeError, RuntimeError) as error:
        raise MissingDependencyError(
            f"A GPU for {target}",
            "Compile on a machine with an NVIDIA GPU and driver, or choose the target tensorrt-rtx, "
            "which compiles without one.",
        ) from error


def _parse(trt: Any, builder: Any, log: Any, onnx: Path | bytes) -> tuple[Any, Any]:
    # TensorRT 10 needs the flag; in 11 every network is strongly typed, with or without it.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse_from_file(str(onnx)) if isinstance(onnx, Path) else parser.parse(onnx)
    if not parsed:
        reasons = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ModelError(_refusal(trt.__name__, reasons or log.errors))
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise ModelError(
            f"The model has {network.num_inputs} inputs and {network.num_outputs} outputs, "
            "expected one of each; is it an ONNX classifier?"
        )
    return network, parser


def _parser_error(error: Any) -> str:
    where = f"{error.node_operator()} {error.node_name()}".strip()
    return f"{where}: {error.desc()}" if where else str(error.desc())


def _refusal(name: str, reasons: Sequence[str]) -> str:
    text = "; ".join(" ".join(reason.split()) for reason in reasons[:_SHOWN_ERRORS]) or "it gave no reason"
    message = f"{name} refuses the model: {text.rstrip('.')}."
    if "zero point" in text or "Int32" in text:
        message += (
            " It takes symmetric INT8 only: quantize the model for it, with "
            "quantize.target = 'tensorrt-rtx' in the recipe."
        )
    return message


def _add_profile(
    builder: Any, config: Any, network: Any, batch: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Set the range of batches; return the one that holds."""
    images = network.get_input(0)
    first, *rest = tuple(images.shape)
    if any(length < 0 for length in rest):
        raise ModelError(
            f"{images.name} has shape {tuple(images.shape)}: only the batch may be left open; "
            "export the model with a fixed image size."
        )
    if first >= 0:
        return (first, first, first)
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, *((count, *rest) for count in batch))
    config.add_optimization_profile(profile)
    return batch


def _open_timing_cache(config: Any, options: BuildOptions, progress: Progress) -> Any:
    """The cache in use; None where there is none. One of another version or GPU is replaced, with a warning."""
    path = options.timing_cache
    match options.target:
        case EngineTarget.TENSORRT_RTX:
            return None
        case EngineTarget.TENSORRT:
            if path is None:
                return None
            cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
            if cache is None or not config.set_timing_cache(cache, False):
                progress.warning(f"The timing cache {path} is of another TensorRT or GPU and is made anew.")
                cache = config.create_timing_cache(b"")
                config.set_timing_cache(cache, False)
            return cache
        case _:
            assert_never(options.target)
