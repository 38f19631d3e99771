"""What export, quantization, measuring and packing return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgetl.records.bench import Conditions, Profile
from edgetl.records.codec import OPTIONAL
from edgetl.records.confidence import OutputConfidence
from edgetl.records.measured import Latency, Machine
from edgetl.records.scores import Evaluation
from edgetl.records.unknown import UnknownRecord


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """A float32 ONNX model.

    `max_difference` is the largest difference of any output from torch's on `images` real images, relative to the
    largest value of that output. `same` is the share of them with the same answer, in 0..1. `half_weights` is the
    same model with its weights stored in half precision; `litert` and `litert_half_weights` are the two as .tflite
    files, where LiteRT is a target. `two_four_layers` is how many layers of both ONNX files have 2:4 sparsity.
    """

    onnx: str
    sha256: str
    size_bytes: int
    opset: int
    images: int
    max_difference: float
    same: float
    half_weights: str = ""
    two_four_layers: int = 0
    litert: str = ""
    litert_half_weights: str = ""


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """What quantizing a single layer costs.

    `sqnr_db` is the power of its output over that of its quantization noise, in decibels; `divergence` the power that
    the noise has at the logits over that of the logits, to first order.
    """

    name: str
    operator: str
    sqnr_db: float
    divergence: float


@dataclass(frozen=True, kw_only=True)
class RecoveryAttempt:
    """One try for a target and the validation score that it gave, in 0..1."""

    target: str
    name: str
    score: float


@dataclass(frozen=True, kw_only=True)
class QuantizedVariant:
    """A quantized ONNX model. `precision` is that of the arithmetic: `int8`, `mixed`, `fp16`, or `fp32` where the
    only stored weights are INT8. `tflite` is the same model as a .tflite file, which ships in its place.

    `left_in_float` lists `node (operator): reason`.

    `recovery` names what was done about lost accuracy, `score` is the validation score as the target computes it:
    by integer kernels where this machine has the target's, else with the quantization simulated in float32.
    """

    name: str
    precision: str
    target: str
    onnx: str
    sha256: str
    size_bytes: int
    recovery: str
    score: float
    quantized_nodes: int
    left_in_float: tuple[str, ...]
    tflite: str = ""


@dataclass(frozen=True, kw_only=True)
class QuantizeRecord:
    """The quantized models of a run.

    `metric` names the scores; `floor` is `float_score` less the allowed drop, one image at least. `calibration_key` is
    the hash over the float model, the images and their preprocessing from which the ranges come. `notes` say what was
    not done and why.
    """

    variants: tuple[QuantizedVariant, ...]
    metric: str
    float_score: float
    floor: float
    method: str
    calibration: str
    calibration_key: str
    calibration_images: int
    attempts: tuple[RecoveryAttempt, ...]
    sensitivity: tuple[LayerSensitivity, ...]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class VariantScore:
    """One model variant as measured through the runtime on `machine`. `input` is `float32-nchw` or `uint8-nhwc`.

    `confidence` has an entry for each output, none of a detector; the calibration errors in `val` and `test` are with
    its temperatures. `reference` is the file of what it makes of known images, "" where it has no features to show;
    `unknown` says how it tells unknown ones, None for a detector. `sureness` and `named` are of its answers to the
    images that `MeasureRecord.looks` is of, as `edgetl.bundle.drift` has them. `latency` is with the number of threads
    that it is faster with, `other_latency` with the other one where one thread and several were timed.
    """

    name: str
    precision: str
    target: str
    file: str
    sha256: str
    size_bytes: int
    val: Evaluation
    test: Evaluation | None
    latency: Latency
    input: str = "float32-nchw"
    confidence: tuple[OutputConfidence, ...] = ()
    reference: str = ""
    unknown: UnknownRecord | None = None
    sureness: tuple[float, ...] = field(default=(), metadata=OPTIONAL)
    named: tuple[int, ...] = field(default=(), metadata=OPTIONAL)
    other_latency: Latency | None = None


@dataclass(frozen=True, kw_only=True)
class MeasureRecord:
    """All variants and the teacher, timed interleaved in one process.

    `teacher_latency` is the teacher in eager torch (channels_last), batch 1, with the number of threads that it is
    faster with, `teacher_other_latency` with the other one. `default` names the variant that ships, `reason` says why
    in one sentence, `floor` is the accuracy that a variant must keep. `task` is the description (as JSON) with the
    thresholds that were chosen on the validation split, by which variants are scored; the teacher's are 0.5. None where
    it is as old as one class per image. `looks` is what validation images are like, as `edgetl.bundle.drift` has it.
    """

    variants: tuple[VariantScore, ...]
    teacher_val: Evaluation
    teacher_test: Evaluation | None
    teacher_latency: Latency
    teacher_size_bytes: int
    metric: str
    floor: float
    floor_met: bool
    default: str
    reason: str
    machine: Machine
    task: dict[str, Any] | None = None
    looks: tuple[tuple[float, ...], ...] = field(default=(), metadata=OPTIONAL)
    teacher_other_latency: Latency | None = None
    conditions: Conditions | None = None
    doubts: tuple[str, ...] = ()
    layers: Profile | None = None
    no_layers: str = ""


@dataclass(frozen=True, kw_only=True)
class BundleRecord:
    """The packed bundle."""

    path: str
    sha256: str
    size_bytes: int
    variants: tuple[str, ...]
    default: str


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """A compiled TensorRT engine. `compute_capabilities` as in `("89",)`, empty for the GPU it was compiled on.

    `batch` is the (least, tuned, largest) number of images per call; `variant` and `path` are set where it was
    compiled from a bundle and written. `precision` was asked for; `layers` counts the convolutions and matrix products
    by what they compute in, `exceptions` names those that differ, `evidence` says who vouches for it. `dla_fallback`
    lists layers that a DLA leaves to the GPU. `gpu` and `driver` are those it was compiled on, where it is for them;
    `cached` says that it was built earlier (in `seconds`) and still fits.
    """

    target: str
    compute_capabilities: tuple[str, ...]
    tensorrt_version: str
    batch: tuple[int, int, int]
    size_bytes: int
    sha256: str
    seconds: float
    variant: str = ""
    path: str = ""
    precision: str = ""
    layers: dict[str, int] = field(default_factory=dict)
    exceptions: tuple[str, ...] = ()
    evidence: str = ""
    dla_fallback: tuple[str, ...] = ()
    gpu: str = ""
    driver: str = ""
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class SpectrogramParity:
    """A model that makes the picture of a sound itself beside the bundle's way, on its golden recordings.

    `steps` is the largest difference of a pixel, of 255, `limit` the largest that is taken; `same` is the share of
    recordings with the same answer. `rate` and `samples` are of the window that the model takes.
    """

    recordings: int
    steps: int
    limit: int
    same: float
    rate: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class ServeRecord:
    """A bundle's model written for another runtime: `files` below `path`, or `path` itself.

    `window` is what its caller spreads over 0..255 where images have more than 8 bits, as in the manifest;
    `spectrogram` is of a model that takes samples of a sound.
    """

    variant: str
    path: str
    files: tuple[str, ...]
    size_bytes: int
    window: tuple[float, float] | None = None
    spectrogram: SpectrogramParity | None = None


@dataclass(frozen=True, kw_only=True)
class RknnRecord:
    """A bundle's network as a .rknn file, simulated by the vendor's toolkit beside float32 in ONNX Runtime.

    Errors of outputs are relative to the largest value there, None where they are not finite; `same` is the share of
    the `compared` images with the same answer. `reason` says what is outside the bound, empty where nothing is;
    `window` is as in `ServeRecord`.
    """

    path: str
    platform: str
    precision: str
    size_bytes: int
    toolkit: str
    calibrated: int
    compared: int
    max_error: float | None
    mean_error: float | None
    same: float
    reason: str
    window: tuple[float, float] | None = None

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        word = (
            f"does not agree with float32: {self.reason}"
            if self.reason
            else "agrees with float32, within its bound"
        )
        return f"Simulated, it {word}. How fast it is, only the board can say."


@dataclass(frozen=True, kw_only=True)
class OciRecord:
    """A bundle written as an OCI artifact into the image layout at `path`.

    `digest` is the manifest's, by which a registry names the artifact, `layer` that of the bundle's file.
    """

    path: str
    digest: str
    artifact_type: str
    tag: str
    layer: str
    size_bytes: int
    annotations: dict[str, str]
