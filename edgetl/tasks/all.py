"""The task of a description, and what its scores are made of."""

from __future__ import annotations

from typing import assert_never

from edgetl.errors import ModelError
from edgetl.records.codec import from_json
from edgetl.records.scores import Evaluation
from edgetl.tasks.base import Classification, Detection, MultiHead, MultiLabel, Task, TaskSpec
from edgetl.tasks.classification.answers import Prediction as ClassPrediction
from edgetl.tasks.classification.detail import ClassDetail


def task_of(spec: TaskSpec) -> Task:
    """The code for what a description asks."""
    match spec:
        case Classification():
            from edgetl.tasks.classification.task import ClassificationTask

            return ClassificationTask(spec=spec)
        case Detection():
            from edgetl.tasks.detection.task import DetectionTask

            return DetectionTask(spec=spec)
        case MultiLabel() | MultiHead():
            raise ModelError(f"Outputs of the task {spec.kind} cannot be read yet.")
        case _:
            assert_never(spec)


Prediction = ClassPrediction
"""What a task answers for one image."""
Detail = ClassDetail
"""What an evaluation's scores are made of, by its task; `kind` says which."""


def detail_of(evaluation: Evaluation) -> Detail:
    """An evaluation's detail as its task's record.

    Raises:
        ValueError: it has none, or of an unknown task.
    """
    return from_json(Detail, evaluation.detail)
