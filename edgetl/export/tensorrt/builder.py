"""One build, in this process, with the module that compiles (`tensorrt` or `tensorrt_rtx`) as a parameter."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, assert_never

from edgetl.errors import ConfigError, MissingDependencyError, ModelError
from edgetl.export.tensorrt import precision
from edgetl.export.tensorrt.gpu import Gpu
from edgetl.export.tensorrt.options import BuildOptions, EngineTarget, HardwareCompatibility
from edgetl.files import sha256_bytes, write_bytes
from edgetl.packages import missing
from edgetl.progress import SILENT, Progress, ProgressTask
from edgetl.records.variants import EngineRecord

_NO_GPU = "cudaError 35"
_SHOWN_ERRORS = 3
PERCENT = 100


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine and what it is."""

    content: bytes
    record: EngineRecord


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
    trt: Any,
    onnx: bytes,
    options: BuildOptions,
    *,
    gpu: Gpu | None = None,
    timing_cache: Path | None = None,
    progress: Progress = SILENT,
) -> BuiltEngine:
    """Compile an ONNX model and prove the precision of what came out.

    Args:
        trt: `tensorrt` or `tensorrt_rtx`, as `load_module` gives it.
        onnx: the model file's content.
        options: what to compile for.
        gpu: the GPU at hand, None where there is none; with it the finished engine is inspected too.
        timing_cache: a file with TensorRT's measurements of kernels, read where it exists and written after;
            TensorRT-RTX has none.
        progress: where to report.

    Raises:
        ConfigError: a GPU, the image size or the DLA is not to be had.
        MissingDependencyError: TensorRT needs a GPU that is not here.
        ModelError: TensorRT refuses the model, or the engine is not of the precision that was asked for.
        StorageError: the timing cache cannot be written.
    """
    gpus = _compute_capabilities(trt, options)
    check_onnx(onnx)
    started = time.monotonic()
    log = _new_log(trt)
    with progress.task(f"Compiling with {options.target}", total=PERCENT) as task:
        builder = _new_builder(trt, log, options.target)
        network, parser = _parse(trt, builder, log, onnx)
        layers = precision.of_network(network)
        exceptions = precision.check(options.precision, layers, options.float32_layers)
        config = builder.create_builder_config()
        _configure(trt, config, options, gpus)
        batch = _add_profile(builder, config, network, options)
        fallback = _use_dla(trt, builder, config, network, options)
        cache = _open_timing_cache(config, options, timing_cache, progress)
        config.progress_monitor = monitor = _new_monitor(trt, task)
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise ModelError(_refusal(options.target, log.errors))
        content = bytes(serialized)
        task.advance(PERCENT - monitor.shown_percent, note=f"{len(content) / 1e6:.1f} MB")
    if cache is not None and timing_cache is not None:
        write_bytes(timing_cache, bytes(cache.serialize()))
    del parser  # It owns memory that the network reads while it is compiled.
    record = EngineRecord(
        target=options.target.value,
        compute_capabilities=tuple(gpus),
        tensorrt_version=str(trt.__version__),
        batch=batch,
        size_bytes=len(content),
        sha256=sha256_bytes(content),
        seconds=time.monotonic() - started,
        precision=options.precision.value,
        layers=precision.counts(layers),
        exceptions=exceptions,
        evidence=_evidence(trt, log, content, layers, gpu, gpus),
        dla_fallback=fallback,
        gpu=gpu.name if gpu and not gpus else "",
        driver=gpu.driver if gpu and not gpus else "",
    )
    return BuiltEngine(content, record)


# --- checks -----------------------------------------------------------------------------------------------


def _compute_capabilities(trt: Any, options: BuildOptions) -> dict[str, Any]:
    """The GPUs to compile for, by their numbers, each once; none for TensorRT."""
    match options.target:
        case EngineTarget.TENSORRT:
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


def check_onnx(onnx: bytes) -> None:
    """Refuse what is no ONNX model early, where the checker is installed: TensorRT parses garbage happily.

    Raises:
        ModelError: it is no valid ONNX model.
    """
    if find_spec("onnx") is None:
        return
    from onnx import checker

    try:
        checker.check_model(onnx)
    except Exception as error:  # protobuf's and the checker's errors have no common base.
        raise ModelError(f"The model is not a valid ONNX model: {str(error).splitlines()[0]}") from error


def _missing(target: EngineTarget) -> MissingDependencyError:
    match target:
        case EngineTarget.TENSORRT:
            return missing("tensorrt", purpose="with its libraries and an NVIDIA GPU")
        case EngineTarget.TENSORRT_RTX:
            return missing("tensorrt_rtx")
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


def _new_monitor(trt: Any, task: ProgressTask) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Turns the builder's nested phases into one share that only grows."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.open: list[list[Any]] = []  # name, steps in all, steps done; the innermost phase last
            self.shown_percent = 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.open.append([phase_name, max(1, num_steps), 0])

        def step_complete(self, phase_name: str, step: int) -> bool:
            for phase in self.open:
                if phase[0] == phase_name:
                    phase[2] = min(step + 1, phase[1])
            self._tell(phase_name)
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.open = [phase for phase in self.open if phase[0] != phase_name]

        def _tell(self, phase_name: str) -> None:
            share = 0.0
            for _, steps, done in reversed(self.open):
                share = min(1.0, (done + (share if done < steps else 0.0)) / steps)
            if (percent := int(share * PERCENT)) > self.shown_percent:
                task.advance(percent - self.shown_percent, note=phase_name)
                self.shown_percent = percent

    return Monitor()


def _new_builder(trt: Any, log: Any, target: EngineTarget) -> Any:
    try:
        return trt.Builder(log)
    except (TypeError, RuntimeError) as error:
        raise MissingDependencyError(
            f"A GPU for {target}",
            "Compile on a machine with an NVIDIA GPU and driver, or choose the target tensorrt-rtx, "
            "which compiles without one.",
        ) from error


def _parse(trt: Any, builder: Any, log: Any, onnx: bytes) -> tuple[Any, Any]:
    # TensorRT 10 needs the flag; in 11 every network is strongly typed, with or without it.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        reasons = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ModelError(_refusal(trt.__name__, reasons or log.errors))
    if network.num_inputs != 1 or not network.num_outputs:
        raise ModelError(
            f"The model has {network.num_inputs} inputs and {network.num_outputs} outputs, expected one input, images,"
            " and at least one output."
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


def _configure(trt: Any, config: Any, options: BuildOptions, gpus: dict[str, Any]) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector shows names alone
    if gpus:
        config.num_compute_capabilities = len(gpus)
        for index, gpu in enumerate(gpus.values()):
            config.set_compute_capability(gpu, index)
    if options.sparse_weights:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    levels = trt.HardwareCompatibilityLevel
    match options.hardware_compatibility:
        case HardwareCompatibility.NONE:
            pass
        case HardwareCompatibility.AMPERE_PLUS:
            config.hardware_compatibility_level = levels.AMPERE_PLUS
        case HardwareCompatibility.SAME_COMPUTE_CAPABILITY:
            config.hardware_compatibility_level = levels.SAME_COMPUTE_CAPABILITY
        case _:
            assert_never(options.hardware_compatibility)


def _add_profile(builder: Any, config: Any, network: Any, options: BuildOptions) -> tuple[int, int, int]:
    """Set the range of batches, and the image size where it is open; return the batches that hold."""
    images = network.get_input(0)
    first, *rest = tuple(images.shape)
    if any(length < 0 for length in rest) and options.size is None:
        raise ConfigError(
            f"{images.name} has the shape {tuple(images.shape)}: height and width are open, and an engine wants "
            "them fixed; name the image size."
        )
    sides = [length if length >= 0 else options.size for length in rest]
    batches = options.batch if first < 0 else (first, first, first)
    if first < 0 or sides != rest:
        profile = builder.create_optimization_profile()
        profile.set_shape(images.name, *((count, *sides) for count in batches))
        config.add_optimization_profile(profile)
    return batches


def _use_dla(trt: Any, builder: Any, config: Any, network: Any, options: BuildOptions) -> tuple[str, ...]:
    """Send the network to a DLA; return the layers that it cannot run, which fall back to the GPU."""
    if options.dla_core is None:
        return ()
    if options.dla_core >= builder.num_DLA_cores:
        raise ConfigError(
            f"DLA core {options.dla_core} was asked for, and this machine has {builder.num_DLA_cores}; leave it out "
            "to compile for the GPU."
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return tuple(str(layer.name) for layer in layers if not config.can_run_on_DLA(layer))


def _open_timing_cache(config: Any, options: BuildOptions, path: Path | None, progress: Progress) -> Any:
    """The cache in use; None where there is none. One of another version or GPU is replaced, with a warning."""
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


def _evidence(
    trt: Any,
    log: Any,
    content: bytes,
    layers: Sequence[precision.LayerPrecision],
    gpu: Gpu | None,
    gpus: dict[str, Any],
) -> str:
    """Check the engine itself where it can be loaded, and say who vouches for the precision."""
    if gpu is None or (gpus and gpu.compute_capability not in gpus):
        return "the types of the network, which is strongly typed (the engine itself loads on its GPU only)"
    engine = trt.Runtime(log).deserialize_cuda_engine(content)
    if engine is None:
        raise ModelError(
            f"The engine was compiled but does not load on {gpu.name}: {'; '.join(log.errors[-1:])}."
        )
    information = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    shown, all_ = precision.check_engine(layers, precision.of_engine(information))
    return f"the engine's own layers ({shown} of {all_} shown by the inspector) and the types of the network"


def float32_layers(content: bytes) -> tuple[str, ...]:
    """What a model in half precision keeps in float32 on purpose; nothing where onnx is not there to read it."""
    from importlib.util import find_spec

    if find_spec("onnx") is None:
        return ()
    from onnx import load_from_string

    from edgetl.export.half_precision import FLOAT32_LAYERS_KEY

    metadata = {p.key: p.value for p in load_from_string(content).metadata_props}
    return tuple(json.loads(metadata.get(FLOAT32_LAYERS_KEY, "[]")))
