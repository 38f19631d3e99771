"""The quantize stage: `model-fp32.onnx` becomes `model-int8.onnx`, in the target's form."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from edgetl.config import Calibrator, QuantizeConfig
from edgetl.data import calibration
from edgetl.data.calibration import CalibrationSet
from edgetl.data.index import DataIndex
from edgetl.errors import ModelError
from edgetl.files import sha256_bytes, write_bytes
from edgetl.preprocess import PreprocessSpec
from edgetl.progress import SILENT, Progress
from edgetl.quantize.affine import Affine, from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph, load
from edgetl.quantize.plan import Plan, make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.targets import TargetRules, rules_for
from edgetl.records import QuantizeRecord

FILE = "model-int8.onnx"
MANIFEST = "calibration.json"
FEW_IMAGES = 100
_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class QuantizeInputs:
    """What the stage reads: the float model, the images, their preprocessing, and the seed of the draw."""

    onnx: Path
    index: DataIndex
    spec: PreprocessSpec
    seed: int


def run(
    config: QuantizeConfig, inputs: QuantizeInputs, *, out: Path, progress: Progress = SILENT
) -> QuantizeRecord:
    """Draw a calibration set, observe the activations on it, and write the quantized model.

    Raises:
        DataError: there are no images to calibrate on, or they do not fit the model.
        ModelError: the model cannot be quantized.
        StorageError: a file cannot be written.
    """
    start = time.monotonic()
    chosen = calibration.draw(inputs.index, config.images, inputs.seed, progress=progress)
    if len(chosen.samples) < FEW_IMAGES:
        progress.warning(
            f"{len(chosen.samples)} calibration images are few: ranges may miss what the device will see."
            f" Use {FEW_IMAGES} or more (quantize.images)."
        )
    calibration.save(chosen, out / MANIFEST, root=inputs.index.root)
    graph, rules = Graph(load(inputs.onnx)), rules_for(config.target)
    plan = make_plan(graph, rules)
    if not plan.weighted:
        reasons = "; ".join(plan.left_in_float[:3]) or "it has no convolution and no matrix product"
        raise ModelError(f"Nothing in {inputs.onnx.name} can run in INT8 on {config.target}: {reasons}.")
    activations = calibrated(graph, plan, rules, config, chosen, inputs.spec, progress=progress)
    content = insert(graph, plan, rules, activations).SerializeToString(deterministic=True)
    write_bytes(out / FILE, content)
    return QuantizeRecord(
        onnx=f"{out.name}/{FILE}",
        sha256=sha256_bytes(content),
        size_bytes=len(content),
        target=str(config.target),
        method=_method(config),
        calibration=f"{out.name}/{MANIFEST}",
        calibration_images=len(chosen.samples),
        quantized_nodes=len(plan.weighted) + len(plan.integer),
        left_in_float=plan.left_in_float,
        seconds=time.monotonic() - start,
    )


def calibrated(
    graph: Graph,
    plan: Plan,
    rules: TargetRules,
    config: QuantizeConfig,
    images: CalibrationSet,
    spec: PreprocessSpec,
    *,
    progress: Progress = SILENT,
) -> dict[str, Affine]:
    """Quantization parameters of every planned activation, from one pass over the images."""
    histograms = observe(
        graph.model,
        plan.observed,
        calibration.batches(images, spec, _BATCH, threads=os.cpu_count() or 1),
        images=len(images.samples),
        progress=progress,
    )
    grid = rules.activations
    ranges = {
        name: estimate(histogram, config.calibrator, grid, percentile=config.percentile)
        for name, histogram in histograms.items()
    }
    return {name: from_range(*span, grid) for name, span in (ranges | plan.known).items()}


def _method(config: QuantizeConfig) -> str:
    if config.calibrator is Calibrator.PERCENTILE:
        return f"{config.calibrator} {config.percentile:g}"
    return str(config.calibrator)
