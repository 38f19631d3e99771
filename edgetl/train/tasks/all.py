"""The training code of a task."""

from __future__ import annotations

from typing import assert_never

from edgetl.config import (
    DetectionConfig,
    LabelLoss,
    LabelsConfig,
    MultiHeadConfig,
    MultiLabelConfig,
    Sharing,
    TaskConfig,
    Weighting,
)
from edgetl.tasks.base import Classification, Detection, MultiHead, MultiLabel, TaskSpec
from edgetl.train.tasks.base import TrainingTask


def training_task(
    spec: TaskSpec, asked: TaskConfig | None = None, labels: LabelsConfig | None = None
) -> TrainingTask:
    """The code that trains for what a description asks, by the recipe's settings of the task and of its labels."""
    match spec:
        case Classification():
            from edgetl.train.tasks.classification import ClassificationTraining

            return ClassificationTraining(spec=spec, labels=labels or LabelsConfig())
        case Detection():
            from edgetl.train.tasks.detection import DetectionTraining

            mosaic = asked.mosaic if isinstance(asked, DetectionConfig) else 0.0
            return DetectionTraining(spec=spec, mosaic=mosaic)
        case MultiHead():
            from edgetl.train.tasks.multihead import MultiHeadTraining

            tasks = {name: training_task(head) for name, head in spec.heads.items()}
            if not isinstance(asked, MultiHeadConfig):
                return MultiHeadTraining(spec=spec, tasks=tasks)
            return MultiHeadTraining(
                spec=spec,
                tasks=tasks,
                learnt_weights=asked.weighting is Weighting.LEARNT,
                adapters=asked.sharing is Sharing.SOFT,
                tie=asked.tie,
            )
        case MultiLabel():
            from edgetl.train.tasks.multilabel import MultiLabelTraining

            loss = asked.loss if isinstance(asked, MultiLabelConfig) else LabelLoss.BCE
            return MultiLabelTraining(spec=spec, loss=loss)
        case _:
            assert_never(spec)
