"""Quantization-aware training: the exported graph's weights learn under simulated quantization.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
section 3, on the graph that runs (batch norms folded), with activation ranges as calibrated and weight scales that
follow the weights. The teacher guides it as in distillation. What comes out is the float graph with other weights,
so it gets the same Q/DQ form as any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.config import TrainPrecision
from edgetl.data.index import DataIndex
from edgetl.distill.objective import Guide
from edgetl.distill.teacher import guide, load_for
from edgetl.inputs.image import PreprocessSpec
from edgetl.models.two_four import hold, is_sparse
from edgetl.progress import SILENT, Progress
from edgetl.quantize.affine import Affine
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import QuantizationPlan
from edgetl.quantize.replay import Network
from edgetl.quantize.targets import TargetRules
from edgetl.train.loop import Fitting, fit
from edgetl.train.sets import BESIDE, open_sets, open_unlabelled

_WEIGHT_DECAY = 1e-4


@dataclass(frozen=True, kw_only=True)
class AwareTraining:
    """What the graph learns from, and how.

    Attributes:
        guide: the teacher, and how it is followed.
        index, spec, pixels_dir: the images, as the graph sees them.
        epochs: passes.
        lr: peak learning rate.
        metric: the epoch that is best by it on the validation split is chosen.
        seed: of everything random.
        state: the file in which finished epochs are saved.
        unlabelled: images of another domain, half of each step where there are some.
    """

    guide: Guide
    index: DataIndex
    spec: PreprocessSpec
    pixels_dir: Path
    epochs: int
    lr: float
    metric: str
    seed: int
    state: Path
    unlabelled: DataIndex | None = None


def train(
    graph: Graph,
    plan: QuantizationPlan,
    rules: TargetRules,
    activations: Mapping[str, Affine],
    aware_training: AwareTraining,
    *,
    progress: Progress = SILENT,
) -> onnx.ModelProto | None:
    """The float model with weights that bear quantization; None where the weights that it has are better.

    The given graph is not changed.

    Raises:
        ModelError: an operator is not known to the replay.
        WeightsError, ImageError, TrainingError, Interrupted, StorageError: as in distillation.
    """
    how = aware_training.guide
    task = how.task_for(aware_training.index.task)
    teacher, _ = load_for(aware_training.index.labels, how.teacher, "teacher")
    network = Network(graph, plan, rules, activations)
    size = aware_training.spec.size
    view = max(size, how.teacher_size)
    sets = open_sets(
        aware_training.index, aware_training.spec, aware_training.pixels_dir, progress, view_size=view
    )
    further = None
    if aware_training.unlabelled is not None:
        further = open_unlabelled(
            aware_training.unlabelled,
            aware_training.spec,
            aware_training.pixels_dir,
            progress,
            share=BESIDE,
            view_size=view,
        )
    fitting = Fitting(
        phase=f"quantization-aware, {rules.target}",
        epochs=aware_training.epochs,
        batch_size=how.batch_size,
        lr=aware_training.lr,
        weight_decay=_WEIGHT_DECAY,
        augment=how.augment,
        seed=aware_training.seed,
        precision=TrainPrecision.FP32,
        select=aware_training.metric,
    )
    # a matrix product's weights stand the other way round
    sparse = [
        w for w in network.parameters() if is_sparse(w.detach()) or (w.dim() == 2 and is_sparse(w.detach().T))
    ]
    with hold(sparse):
        epochs = fit(
            network,
            fitting,
            task=task,
            train=sets.train,
            val=sets.val,
            objective=how.objective(guide(teacher, how.teacher_size), task, student_size=size),
            state=aware_training.state,
            progress=progress,
            unlabelled=further,
        )
    aware_training.state.unlink(missing_ok=True)
    if epochs and epochs[-1].kept_start:
        return None
    return _with_values(graph, network.learned())


def _with_values(graph: Graph, values: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(graph.model)
    for tensor in copy.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return copy
