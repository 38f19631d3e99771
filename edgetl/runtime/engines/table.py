"""The table of engines: what each needs, which variants suit it, and how it opens one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgetl.bundle.manifest import ModelFormat, Variant
from edgetl.processor import computes
from edgetl.records.frozen import dataclass
from edgetl.runtime.engines.base import Opened, Opening
from edgetl.runtime.targets import EngineName


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An inference engine: the one place that says what it needs and which variants suit it.

    Attributes:
        name: as users call it.
        packages: the distributions that bring it; one of them is enough.
        open: loads a model; imports the engine when it is called.
        model_format: the files that it takes, or that it is compiled from.
        on_cpu: whether it runs on the CPU: then it suits what the CPU's kernels compute.
        made_for: further values of `Variant.target` that suit it. Signed symmetric INT8 is slow outside TensorRT.
        provider: its name in ONNX Runtime, where that runs it.
    """

    name: EngineName
    packages: tuple[str, ...]
    open: Callable[[Opening], Opened]
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
        any_cpu = self.on_cpu and self.model_format is ModelFormat.ONNX
        return (("any", "cpu", f"cpu-{arch}") if any_cpu else ()) + self.made_for


def _in_onnxruntime(device: str) -> Callable[[Opening], Opened]:
    def opened(asked: Opening) -> Opened:
        from edgetl.runtime.engines.onnxruntime import Device, open_model

        return open_model(asked, Device(device))

    return opened


def _in_openvino(asked: Opening) -> Opened:
    from edgetl.runtime.engines.openvino import open_model

    return open_model(asked)


def _in_litert(asked: Opening) -> Opened:
    from edgetl.runtime.engines.litert import open_model

    return open_model(asked)


def _compiled(target: str) -> Callable[[Opening], Opened]:
    def opened(asked: Opening) -> Opened:
        from edgetl.runtime.engines.compiled import open_model

        return open_model(asked, target)

    return opened


ENGINES: Mapping[EngineName, Engine] = {
    engine.name: engine
    for engine in (
        # Either package of ONNX Runtime runs on the CPU; only one of them is there.
        Engine(
            name=EngineName.CPU,
            packages=("onnxruntime", "onnxruntime-gpu"),
            open=_in_onnxruntime("cpu"),
            on_cpu=True,
        ),
        Engine(
            name=EngineName.CUDA,
            packages=("onnxruntime-gpu",),
            open=_in_onnxruntime("cuda"),
            made_for=("any", "gpu"),
            provider="CUDAExecutionProvider",
        ),
        Engine(
            name=EngineName.ORT_TENSORRT,
            packages=("onnxruntime-gpu",),
            open=_in_onnxruntime("tensorrt"),
            made_for=("any", "gpu", "tensorrt", "tensorrt-rtx"),
            provider="TensorrtExecutionProvider",
        ),
        Engine(
            name=EngineName.OPENVINO,
            packages=("openvino",),
            open=_in_openvino,
            on_cpu=True,
            made_for=("openvino",),
        ),
        Engine(
            name=EngineName.LITERT,
            packages=("ai-edge-litert",),
            open=_in_litert,
            model_format=ModelFormat.TFLITE,
            on_cpu=True,
            made_for=("litert",),
        ),
        Engine(
            name=EngineName.TENSORRT,
            packages=("tensorrt",),
            open=_compiled("tensorrt"),
            made_for=("any", "tensorrt", "tensorrt-rtx"),
        ),
        Engine(
            name=EngineName.TENSORRT_RTX,
            packages=("tensorrt-rtx",),
            open=_compiled("tensorrt-rtx"),
            made_for=("any", "tensorrt", "tensorrt-rtx"),
        ),
    )
}
"""Every engine by its target; `auto` is none of them."""


def takers(model_format: ModelFormat) -> tuple[Engine, ...]:
    """The engines that take such files."""
    return tuple(engine for engine in ENGINES.values() if engine.model_format is model_format)


def engine_of(target: EngineName) -> Engine:
    """A target's engine; of `auto` the CPU's, on which bundles are measured."""
    return ENGINES[EngineName.CPU if target is EngineName.AUTO else target]
