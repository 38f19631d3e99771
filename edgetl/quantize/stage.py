"""The quantize stage: `model-fp32.onnx` becomes one quantized model for each target, in its form."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.config import Calibrator, QuantizeConfig, Recovery, Target
from edgetl.data import calibration
from edgetl.data.index import DataIndex
from edgetl.data.pixels import open_pixels
from edgetl.data.truths import truths_for
from edgetl.distill.objective import Guide
from edgetl.errors import DataError, ModelError
from edgetl.export.half_precision import to_half
from edgetl.export.litert.convert import to_tflite
from edgetl.files import sha256_bytes, write_bytes
from edgetl.inputs.image import PreprocessSpec, normalise
from edgetl.keys import UNKEYED
from edgetl.packages import pip_install
from edgetl.processor import computes
from edgetl.progress import SILENT, Progress
from edgetl.quantize import dynamic
from edgetl.quantize.compact import compact
from edgetl.quantize.form import CHOICE, Calibration, Form
from edgetl.quantize.graph import Graph, load
from edgetl.quantize.plan import make_plan
from edgetl.quantize.recover import Recovered, RecoverySearch, Train
from edgetl.quantize.score import outputs
from edgetl.quantize.targets import CPU_TARGETS, GPU_TARGETS, X86_TARGETS, rules_for
from edgetl.quantize.weight_only import store_int8
from edgetl.quiet import quietly
from edgetl.records.scores import value
from edgetl.records.variants import LayerSensitivity, QuantizedVariant, QuantizeRecord, RecoveryAttempt
from edgetl.tasks.all import settled, task_of
from edgetl.tasks.base import MetricSpec, Task
from edgetl.tasks.metrics import chosen, metric

MANIFEST = "calibration.json"
FEW_IMAGES = 100
SENSITIVITY_IMAGES = 32
CPU = "cpu"
"""Target of what suits every CPU, and no engine that compiles the graph for a GPU."""
FP16 = "fp16-gpu"
DYNAMIC = "int8-dynamic"
WEIGHT_ONLY = "fp32-int8-weights"
_SCORED = 32


@dataclass(frozen=True, kw_only=True)
class QuantizeInputs:
    """What the stage reads.

    Attributes:
        onnx: the float model.
        index: the images and their splits.
        spec: their preprocessing.
        seed: of everything random.
        pixels_dir: folder of decoded pixels, shared by the stages.
        cache_dir: folder of cached calibrations.
        metric: the score that is held to the floor; the task's first where None.
        guide: the teacher, and how it is followed; None rules quantization-aware training out.
        unlabelled: images of another domain, on which the model is calibrated and trained too.
    """

    onnx: Path
    index: DataIndex
    spec: PreprocessSpec
    seed: int
    pixels_dir: Path = field(metadata=UNKEYED)
    cache_dir: Path = field(metadata=UNKEYED)
    metric: str | None = None
    guide: Guide | None = None
    unlabelled: DataIndex | None = None


def run(
    config: QuantizeConfig, inputs: QuantizeInputs, *, out: Path, progress: Progress = SILENT
) -> QuantizeRecord:
    """Draw a calibration set, observe the activations on it once, and write a quantized model for each target.

    Raises:
        ConfigError: training is asked for and there is no teacher.
        DataError: there are no images to calibrate or score on, or they do not fit the model.
        ModelError: the model cannot be quantized, or not be written for LiteRT.
        MissingDependencyError: LiteRT is a target, and `ai-edge-litert` is not installed.
        StorageError: a file cannot be written.
    """
    start = time.monotonic()
    drawn = calibration.draw(
        inputs.index, config.images, inputs.seed, unlabelled=inputs.unlabelled, progress=progress
    )
    if len(drawn.samples) < FEW_IMAGES:
        progress.warning(
            f"{len(drawn.samples)} calibration images are few: ranges may miss what the device will see."
            f" Use {FEW_IMAGES} or more (quantize.images)."
        )
    roots = [inputs.index.root, *([] if inputs.unlabelled is None else [inputs.unlabelled.root])]
    calibration.save(drawn, out / MANIFEST, root=Path(os.path.commonpath(roots)))
    model = load(inputs.onnx)
    if Target.LITERT in config.target:
        to_tflite(model)  # what has no counterpart is named before anything is calibrated or trained
    for target in config.target:
        _check_plan(Graph(model), target, inputs.onnx.name)
    shared = Calibration(
        config=config,
        images=drawn,
        spec=inputs.spec,
        task=inputs.index.task,
        folder=inputs.cache_dir,
        progress=progress,
    )
    # First, so that an activation that is not finite is named before its logits are scored.
    graph = Graph(model)
    shared.observed(graph, make_plan(graph, rules_for(config.target[0])))
    scorer = _Scorer(inputs, progress)
    float_score = scorer(model, "any")
    attempts = RecoverySearch(
        config=config,
        calibration=shared,
        score=scorer,
        train=_trainer(config, inputs, scorer.metric, out, progress),
        floor=float_score - allowed_drop(config, metric(scorer.metric), images=len(scorer.pixels)),
        seed=inputs.seed,
        progress=progress,
    )
    return _Stage(config, attempts, model, out).finish(
        QuantizeRecord(
            variants=(),
            metric=scorer.metric,
            float_score=float_score,
            floor=attempts.floor,
            method=_method(config),
            calibration=f"{out.name}/{MANIFEST}",
            calibration_key=shared.key(model),
            calibration_images=len(drawn.samples),
            attempts=(),
            sensitivity=(),
            notes=(),
            seconds=0.0,
        ),
        start,
    )


def allowed_drop(config: QuantizeConfig, spec: MetricSpec, *, images: int) -> float:
    """How much less than the float export INT8 may score on so many images: `max_drop`, and never less than the one
    image that the score can tell apart, where it counts images.
    """
    return max(config.max_drop, 1.0 / images) if spec.per_image else config.max_drop


class _Stage:
    """Makes the variants, one after the other."""

    def __init__(
        self, config: QuantizeConfig, attempts: RecoverySearch, model: onnx.ModelProto, out: Path
    ) -> None:
        self.config, self.attempts, self.model, self.out = config, attempts, model, out
        self.notes: list[str] = []
        self.variants: list[QuantizedVariant] = []
        self.ranking: tuple[LayerSensitivity, ...] = ()

    def finish(self, record: QuantizeRecord, start: float) -> QuantizeRecord:
        """The record, with all that was made."""
        attempts: list[RecoveryAttempt] = []
        for number, target in enumerate(self.config.target):
            recovered = self.attempts.recover(self.model, rules_for(target))
            attempts += recovered.attempts
            self.notes += [note for note in recovered.notes if note not in self.notes]
            self._keep_int8(target, recovered)
            ranking = (
                self._ranking(recovered.form) if number == 0 or recovered.score < self.attempts.floor else ()
            )
            self.ranking = self.ranking or ranking
            if recovered.score < self.attempts.floor:
                self._keep_mixed(target, recovered, ranking)
        self._keep_half()
        self._keep_dynamic()
        self._keep_weight_only()
        return dataclasses.replace(
            record,
            variants=tuple(self.variants),
            attempts=tuple(attempts),
            sensitivity=self.ranking,
            notes=tuple(self.notes),
            seconds=time.monotonic() - start,
        )

    def _keep_int8(self, target: Target, recovered: Recovered) -> None:
        form = recovered.form
        model = form.model()
        if self.config.calibrator is Calibrator.AUTO:
            self.notes.append(f"int8-{target}: {form.calibrator} ranges came nearest to the float model.")
        if target is Target.OPENVINO:
            self.notes.append(_compiled_by_openvino(model))
        if target is Target.CPU_X86_VNNI and not computes(target):
            self.notes.append(
                "This CPU is not known to have VNNI: int8-cpu-x86-vnni is scored with quantization simulated in"
                " float32, and its latency here says nothing."
            )
        self._keep(f"int8-{target}", "int8", str(target), model, recovered.score, recovered.how, form)

    def _keep_mixed(
        self, target: Target, recovered: Recovered, ranking: tuple[LayerSensitivity, ...]
    ) -> None:
        mixed = self.attempts.mix(recovered.form, ranking)
        if mixed is None:
            self.notes.append(
                f"No mixed-precision model for {target}: leaving layers in float did not reach the floor of"
                f" {self.attempts.floor:.2%}."
            )
            return
        self._keep(
            f"mixed-{target}",
            "mixed",
            str(target),
            mixed.form.model(),
            mixed.score,
            recovered.how,
            mixed.form,
        )
        cost = {layer.name: layer.divergence for layer in ranking}
        listed = ", ".join(f"{name} ({cost[name]:.2g})" for name in mixed.kept)
        self.notes.append(
            f"mixed-{target} keeps {len(mixed.kept)} of {len(ranking)} layers in float, those whose noise moves the"
            f" outputs most (share of the outputs' power): {listed}."
        )

    def _keep_half(self) -> None:
        if not set(self.config.target) & GPU_TARGETS:
            return
        images = np.concatenate(list(self.attempts.calibration.batches(SENSITIVITY_IMAGES)))
        try:
            half = to_half(self.model, images)
            score = self.attempts.score(half.model, "gpu")
        except ModelError as error:
            self.notes.append(f"FP16 was not made: {error}")
            return
        self._keep(FP16, "fp16", "gpu", half.model, score, Recovery.NONE, None, half.float32_layers)

    def _keep_dynamic(self) -> None:
        if not set(self.config.target) & X86_TARGETS:
            return
        graph = Graph(self.model)
        share = dynamic.linear_share(graph)
        if share < dynamic.ENOUGH:
            self.notes.append(
                f"Dynamic INT8 was not made: {share:.0%} of the multiply-accumulates are products with weight"
                f" matrices, and it suits from {dynamic.ENOUGH:.0%} on."
            )
            return
        try:
            model = dynamic.to_dynamic(graph)
            score = self.attempts.score(model, Target.CPU_X86)
        except ModelError as error:
            self.notes.append(f"Dynamic INT8 was not made: {error}")
            return
        self._keep(DYNAMIC, "int8", Target.CPU_X86, model, score, Recovery.NONE, None)

    def _keep_weight_only(self) -> None:
        if not set(self.config.target) & CPU_TARGETS:
            return  # TensorRT takes int8 constants only in front of a DequantizeLinear
        graph = Graph(self.model)
        plan = make_plan(graph, rules_for(self.config.target[0]))
        model = store_int8(graph, plan.weighted)
        if model.ByteSize() >= self.model.ByteSize():
            self.notes.append("Weight-only INT8 was not made: the weights are too small to save anything.")
            return
        score = self.attempts.score(model, CPU)
        if score < self.attempts.floor:
            self.notes.append(
                f"{WEIGHT_ONLY} was dropped: it scores {score:.2%}, below the floor of {self.attempts.floor:.2%}."
            )
            return
        self._keep(WEIGHT_ONLY, "fp32", CPU, model, score, Recovery.NONE, None)

    def _keep(
        self,
        name: str,
        precision: str,
        target: str,
        model: onnx.ModelProto,
        score: float,
        how: str,
        form: Form | None,
        left: tuple[str, ...] = (),
    ) -> None:
        content = compact(model).SerializeToString(deterministic=True)
        file = f"model-{name}.onnx"
        write_bytes(self.out / file, content)
        tflite = ""
        if target == Target.LITERT:
            tflite = f"{self.out.name}/model-{name}.tflite"
            write_bytes(self.out.parent / tflite, to_tflite(model))
        plan = form.plan if form else None
        self.variants.append(
            QuantizedVariant(
                name=name,
                precision=precision,
                target=target,
                onnx=f"{self.out.name}/{file}",
                sha256=sha256_bytes(content),
                size_bytes=len(content),
                recovery=how,
                score=score,
                quantized_nodes=len(plan.weighted) + len(plan.integer) if plan else 0,
                left_in_float=plan.left_in_float if plan else left,
                tflite=tflite,
            )
        )

    def _ranking(self, form: Form) -> tuple[LayerSensitivity, ...]:
        from edgetl.quantize.replay import unsupported
        from edgetl.quantize.sensitivity import sensitivity

        if unknown := unsupported(form.graph):
            self.notes.append(f"Sensitivity was not measured: torch cannot run {', '.join(unknown)} here.")
            return ()
        images = self.attempts.calibration.batches(SENSITIVITY_IMAGES)
        return sensitivity(
            form.graph, form.plan, form.rules, form.activations, images, seed=self.attempts.seed
        )


class _Scorer:
    """A model to its validation score, as its target computes it.

    The first one that is scored is the float model, on whose outputs thresholds are chosen, as for what ships.
    """

    def __init__(self, inputs: QuantizeInputs, progress: Progress) -> None:
        samples = inputs.index.split("val")
        if not samples:
            raise DataError(f"{inputs.index.root} has no validation images to score quantized models on.")
        self.inputs = inputs
        self.task: Task | None = None
        metrics = task_of(inputs.index.task).metrics
        self.metric = chosen(inputs.metric, metrics, setting="bundle.metric")
        self.truths = truths_for(inputs.index.task, samples, inputs.spec)
        self.pixels = open_pixels(samples, inputs.spec, inputs.pixels_dir, progress)

    def __call__(self, model: onnx.ModelProto, target: str) -> float:
        found = outputs(model, self._batches(), target=target)
        if self.task is None:
            self.task = task_of(settled(self.inputs.index.task, self.truths, found))
        return value(self.task.score(self.truths, found), self.metric)

    def _batches(self) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(self.pixels), _SCORED):
            yield normalise(self.pixels[start : start + _SCORED], self.inputs.spec)


def _trainer(
    config: QuantizeConfig, inputs: QuantizeInputs, metric: str, out: Path, progress: Progress
) -> Train | None:
    guide = inputs.guide
    if guide is None:
        return None

    def train(form: Form) -> onnx.ModelProto | None:
        from edgetl.quantize import aware

        aware_training = aware.AwareTraining(
            guide=guide,
            index=inputs.index,
            spec=inputs.spec,
            pixels_dir=inputs.pixels_dir,
            epochs=config.qat_epochs,
            lr=config.qat_lr,
            metric=metric,
            seed=inputs.seed,
            state=out / f"qat-{form.rules.target}.state",
            unlabelled=inputs.unlabelled,
        )
        return aware.train(
            form.graph, form.plan, form.rules, form.activations, aware_training, progress=progress
        )

    return train


def _check_plan(graph: Graph, target: Target, name: str) -> None:
    plan = make_plan(graph, rules_for(target))
    if not plan.weighted:
        reasons = "; ".join(plan.left_in_float[:3]) or "it has no convolution and no matrix product"
        raise ModelError(f"Nothing in {name} can run in INT8 on {target}: {reasons}.")


def _compiled_by_openvino(model: onnx.ModelProto) -> str:
    """Compile the model where OpenVINO is installed; what came of it, in a sentence.

    Raises:
        ModelError: OpenVINO refuses the model.
    """
    if find_spec("openvino") is None:
        return (
            "OpenVINO is not installed here, so int8-openvino was written but not compiled; to check it: "
            + pip_install("openvino")
        )
    with quietly():
        import openvino
    try:
        core = openvino.Core()
        core.compile_model(core.read_model(model.SerializeToString()), "CPU")
    except Exception as error:
        raise ModelError(f"OpenVINO refuses the quantized model: {str(error).strip()[:300]}") from error
    return f"int8-openvino was compiled by OpenVINO {openvino.__version__.partition('-')[0]}."


def _method(config: QuantizeConfig) -> str:
    if config.calibrator is Calibrator.AUTO:
        return f"auto ({', '.join(CHOICE)})"
    if config.calibrator is Calibrator.PERCENTILE:
        return f"{config.calibrator} {config.percentile:g}"
    return str(config.calibrator)
