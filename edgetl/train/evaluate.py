"""Outputs and scores of a network on a set of images, through the one preprocessing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.inputs.image import PreprocessSpec, normalise
from edgetl.records.scores import Evaluation
from edgetl.train.cores import own_cores
from edgetl.train.devices import device_of
from edgetl.train.sets import FeatureSet, PixelSet, Sets
from edgetl.train.tasks.base import TrainingTask


def predict_outputs(
    model: nn.Module,
    pixels: PixelSet | FeatureSet | tuple[NDArray[np.uint8], PreprocessSpec],
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """The outputs (N, D) float32 of a network in evaluation mode; its mode is put back after.

    Args:
        model: images (N, 3, S, S) -> outputs (N, D), on any device; for cached features, the head that takes them.
        pixels: a set without margin, or (N, S, S, 3) uint8 pixels and their preprocessing, or features, of which
            the first view counts.
        batch_size: images a pass.
    """
    device, training = device_of(model), [m.training for m in model.modules()]
    model.eval()
    results = []
    try:
        with torch.inference_mode(), own_cores(device):
            for batch in _batches(pixels, batch_size, device):
                results.append(model(batch).float().cpu().numpy())
    finally:
        for module, mode in zip(model.modules(), training, strict=True):
            module.training = mode
    if not results:
        return np.zeros((0, 0), dtype=np.float32)
    return np.concatenate(results)


def _batches(
    data: PixelSet | FeatureSet | tuple[NDArray[np.uint8], PreprocessSpec],
    batch_size: int,
    device: torch.device,
) -> Iterator[torch.Tensor]:
    if isinstance(data, FeatureSet):
        for start in range(0, len(data), batch_size):
            yield torch.from_numpy(np.array(data.features[0, start : start + batch_size])).to(device)
        return
    images, spec = (data.pixels, data.spec) if isinstance(data, PixelSet) else data
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(normalise(np.asarray(images[start : start + batch_size]), spec))
        yield batch.to(device, memory_format=torch.channels_last)


def score_splits(task: TrainingTask, model: nn.Module, sets: Sets) -> tuple[Evaluation, Evaluation | None]:
    """Score a network on the validation split and on the test split, where there is one.

    What answers are decided by is chosen on the validation split, as it is for what ships.
    """
    outputs = predict_outputs(model, sets.val)
    task = task.settled(sets.val.targets, outputs)
    val = task.evaluate(sets.val.targets, outputs)
    return val, score(task, model, sets.test) if sets.test is not None else None


def score(task: TrainingTask, model: nn.Module, data: PixelSet) -> Evaluation:
    """Score a network on a set without margin.

    Args:
        task: scores the outputs.
        model: images -> outputs (N, D).
        data: the images and targets.
    """
    return task.evaluate(data.targets, predict_outputs(model, data))
