"""The task of a description, and what its scores are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never, cast

import numpy as np
from numpy.typing import NDArray

from edgetl.records.codec import from_json
from edgetl.tasks.base import (
    LOGITS,
    Answers,
    Classification,
    Detection,
    HeadSpec,
    MultiHead,
    MultiLabel,
    Outputs,
    Task,
    TaskSpec,
    Truths,
    output,
)

if TYPE_CHECKING:
    from edgetl.inputs.spec import PreprocessSpec
    from edgetl.records.scores import Evaluation
    from edgetl.tasks.classification.answers import Prediction as ClassPrediction
    from edgetl.tasks.classification.detail import ClassDetail
    from edgetl.tasks.detection.answers import Detections
    from edgetl.tasks.detection.detail import BoxDetail
    from edgetl.tasks.multihead.answers import HeadsPrediction
    from edgetl.tasks.multihead.detail import HeadsDetail
    from edgetl.tasks.multilabel.answers import TagsPrediction
    from edgetl.tasks.multilabel.detail import TagsDetail


def task_of(spec: TaskSpec, temperatures: Mapping[str, float] | None = None) -> Task:
    """The code for what a description asks.

    Args:
        spec: the description.
        temperatures: by which logits are divided before they become scores, by output; 1 where unset.
    """
    own = temperatures or {}
    match spec:
        case Classification():
            from edgetl.tasks.classification.task import ClassificationTask

            return ClassificationTask(spec=spec, temperature=own.get(LOGITS, 1.0))
        case MultiLabel():
            from edgetl.tasks.multilabel.task import MultiLabelTask

            return MultiLabelTask(spec=spec, temperature=own.get(LOGITS, 1.0))
        case MultiHead():
            from edgetl.tasks.multihead.task import MultiHeadTask

            return MultiHeadTask(spec=spec, temperatures=own)
        case Detection():
            from edgetl.tasks.detection.task import DetectionTask

            return DetectionTask(spec=spec)
        case _:
            assert_never(spec)


def spec_of(values: Any, otherwise: TaskSpec) -> TaskSpec:
    """A description from its JSON values, or `otherwise` where they are None.

    Raises:
        ValueError: they are no description.
    """
    union: Any = TaskSpec
    return otherwise if values is None else cast("TaskSpec", from_json(union, values))


def truths_of(spec: TaskSpec, labels: Sequence[Any]) -> Truths:
    """What is right, from the labels of an index's samples, one per image.

    Args:
        spec: the task.
        labels: the class; or of `MultiLabel` the classes' positions; or of `MultiHead` one such label per head in their
            order, None where it is not known.

    Raises:
        ValueError: they do not fit the task.
    """
    if isinstance(spec, MultiHead):
        rows = [dict(zip(spec.heads, row, strict=True)) for row in labels]
        return task_of(spec).read([{k: v for k, v in row.items() if v is not None} for row in rows])
    return task_of(spec).read(labels)


def settled(spec: TaskSpec, truths: Truths, outputs: Outputs) -> TaskSpec:
    """A description with what is chosen on the validation split: of any number of classes, each one's threshold; of
    boxes, the score from which they are answered. Both by the best F1.

    Args:
        spec: the task.
        truths, outputs: of the validation split's images.
    """
    match spec:
        case Classification():
            return spec
        case Detection():
            from edgetl.tasks.detection.scores import best_answer

            found = in_pictures(task_of(spec), truths, task_of(spec).decide(outputs))
            return dataclasses.replace(
                spec, threshold=best_answer(truths, found, len(spec.labels), otherwise=spec.threshold)
            )
        case MultiLabel():
            from edgetl.tasks.multilabel.thresholds import best_thresholds

            logits = output(task_of(spec), outputs, LOGITS)
            return dataclasses.replace(spec, thresholds=best_thresholds(truths, logits))
        case MultiHead():
            heads = dict(spec.heads)
            for name, head in spec.heads.items():
                known = truths[name].known
                own = settled(head, truths[name].values[known], {LOGITS: outputs[name][known]})
                heads[name] = cast("HeadSpec", own)
            return MultiHead(heads=heads)
        case _:
            assert_never(spec)


def framed(task: Task, truths: Truths, spec: PreprocessSpec) -> Truths:
    """Truths with the frames that inputs made by `spec` have of their pictures; of tasks without boxes, as they are."""
    match task.spec:
        case Detection():
            from edgetl.tasks.detection.found import framed as framed_boxes

            return framed_boxes(truths, spec)
        case Classification() | MultiLabel() | MultiHead():
            return truths
        case _:
            assert_never(task.spec)


def in_pictures(task: Task, truths: Truths, answers: Answers) -> Answers:
    """Answers that do not depend on how a network's input is made: boxes in the pixels of their truths' pictures."""
    match task.spec:
        case Detection():
            from edgetl.tasks.detection.found import in_pictures as boxes_in_pictures

            return boxes_in_pictures(truths, answers)
        case Classification() | MultiLabel() | MultiHead():
            return answers
        case _:
            assert_never(task.spec)


def differences(task: Task, expected: Outputs, found: Outputs) -> dict[str, NDArray[Any]]:
    """How far each value of the outputs is off, 0 or more; NaN where it does not matter, or cannot be said.

    Relative to the largest expected value of the output. Of boxes relative to the box's own sides, and only where
    half of what is answered was scored; of their scores as they are.
    """
    match task.spec:
        case Detection():
            from edgetl.tasks.detection.task import differences as of_boxes

            return of_boxes(expected, found, task.spec.threshold)
        case Classification() | MultiLabel() | MultiHead():
            gaps = {}
            for name, array in expected.items():
                largest = max(float(np.abs(array).max()), float(np.finfo(np.float32).tiny))
                with np.errstate(invalid="ignore"):
                    gaps[name] = np.abs(found[name] - array) / largest
            return gaps
        case _:
            assert_never(task.spec)


def answer_scale(task: Task, outputs: Outputs) -> float:
    """The largest value of what `Task.margins` is about: of boxes 1, since their scores are shares."""
    match task.spec:
        case Detection():
            return 1.0
        case Classification() | MultiLabel() | MultiHead():
            return max(float(np.abs(array).max()) for array in outputs.values())
        case _:
            assert_never(task.spec)


Prediction: TypeAlias = "ClassPrediction | TagsPrediction | HeadsPrediction | Detections"
"""What a task answers for one image."""
Detail: TypeAlias = "ClassDetail | TagsDetail | HeadsDetail | BoxDetail"
"""What an evaluation's scores are made of, by its task; `kind` says which."""


def prediction_types() -> Any:
    """`Prediction` as a union that `isinstance` takes."""
    from edgetl.tasks.classification.answers import Prediction as ClassPrediction
    from edgetl.tasks.detection.answers import Detections
    from edgetl.tasks.multihead.answers import HeadsPrediction
    from edgetl.tasks.multilabel.answers import TagsPrediction

    return ClassPrediction | TagsPrediction | HeadsPrediction | Detections


def detail_of(evaluation: Evaluation) -> Detail:
    """An evaluation's detail as its task's record.

    Raises:
        ValueError: it has none, or of an unknown task.
    """
    from edgetl.tasks.classification.detail import ClassDetail
    from edgetl.tasks.detection.detail import BoxDetail
    from edgetl.tasks.multihead.detail import HeadsDetail
    from edgetl.tasks.multilabel.detail import TagsDetail

    union: Any = ClassDetail | TagsDetail | HeadsDetail | BoxDetail
    return cast("Detail", from_json(union, evaluation.detail))
