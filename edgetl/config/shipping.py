"""Settings of what ships: export, quantization, measuring and the bundle."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, field_serializer

from edgetl.config.choices import Calibrator, Recovery, Target
from edgetl.config.values import Count, Fraction, MetricName, Positive, Section


def _listed(value: object) -> object:
    """One value as a list; a list without repetitions."""
    if isinstance(value, str):
        return (value,)
    return tuple(dict.fromkeys(value)) if isinstance(value, list | tuple) else value


class ExportConfig(Section):
    """Export to ONNX."""

    opset: Annotated[int, Field(ge=18, le=23)] | None = None
    """ONNX operator set; the one for `quantize.target` where unset (18 for CPUs, 20 for TensorRT)."""
    dynamic_size: bool = False
    """Leave height and width of the images open, for networks whose code allows it."""
    uint8_input: bool = False
    """Measure each variant also with the preprocessing baked in: (N, S, S, 3) uint8 pictures in, normalised inside."""
    max_difference: Positive = 1e-2
    """Largest logit difference from torch, relative to the largest logit, on real images; above it the export fails."""


class QuantizeConfig(Section):
    """INT8 by static calibration, made for its targets."""

    enabled: bool = True
    """Off: the bundle holds only float32."""
    target: Annotated[tuple[Target, ...], BeforeValidator(_listed), Field(min_length=1)] = (Target.CPU_X86,)
    """What the model will run on: one target or a list, a variant for each. GPU targets add an FP16 variant, `litert`
    float32 ones, also where INT8 is off."""
    calibrator: Calibrator = Calibrator.AUTO
    """Estimator of activation ranges."""
    percentile: Annotated[float, Field(gt=50.0, le=100.0)] = 99.99
    """For `percentile` and `auto`: the share of values, in per cent, that the range covers."""
    images: Count = 256
    """Calibration images, drawn evenly from the classes of the training split."""
    recovery: Recovery = Recovery.AUTO
    """What is done about accuracy that quantization cost: `none`, `equalise`, `bias`, `adaround`, `qat` or `auto`."""
    max_drop: Fraction = 0.005
    """INT8 may score so much less than the float export on the validation split (or one image less, where that is
    more and the score counts images, as top-1 does and mAP does not): until then `auto` goes from cheap methods to
    costly ones, and where it cannot, the most sensitive layers stay in float."""
    qat_epochs: Count = 2
    """For `qat`: epochs."""
    qat_lr: Positive = 1e-4
    """For `qat`: peak learning rate (AdamW, warm-up, cosine)."""

    @field_serializer("target")
    def _plain(self, target: tuple[Target, ...]) -> str | list[str]:
        """One target is written as it is typed."""
        return str(target[0]) if len(target) == 1 else [str(t) for t in target]


class BenchConfig(Section):
    """How latency is measured."""

    threads: Count = 2
    """The most threads of the engine: one and so many are timed; the better number is reported and travels along."""
    warmup: Count = 20
    """Calls before the first sample."""
    runs: Annotated[int, Field(ge=10)] = 200
    """Samples."""


class BundleConfig(Section):
    """What may ship."""

    metric: MetricName | None = None
    """The score that is held to the floor, on the validation split; where unset, the first of its
    task: top-1 for one class per image."""
    max_drop: Fraction = 0.02
    """A variant may score so much less than the teacher."""
    golden_images: Annotated[int, Field(ge=1, le=64)] = 8
    """Images with their logits stored in the bundle, so that a device can prove itself."""
