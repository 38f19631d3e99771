"""What an engine shall be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgetl.errors import ConfigError

WORKSPACE_BYTES = 1 << 30
"""Default scratch memory that a layer may use."""


class EngineTarget(StrEnum):
    """Which of the two compiles, and later runs, the engine."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class EnginePrecision(StrEnum):
    """Arithmetic of convolutions and matrix products."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"


class HardwareCompatibility(StrEnum):
    """On which other GPUs an engine of TensorRT shall run, at a cost in speed."""

    NONE = "none"
    AMPERE_PLUS = "ampere-plus"
    SAME_COMPUTE_CAPABILITY = "same-compute-capability"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to compile for.

    Attributes:
        target: the engine's family.
        precision: what the convolutions and matrix products shall compute in; another outcome is an error.
        float32_layers: layers that the ONNX keeps in float32 on purpose, by the names of their ONNX nodes.
        compute_capabilities: GPUs for TensorRT-RTX, as in `("86", "89")`; empty for TensorRT.
        batch: the (least, tuned, largest) number of images per call; a model with a fixed batch ignores it.
        size: side in pixels of the images, for a model whose image size is open.
        workspace_bytes: scratch memory that a layer may use.
        sparse_weights: use the GPU's 2:4 sparse kernels where the weights have that pattern.
        version_compatible: an engine that later versions of TensorRT take too.
        hardware_compatibility: other GPUs that it shall run on.
        dla_core: compile for this deep learning accelerator of a Jetson; what it cannot run falls back to the GPU.

    Raises:
        ConfigError: values that contradict each other; all at once.
    """

    target: EngineTarget
    precision: EnginePrecision = EnginePrecision.FP32
    float32_layers: tuple[str, ...] = ()
    compute_capabilities: tuple[str, ...] = ()
    batch: tuple[int, int, int] = (1, 1, 8)
    size: int | None = None
    workspace_bytes: int = WORKSPACE_BYTES
    sparse_weights: bool = False
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    dla_core: int | None = None

    def __post_init__(self) -> None:
        if problems := self._problems():
            raise ConfigError(problems)

    def _problems(self) -> list[str]:
        least, tuned, largest = self.batch
        rtx = self.target is EngineTarget.TENSORRT_RTX
        found = []
        if not 1 <= least <= tuned <= largest:
            found.append(f"batch: got {self.batch}, expected 1 <= least <= tuned <= largest.")
        if self.compute_capabilities and not rtx:
            found.append(
                "tensorrt compiles for the GPU of this machine: leave the compute capabilities out, "
                "or choose the target tensorrt-rtx."
            )
        if rtx and (self.version_compatible or self.hardware_compatibility is not HardwareCompatibility.NONE):
            found.append(
                "tensorrt-rtx has no version and hardware compatibility: name every GPU as a compute capability, "
                "and compile again for another version."
            )
        if self.dla_core is None:
            return found
        if rtx:
            found.append("tensorrt-rtx has no DLA: choose the target tensorrt on a Jetson.")
        if self.precision not in (EnginePrecision.FP16, EnginePrecision.INT8):
            found.append(f"A DLA computes in fp16 or int8, not in {self.precision}.")
        if least != largest:
            found.append(f"A DLA takes one batch only: got {least} to {largest}, make them equal.")
        return found
