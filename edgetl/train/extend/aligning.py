"""Whether new classes answer louder than known ones, of which few images are left, and how they are turned down."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetl.records.train import AlignRecord
from edgetl.tasks.metrics import TOP1
from edgetl.train.compare import compare
from edgetl.train.evaluate import predict_outputs
from edgetl.train.extend.before import Before
from edgetl.train.sets import PixelSet
from edgetl.train.tasks.base import TrainingTask


def align(
    model: nn.Module, task: TrainingTask, before: Before, val: PixelSet, *, seed: int
) -> AlignRecord | None:
    """Give the weights of new classes the size of those of known classes, in place, where that helps.

    The last layer's weights of new classes are scaled so that their mean length is that of the known classes: Zhao et
    al., "Maintaining discrimination and fairness in class incremental learning" (CVPR 2020), section 4.2, "weight
    aligning". It is kept where more validation images of all classes are right, by the paired test of
    `edgetl.train.compare`.

    Args:
        model: the extended network, trained.
        task: says which layer makes the outputs.
        before: the old network, whose classes are the first outputs.
        val: the validation split of all classes.
        seed: of the comparison.

    Returns:
        What was tried, and whether it helped; None where there are no new classes.
    """
    known = len(before.index.labels)
    (name,) = task.output_layers(model)
    layer = model.get_submodule(name)
    weights: Tensor = layer.get_parameter("weight")
    lengths = weights.detach().flatten(1).norm(dim=1)
    if known == len(lengths):
        return None
    factor = float(lengths[:known].mean() / lengths[known:].mean())
    bias = dict(layer.named_parameters()).get("bias")
    added = 0.0 if bias is None else bias.detach().cpu().numpy()[known:]
    was = predict_outputs(model, val)
    now = was.copy()
    now[:, known:] = factor * (was[:, known:] - added) + added
    comparison = compare(task, TOP1.name, val.targets, was, now, seed=seed)
    if comparison.helped:
        with torch.no_grad():
            weights[known:] *= factor
    return AlignRecord(factor=factor, comparison=comparison)
