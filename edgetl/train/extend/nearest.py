"""A last layer that answers with the class whose mean feature is nearest, in place of the one that was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.progress import SILENT, Progress
from edgetl.records.train import NearestRecord
from edgetl.tasks.metrics import TOP1
from edgetl.train.compare import compare
from edgetl.train.evaluate import predict_outputs
from edgetl.train.features import compute
from edgetl.train.processes import main_first
from edgetl.train.sets import Sets
from edgetl.train.tasks.base import TrainingTask


def nearest_means(
    model: nn.Module, task: TrainingTask, sets: Sets, *, out: Path, seed: int, progress: Progress = SILENT
) -> NearestRecord | None:
    """Answer with the nearest mean of the training images' features, where that helps; in place.

    A trained last layer favours the classes of which it saw many images. Rebuffi et al., "iCaRL: Incremental Classifier
    and Representation Learning" (CVPR 2017), algorithm 1, take the class whose exemplars' mean feature is nearest, of
    features of unit length. Since the image's own length changes no comparison, that is a linear layer without bias
    whose weights are the means, also of unit length. They are scaled so that its outputs on the training images vary
    as much as those of the trained one did. It is kept where more validation images of all classes are right, by the
    paired test of `edgetl.train.compare`.

    Args:
        model: the extended network, trained.
        task: says which layer makes the outputs.
        sets: of the joined images.
        out: where features are written.
        seed: of the comparison.
        progress: gets two bars.

    Returns:
        What came of it; None where the layer is no linear one, or a class has no training image.
    """
    outputs = task.output_layers(model)
    layer = model.get_submodule(outputs[0])
    if not isinstance(layer, nn.Linear) or len(outputs) > 1:
        return None
    with main_first():
        learned, judged = (
            np.asarray(compute(model, outputs, data, out, progress=progress).features[0])
            for data in (sets.train, sets.val)
        )
    targets = np.asarray(sets.train.targets)
    if learned.ndim != 2 or len(np.unique(targets)) < layer.out_features:
        return None
    unit = _unit(learned)
    means = _unit(np.stack([unit[targets == at].mean(axis=0) for at in range(layer.out_features)]))
    trained = learned @ layer.weight.detach().cpu().numpy().T
    means *= np.float32(_spread(trained) / max(_spread(learned @ means.T), float(np.finfo(np.float32).tiny)))
    was, now = predict_outputs(model, sets.val), judged @ means.T
    comparison = compare(task, TOP1.name, sets.val.targets, was, now, seed=seed)
    if comparison.helped:
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(means))
            if layer.bias is not None:
                layer.bias.zero_()
    return NearestRecord(comparison=comparison)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (N, F) of length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def _spread(outputs: NDArray[np.float32]) -> float:
    """How much an image's outputs (N, C) differ from each other, as a mean."""
    return float(outputs.std(axis=1).mean())
