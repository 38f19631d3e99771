"""The export stage: a checkpoint becomes `model-fp32.onnx`, proved against torch on real images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from edgetl.config import ExportConfig, Target
from edgetl.data.index import DataIndex, Sample
from edgetl.data.splits import spread
from edgetl.errors import ModelError
from edgetl.export.half_weights import store_half
from edgetl.export.litert.convert import to_tflite
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.export.opsets import opset_for
from edgetl.export.parity import check
from edgetl.export.two_four import two_four_layers
from edgetl.files import sha256_bytes, write_bytes
from edgetl.inputs.image import PreprocessSpec, load_batch
from edgetl.models import checkpoint
from edgetl.models.two_four import sparse_layers
from edgetl.progress import SILENT, Progress
from edgetl.records.variants import ExportRecord
from edgetl.tasks.all import task_of

FILE = "model-fp32.onnx"
HALF_FILE = "model-fp32-half-weights.onnx"
LITERT_FILE = "model-fp32.tflite"
LITERT_HALF_FILE = "model-fp32-half-weights.tflite"
PARITY_IMAGES = 64
_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class ExportInputs:
    """What the stage reads: the network's checkpoint, the images to compare on, their preprocessing, the targets."""

    checkpoint: Path
    index: DataIndex
    spec: PreprocessSpec
    targets: tuple[Target, ...] = (Target.CPU_X86,)


def run(
    config: ExportConfig, inputs: ExportInputs, *, out: Path, progress: Progress = SILENT
) -> ExportRecord:
    """Export the network and compare the file with it on up to 64 images of the validation split.

    Where LiteRT is a target, both files are written for it, too.

    Raises:
        ModelError: the network cannot be exported, or not be written for LiteRT, or the export differs too much.
        MissingDependencyError: LiteRT is a target, and `ai-edge-litert` is not installed.
        WeightsError: the checkpoint cannot be used.
        ImageError: an image cannot be read.
        StorageError: the file cannot be written.
    """
    samples = spread(inputs.index.split("val") or inputs.index.split("train"), PARITY_IMAGES)
    with progress.task("export", 3) as task:
        model, _ = checkpoint.load(inputs.checkpoint)
        model = model.eval()
        task.advance()
        exported = to_onnx(
            model,
            task=inputs.index.task,
            spec=inputs.spec,
            opset=config.opset or opset_for(inputs.targets),
            dynamic_size=config.dynamic_size,
            progress=progress,
        )
        content = to_bytes(exported)
        task.advance()
        parity = check(
            model,
            content,
            _batches(samples, inputs.spec),
            task=task_of(inputs.index.task),
            max_difference=config.max_difference,
        )
        task.advance()
    write_bytes(out / FILE, content)
    half = store_half(exported)
    write_bytes(out / HALF_FILE, to_bytes(half))
    for_litert = Target.LITERT in inputs.targets
    if for_litert:
        write_bytes(out / LITERT_FILE, to_tflite(exported))
        write_bytes(out / LITERT_HALF_FILE, to_tflite(half))
    return ExportRecord(
        onnx=f"{out.name}/{FILE}",
        sha256=sha256_bytes(content),
        size_bytes=len(content),
        opset=exported.opset_import[0].version,
        images=parity.images,
        max_difference=parity.max_difference,
        same=parity.same,
        half_weights=f"{out.name}/{HALF_FILE}",
        two_four_layers=_two_four(model, exported, half),
        litert=f"{out.name}/{LITERT_FILE}" if for_litert else "",
        litert_half_weights=f"{out.name}/{LITERT_HALF_FILE}" if for_litert else "",
    )


def _batches(samples: Sequence[Sample], spec: PreprocessSpec) -> Iterator[NDArray[np.float32]]:
    """The first image alone, then the rest in batches, so that the batch is seen to be free."""
    cuts = [0, *range(1, len(samples), _BATCH), len(samples)]
    for start, end in itertools.pairwise(cuts):
        if start < end:
            yield load_batch([sample.path for sample in samples[start:end]], spec)


def _two_four(network: nn.Module, *files: onnx.ModelProto) -> int:
    """How many of the network's layers have 2:4 sparsity; the files have it in as many."""
    expected = len(sparse_layers(network))
    for file in files:
        # more there may be: layers of zeros alone
        if (found := two_four_layers(file)) < expected:
            raise ModelError(
                f"{found} layers of the exported graph have 2:4 sparsity, the network has {expected}. Set"
                " prune.sparsity_2_4 = false, or choose another backbone."
            )
    return expected
