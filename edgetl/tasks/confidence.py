"""How sure a task's answers are, output by output: temperatures, reliability, and sets that hold the truth.

Of several heads each has its own temperature and its own sets, which hold its truth as often as asked by themselves,
not all together. Boxes have none of it: a detector's scores stay as the network gives them. Where it is to have a
temperature, it divides the class logits of the raw maps, before boxes are decoded, and its sets need a rule of which
box answers for which object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, assert_never, cast

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ConfigError
from edgetl.records.confidence import AnswerCurves, OutputConfidence, Reliability
from edgetl.records.scores import CoverageScore, Score
from edgetl.statistics import wilson_interval
from edgetl.tasks import conformal, curves, reliability, temperature
from edgetl.tasks.all import Prediction, task_of
from edgetl.tasks.base import (
    LOGITS,
    Classification,
    Detection,
    MultiHead,
    MultiLabel,
    Outputs,
    Task,
    TaskSpec,
    Truths,
)
from edgetl.tasks.classification.answers import Candidate
from edgetl.tasks.classification.answers import Prediction as ClassPrediction
from edgetl.tasks.classification.task import ClassificationTask
from edgetl.tasks.conformal import Conformity
from edgetl.tasks.multihead.answers import HeadsPrediction
from edgetl.tasks.multihead.task import MultiHeadTask
from edgetl.tasks.multilabel.answers import TagsPrediction
from edgetl.tasks.multilabel.task import MultiLabelTask

HeadTask: TypeAlias = ClassificationTask | MultiLabelTask
STATED = (0.8, 0.9, 0.95)
"""Coverages that a run states on its test split."""


def has_sets(spec: TaskSpec) -> bool:
    """Whether a task's answers come as sets of labels."""
    match spec:
        case Classification() | MultiLabel() | MultiHead():
            return True
        case Detection():
            return False
        case _:
            assert_never(spec)


def measure(
    spec: TaskSpec, val: tuple[Truths, Outputs], test: tuple[Truths, Outputs] | None
) -> tuple[OutputConfidence, ...]:
    """Choose temperatures on the validation split and say how well scores hold; nothing for boxes.

    Args:
        spec: the task.
        val: truths and outputs of the validation split's images.
        test: of the test split's, where there is one.
    """
    if not has_sets(spec):
        return ()
    found = []
    for name, plain in _questions(task_of(spec)):
        truths, outputs = _labelled(spec, name, *val)
        chosen = _temperature(plain, truths, outputs)
        task = replace(plain, temperature=chosen.temperature)
        split, own = ("val", (truths, outputs)) if test is None else ("test", _labelled(spec, name, *test))
        ranked = conformal.conformity(_conformities(task, truths, outputs))
        found.append(
            OutputConfidence(
                output=name,
                temperature=chosen.temperature,
                fitted=chosen.fitted,
                p_value=chosen.p_value,
                note=chosen.note,
                images=len(truths),
                split=split,
                before=_reliability(plain, *own),
                after=_reliability(task, *own),
                # As float32 they are written in nine digits.
                conformity=tuple(float(f"{value:.9g}") for value in ranked.ranked),
                coverage=() if test is None else _stated(task, name, ranked, *own),
                curves=_curves(task, *own),
            )
        )
    return tuple(found)


def temperatures(found: tuple[OutputConfidence, ...]) -> dict[str, float]:
    """By output, as `edgetl.tasks.all.task_of` takes them."""
    return {one.output: one.temperature for one in found}


def check(spec: TaskSpec, coverage: float) -> None:
    """Raises ConfigError where the coverage is out of range, or the task has no sets."""
    conformal.check_coverage(coverage)
    if not has_sets(spec):
        raise _without_sets(spec)


def least(conformities: Mapping[str, Conformity], coverage: float, what: str) -> dict[str, float]:
    """The conformity that a label needs for a set, by output.

    Args:
        conformities: of the validation images, by output.
        coverage: how often a set is to hold the truth, above 0 and below 1.
        what: whose they are, for errors: a bundle's path.

    Raises:
        ConfigError: there are too few validation images for so much.
    """
    return {
        name: one.least(coverage, what if name == LOGITS else f"{name} of {what}")
        for name, one in conformities.items()
    }


def with_sets(task: Task, outputs: Outputs, found: Prediction, needed: Mapping[str, float]) -> Prediction:
    """One image's prediction with its sets; `needed` is what `least` gave."""
    if isinstance(found, HeadsPrediction):
        heads = cast(MultiHeadTask, task).heads
        return replace(
            found,
            heads={
                name: cast(
                    "ClassPrediction | TagsPrediction",
                    _with_set(heads[name], {LOGITS: outputs[name]}, one, needed[name]),
                )
                for name, one in found.heads.items()
            },
        )
    if not isinstance(task, ClassificationTask | MultiLabelTask):
        raise _without_sets(task.spec)
    return _with_set(task, outputs, found, needed[LOGITS])


def coverages(
    task: Task, truths: Truths, outputs: Outputs, coverage: float, needed: Mapping[str, float]
) -> tuple[CoverageScore, ...]:
    """How often sets hold the truth of labelled images; outputs without any of these are left out."""
    found = []
    for name, own in _questions(task):
        right, values = _labelled(task.spec, name, truths, outputs)
        if len(right):
            found.append(_coverage(own, name, right, values, coverage, needed[name]))
    return tuple(found)


def _questions(task: Task) -> Iterator[tuple[str, HeadTask]]:
    """Each output's name and the task that it answers."""
    match task:
        case ClassificationTask() | MultiLabelTask():
            yield LOGITS, task
        case MultiHeadTask():
            yield from task.heads.items()
        case _:
            raise _without_sets(task.spec)


def _labelled(spec: TaskSpec, name: str, truths: Truths, outputs: Outputs) -> tuple[NDArray[Any], Outputs]:
    """One output's truths and itself, on the images whose truth is known for it."""
    if not isinstance(spec, MultiHead):
        return truths, outputs
    known = truths[name].known
    return truths[name].values[known], {LOGITS: outputs[name][known]}


def _temperature(task: HeadTask, truths: NDArray[Any], outputs: Outputs) -> temperature.Temperature:
    if not len(truths):  # thinning and folds need some
        return temperature.choose(temperature.Softmax(np.zeros((0, 1)), np.zeros(0, dtype=np.int64)))
    logits, places = outputs[LOGITS], temperature.thinned(len(truths), len(task.spec.labels))
    match task:
        case ClassificationTask():
            return temperature.choose(temperature.Softmax(logits[places], truths[places]))
        case MultiLabelTask():
            answers = task.decide(outputs)
            return temperature.choose(temperature.Sigmoid(logits[places], truths[places], answers[places]))
        case _:
            assert_never(task)


def _reliability(task: HeadTask, truths: NDArray[Any], outputs: Outputs) -> Reliability | None:
    if not len(truths):
        return None
    of = reliability.of_one if isinstance(task, ClassificationTask) else reliability.of_any
    return of(task.probabilities(outputs), truths)


def _curves(task: HeadTask, truths: NDArray[Any], outputs: Outputs) -> AnswerCurves | None:
    if not len(truths):
        return None
    of = curves.of_one if isinstance(task, ClassificationTask) else curves.of_any
    return of(task.probabilities(outputs), truths, task.spec.labels)


def _conformities(task: HeadTask, truths: NDArray[Any], outputs: Outputs) -> NDArray[np.float64]:
    if not len(truths):
        return np.zeros(0)
    one = isinstance(task, ClassificationTask)
    of = conformal.conformities_one if one else conformal.conformities_any
    return of(task.probabilities(outputs), truths)


def _stated(
    task: HeadTask, name: str, ranked: Conformity, truths: NDArray[Any], outputs: Outputs
) -> tuple[CoverageScore, ...]:
    possible = [c for c in STATED if c <= ranked.images / (ranked.images + 1)] if len(truths) else []
    return tuple(_coverage(task, name, truths, outputs, c, ranked.least(c, name)) for c in possible)


def _coverage(
    task: HeadTask, name: str, truths: NDArray[Any], outputs: Outputs, coverage: float, least: float
) -> CoverageScore:
    sets = _sets(task, task.probabilities(outputs), least)
    one = isinstance(task, ClassificationTask)
    held = sets[np.arange(len(sets)), truths] if one else (sets | ~truths).all(axis=1)
    low, high = wilson_interval(int(held.sum()), len(held))
    return CoverageScore(
        output=name,
        asked=coverage,
        images=len(held),
        held=Score(value=float(held.mean()), low=low, high=high),
        mean_size=float(sets.sum(axis=1).mean()),
    )


def _sets(task: HeadTask, probabilities: NDArray[Any], least: float) -> NDArray[np.bool_]:
    one = isinstance(task, ClassificationTask)
    return (conformal.sets_one if one else conformal.sets_any)(probabilities, least)


def _with_set(task: HeadTask, outputs: Outputs, found: Prediction, least: float) -> Prediction:
    probabilities = task.probabilities(outputs)
    inside, row = np.flatnonzero(_sets(task, probabilities, least)[0]), probabilities[0]
    possible = tuple(
        Candidate(label=task.spec.labels[at], index=int(at), score=float(row[at]))
        for at in sorted(inside, key=lambda at: -row[at])
    )
    return replace(cast("ClassPrediction | TagsPrediction", found), possible=possible)


def _without_sets(spec: TaskSpec) -> ConfigError:
    return ConfigError(
        f"coverage: sets of labels are for classes, and the bundle is of the task {spec.kind}; leave coverage out."
    )
