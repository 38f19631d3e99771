from __future__ import annotations

import json

import numpy as np
import pytest

from edgetl.errors import TensorError
from edgetl.inputs.frame import frame_of
from edgetl.inputs.spec import PreprocessSpec, Resize
from edgetl.records.codec import from_json, to_json
from edgetl.tasks.all import spec_of
from edgetl.tasks.base import Detection
from edgetl.tasks.detection.answers import Detections
from edgetl.tasks.detection.scores import Found, Truth
from edgetl.tasks.detection.task import DetectionTask

TASK = DetectionTask(spec=Detection(labels=("a", "b"), threshold=0.5))
FRAME = frame_of((128, 64), PreprocessSpec(size=64, resize=Resize.PAD))
"""Halves the picture; 16 pixels above it."""
TRUTH = Truth(boxes=np.array([[20.0, 10.0, 60.0, 50.0]]), labels=np.array([1]), frame=FRAME)
INSIDE = [10.0, 21.0, 30.0, 41.0]
"""The same box in the input."""


def found(*rows: tuple[list[float], int, float]) -> Found:
    return Found(
        boxes=np.array([box for box, _, _ in rows]).reshape(-1, 4),
        labels=np.array([label for _, label, _ in rows], dtype=np.int64),
        scores=np.array([score for _, _, score in rows]),
    )


def test_answers_are_in_the_pictures_pixels() -> None:
    outputs = {
        "boxes": np.array([[INSIDE, [0, 0, 5, 5]]], np.float32),
        "scores": np.array([[[0.1, 0.9], [0.2, 0.3]]], np.float32),
    }
    [answer] = TASK.predict(outputs, [FRAME])
    [one] = answer.items
    assert one.box == pytest.approx((20, 10, 60, 50))
    assert (one.label, one.index, answer.width, answer.height) == ("b", 1, 128, 64)
    assert answer.text == "1 b"
    assert from_json(Detections, json.loads(json.dumps(to_json(answer)))) == answer
    with pytest.raises(TensorError, match="0 came for 1 images"):
        TASK.predict(outputs)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (found((INSIDE, 1, 0.9)), True),
        (found((INSIDE, 1, 0.9), ([0.0, 0.0, 9.0, 9.0], 0, 0.4)), True),
        (found((INSIDE, 0, 0.9)), False),
        (found((INSIDE, 1, 0.4)), False),
        (found((INSIDE, 1, 0.9), ([0.0, 16.0, 9.0, 25.0], 0, 0.6)), False),
        (found(([40.0, 21.0, 60.0, 41.0], 1, 0.9)), False),
        (found(), False),
    ],
    ids=["hit", "unsure", "class", "missed", "more", "place", "none"],
)
def test_what_is_right(answer: Found, right: bool) -> None:
    assert TASK.right([TRUTH], [answer]).tolist() == [right]
    assert TASK.right([answer], [answer]).tolist() == [True]


def test_how_far_an_answer_is_from_another() -> None:
    scores = np.array([[[0.1, 0.9], [0.2, 0.45]], [[0.0, 0.0], [0.0, 1.0]]], np.float32)
    outputs = {"boxes": np.zeros((2, 2, 4), np.float32), "scores": scores}
    assert TASK.margins(outputs) == pytest.approx([0.05, 0.5])


def test_of_thousands_of_candidates_the_best_are_answered() -> None:
    generator = np.random.default_rng(0)
    low = generator.uniform((0, 17), (60, 46), (1, 2000, 2))
    outputs = {
        "boxes": np.concatenate([low, low + 1], axis=2).astype(np.float32),
        "scores": generator.uniform(0.51, 1, (1, 2000, 2)).astype(np.float32),
    }
    [answer] = TASK.predict(outputs, [FRAME])
    assert len(answer.items) == TASK.spec.most == 100
    # Of so many the best 300 are looked at.
    assert min(item.score for item in answer.items) > np.sort(outputs["scores"].ravel())[-300]


def test_unsure_boxes_of_a_rare_class_are_scored_beside_many_of_a_frequent_one() -> None:
    task = DetectionTask(spec=Detection(labels=("many", "few")))
    boxes = np.tile(np.array([[10.0, 10, 40, 40]], np.float32), (600, 1))  # one object, seen from 600 places
    boxes[-1] = (60, 60, 70, 70)
    scores = np.full((600, 2), 1e-4, np.float32)
    scores[:-1, 0], scores[-1, 1] = 0.2, 0.005
    [scored] = task.decide({"boxes": boxes[None], "scores": scores[None]})
    assert scored.labels.tolist() == [0, 1]


def test_boxes_that_are_not_finite_or_lie_in_the_padding_are_no_answer() -> None:
    boxes = np.array([[INSIDE, [0, 0, 60, 10], [np.nan, 20, 30, 40]]], np.float32)
    outputs = {"boxes": boxes, "scores": np.full((1, 3, 2), 0.9, np.float32) * np.array([1, 0], np.float32)}
    [answer] = TASK.predict(outputs, [FRAME])
    assert [item.box for item in answer.items] == [pytest.approx((20, 10, 60, 50))]
    unsure = {"boxes": boxes, "scores": np.full((1, 3, 2), np.nan, np.float32)}
    assert TASK.predict(unsure, [FRAME])[0].items == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"threshold": 0.0}, "threshold is 0.0, expected a score above 0 and below 1"),
        ({"threshold": 1.0}, "threshold is 1.0, expected"),
        ({"overlap": 0.0}, "overlap is 0.0, expected a share above 0 and at most 1"),
        ({"most": 0}, "most is 0, expected at least 1"),
    ],
)
def test_a_bundle_with_numbers_that_cannot_be_is_refused(change: dict[str, float], says: str) -> None:
    values = {"kind": "detection", "labels": ["a"], **change}
    with pytest.raises(ValueError, match=says):
        spec_of(values, TASK.spec)
