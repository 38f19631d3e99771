"""The training code of a task."""

from __future__ import annotations

from edgetl.data.index import DataIndex
from edgetl.train.tasks.base import TrainingTask
from edgetl.train.tasks.classification import ClassificationTraining


def training_task(index: DataIndex) -> TrainingTask:
    """The code for what the images are labelled for."""
    return ClassificationTraining(labels=index.labels)
