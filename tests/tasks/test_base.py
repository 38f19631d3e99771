from __future__ import annotations

import json

import numpy as np
import pytest

from edgetl.errors import TensorError
from edgetl.records.codec import from_json, to_json
from edgetl.tasks.base import Classification, MultiHead, MultiLabel, TaskSpec, agreement, output
from edgetl.tasks.classification.task import ClassificationTask

SPECS: tuple[TaskSpec, ...] = (
    Classification(labels=("a", "b")),
    MultiLabel(labels=("a", "b"), thresholds=(0.25, 0.5)),
    MultiHead(heads={"kind": Classification(labels=("a", "b")), "marks": MultiLabel(labels=("x",))}),
)
TASK = ClassificationTask(spec=Classification(labels=("a", "b", "c")))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_a_description_travels_as_json_and_says_its_kind(spec: TaskSpec) -> None:
    values = json.loads(json.dumps(to_json(spec)))
    assert values["kind"] == spec.kind
    assert from_json(TaskSpec, values) == spec  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labels": ["a"]}, "expected an object with a kind"),
        (
            {"kind": "poetry"},
            r"kind is 'poetry', expected one of 'classification', 'multilabel', 'multihead'",
        ),
        ({"kind": "classification"}, r"labels is missing"),
        ({"kind": "multihead", "heads": {"x": {"kind": "multihead", "heads": {}}}}, r"heads\.x\.kind is"),
    ],
)
def test_a_broken_description_is_named(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(TaskSpec, values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classification(labels=()), "labels are empty or not unique"),
        (lambda: MultiLabel(labels=("a", "a")), "labels are empty or not unique"),
        (lambda: MultiLabel(labels=("a",), thresholds=(0.5, 0.5)), "2 thresholds for 1 labels"),
        (lambda: MultiLabel(labels=("a",), thresholds=(1.5,)), r"a threshold is 1\.5"),
        (lambda: MultiHead(heads={}), "no heads"),
        (lambda: MultiHead(heads={"a/b": Classification(labels=("x",))}), "head's name is 'a/b'"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_an_output_that_does_not_fit_is_named() -> None:
    with pytest.raises(TensorError, match="logits: is missing; the outputs are scores"):
        output(TASK, {"scores": np.zeros((1, 3))}, "logits")
    with pytest.raises(TensorError, match=r"logits: got \(1, 2\) float32, expected \(N, 3\) float32"):
        output(TASK, {"logits": np.zeros((1, 2), np.float32)}, "logits")


def test_agreement_finds_the_largest_difference_beside_its_scale() -> None:
    expected = {"logits": np.array([[4.0, 1.0, 0.0], [0.0, 2.0, 0.0]], np.float32)}
    found = {"logits": np.array([[4.0, 1.0, 0.0], [2.5, 2.0, 0.0]], np.float32)}
    result = TASK.agreement(expected, found)
    assert (result.images, result.output, result.difference, result.scale, result.same) == (
        2,
        "logits",
        2.5,
        4.0,
        0.5,
    )
    found["logits"][0, 2] = np.nan
    assert TASK.agreement(expected, found).difference == float(np.finfo(np.float32).max)
    with pytest.raises(TensorError, match="logits: got shape"):
        agreement(TASK, expected, {"logits": np.zeros((1, 3), np.float32)}, np.ones(1, bool))
