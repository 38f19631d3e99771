"""The task of a description."""

from __future__ import annotations

from typing import assert_never

from edgetl.errors import ModelError
from edgetl.tasks.base import Classification, MultiHead, MultiLabel, Task, TaskSpec


def task_of(spec: TaskSpec) -> Task:
    """The code for what a description asks."""
    match spec:
        case Classification():
            from edgetl.tasks.classification.task import ClassificationTask

            return ClassificationTask(spec=spec)
        case MultiLabel() | MultiHead():
            raise ModelError(f"Outputs of the task {spec.kind} cannot be read yet.")
        case _:
            assert_never(spec)
