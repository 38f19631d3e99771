"""Pretrained networks as one model each that gives logits and features, in the runtime that will run them.

Legend: N images, D outputs of the head, F features that its last layer gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgetl.config import Target
from edgetl.errors import ModelError, WeightsError
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.export.opsets import opset_for
from edgetl.inputs.spec import PreprocessSpec, normalise
from edgetl.models import backbones
from edgetl.models.size import check_takes, network_size
from edgetl.progress import SILENT, Progress, ProgressTask
from edgetl.records.train import NetworkSize
from edgetl.records.transfer import Skipped
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import Classification
from edgetl.train.features import head_of
from edgetl.train.tasks.base import TrainingTask

BATCH = 8
"""Images per call while features are computed: larger batches fall out of the caches."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A backbone and where its weights come from, as in `train.backbone` and `train.weights`."""

    backbone: str
    weights: str = backbones.PRETRAINED


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A backbone at one size.

    Attributes:
        source: the backbone.
        spec: its preprocessing.
        model: ONNX, images (N, 3, S, S) float32 -> (N, D + F) float32: logits of the untrained head, then features.
        outputs: D.
        network: how large the network is with its head.
    """

    source: Source
    spec: PreprocessSpec
    model: bytes
    outputs: int
    network: NetworkSize

    @property
    def name(self) -> str:
        """Backbone and size."""
        return f"{self.source.backbone} at {self.spec.size} px"


class _Tap(nn.Module):
    """The last layer, with what it was given beside its outputs: (N, F, ...) -> (N, D + F)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return torch.cat([self.layer(features).flatten(1), features.flatten(1)], dim=1)


def export_all(
    sources: Sequence[Source],
    specs: Sequence[PreprocessSpec],
    task: TrainingTask,
    progress: Progress = SILENT,
) -> tuple[list[Exported], list[Skipped]]:
    """Export every backbone at every size.

    Args:
        sources: the backbones, of known names.
        specs: preprocessing at each size; mean and standard deviation become the backbone's own.
        task: decides the head.
        progress: shows the exports.

    Returns:
        What was exported, and what was skipped: backbones whose pretrained weights cannot be had, and those that do
        not take a size.

    Raises:
        WeightsError: a file of weights that was named cannot be read, or does not fit.
    """
    exported, skipped = list[Exported](), list[Skipped]()
    with progress.task("Exporting networks", len(sources) * len(specs)) as bar:
        for source in sources:
            try:
                for found in _at_each_size(source, specs, task, bar):
                    if isinstance(found, Exported):
                        exported.append(found)
                    else:
                        skipped.append(found)
            except WeightsError as error:
                if source.weights != backbones.PRETRAINED:
                    raise
                skipped.append(Skipped(name=source.backbone, reason=str(error)))
                bar.advance(len(specs))
    return exported, skipped


def _at_each_size(
    source: Source, specs: Sequence[PreprocessSpec], task: TrainingTask, bar: ProgressTask
) -> Iterator[Exported | Skipped]:
    mean, std, _ = backbones.default_preprocess(source.backbone)
    built: dict[int | None, nn.Module] = {}  # most networks take any size as they are
    for spec in specs:
        own = replace(spec, mean=mean, std=std)
        try:
            side = backbones.built_for(source.backbone, spec.size)
            if side not in built:
                built[side] = task.network(source.backbone, source.weights, seed=0, size=spec.size)
            yield _exported(built[side], source, own, task)
        except ModelError as error:
            yield Skipped(name=f"{source.backbone} at {spec.size} px", reason=str(error))
        bar.advance(note=source.backbone)


def _exported(network: nn.Module, source: Source, spec: PreprocessSpec, task: TrainingTask) -> Exported:
    network = network.eval().to(memory_format=torch.channels_last)
    try:
        measured = network_size(network, spec.size)
    except Exception:
        check_takes(network, spec.size, source.backbone, "Name these with --sizes")
        raise
    layers = task.output_layers(network)
    head_of(network, layers, spec.size)  # whether the logits are the last layer's and nothing more
    layer = network.get_submodule(layers[0])
    parent, _, attribute = layers[0].rpartition(".")
    features = _width(network, layer, spec.size)
    setattr(network.get_submodule(parent), attribute, _Tap(layer))
    try:
        labels = tuple(map(str, range(task.width + features)))
        model = to_onnx(
            network, task=Classification(labels=labels), spec=spec, opset=opset_for((Target.CPU_X86,))
        )
    finally:
        setattr(network.get_submodule(parent), attribute, layer)
    return Exported(source=source, spec=spec, model=to_bytes(model), outputs=task.width, network=measured)


def _width(network: nn.Module, layer: nn.Module, size: int) -> int:
    """F: the numbers that the last layer gets of one image."""
    seen: list[int] = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(1).shape[1]))
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, size, size))
    finally:
        hook.remove()
    return seen[0]


def features_of(
    exported: Exported, pixels: NDArray[np.uint8], bar: ProgressTask, *, threads: int | None = None
) -> NDArray[np.float32]:
    """What the last layer gets of images.

    Args:
        exported: the network.
        pixels: (N, S, S, 3) uint8.
        bar: advanced by each batch.
        threads: of the engine; every usable core where unset.

    Returns:
        (N, F) float32.
    """
    found = []
    with OnnxBackend(exported.model, threads=threads) as backend:
        for start in range(0, len(pixels), BATCH):
            images = normalise(np.asarray(pixels[start : start + BATCH]), exported.spec)
            (outputs,) = backend.run(images).values()
            found.append(np.array(outputs[:, exported.outputs :]))
            bar.advance(note=exported.name)
    return np.concatenate(found)
