"""Every task's answer and detail travel as JSON, are shown, and are members of the unions."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import edgetl
import edgetl.tasks.all as every
from edgetl.inputs.frame import frame_of
from edgetl.inputs.spec import PreprocessSpec, Resize
from edgetl.records.codec import from_json, to_json
from edgetl.records.scores import Evaluation
from edgetl.report.page.answers import _detail as page_of
from edgetl.report.terminal import run as terminal
from edgetl.report.terminal.device import _answers as shown_answers
from edgetl.tasks.all import detail_of, settled, task_of
from edgetl.tasks.base import Classification, Detection, HeadTruths, MultiHead, MultiLabel, TaskSpec
from edgetl.tasks.detection.scores import Truth

LABELS = ("cat", "dog")
FRAME = frame_of((64, 32), PreprocessSpec(size=64, resize=Resize.PAD))
BOXES = np.array([[[4.0, 20, 20, 40], [30, 20, 60, 44], [0, 16, 6, 20]]] * 2, np.float32)
SCORES = np.array([[[0.9, 0.1], [0.1, 0.6], [0.4, 0.2]]] * 2, np.float32)


def _truths() -> list[Truth]:
    moved = BOXES[0, :2].astype(np.float64) - (0, 16, 0, 16)
    first = Truth(boxes=moved, labels=np.array([0, 1]), frame=FRAME, file="a.png")
    lone = Truth(boxes=moved[:1], labels=np.array([1]), crowd=np.array([False]), frame=FRAME)
    return [first, lone]


def cases() -> dict[str, tuple[TaskSpec, Any, dict[str, np.ndarray]]]:
    logits = np.array([[2.0, -1.0], [-1.0, 3.0]], np.float32)
    heads = MultiHead(heads={"pet": Classification(labels=LABELS)})
    return {
        "classification": (Classification(labels=LABELS), np.array([0, 1]), {"logits": logits}),
        "multilabel": (MultiLabel(labels=LABELS), np.eye(2, dtype=bool), {"logits": logits}),
        "multihead": (
            heads,
            {"pet": HeadTruths(values=np.array([0, 1]), known=np.ones(2, bool))},
            {"pet": logits},
        ),
        "detection": (Detection(labels=LABELS), _truths(), {"boxes": BOXES, "scores": SCORES}),
    }


def test_the_cases_are_all_tasks() -> None:
    from typing import get_args

    assert set(cases()) == {spec.kind for spec in get_args(TaskSpec)}
    assert len(every.Detail.split("|")) == len(every.Prediction.split("|")) == len(cases())


@pytest.mark.parametrize("kind", cases())
def test_scores_and_their_detail_come_back_and_are_shown(kind: str) -> None:
    spec, truths, outputs = cases()[kind]
    new = task_of(spec).score(truths, outputs)
    again = from_json(Evaluation, json.loads(json.dumps(to_json(new), allow_nan=False)))
    detail = detail_of(again)
    assert detail == detail_of(new)
    assert detail.kind == kind
    assert "<table" in page_of(detail)
    stream = io.StringIO()
    terminal.evaluation(Console(file=stream, width=100), again)
    assert "dog" in stream.getvalue()


@pytest.mark.parametrize("kind", cases())
def test_answers_come_back_and_are_shown(kind: str) -> None:
    spec, truths, outputs = cases()[kind]
    task = task_of(spec)
    answers = task.predict(outputs, [FRAME, FRAME])
    for answer in answers:
        json.dumps(to_json(answer), allow_nan=False)
        assert isinstance(answer, edgetl.Prediction)
        assert "cat" in answer.text or "dog" in answer.text
        assert shown_answers(answer)
    for values in (truths, task.decide(outputs)):
        plain = task.plain(values)
        assert task.plain(task.read(json.loads(json.dumps(plain)))) == plain
        assert len(task.words(values)) == 2


def test_the_score_from_which_boxes_are_answered_is_chosen() -> None:
    spec, truths, outputs = cases()["detection"]
    chosen = settled(spec, truths, outputs)
    assert isinstance(chosen, Detection)
    # The best F1 has both right boxes and the one false one of 0.6, none of 0.4.
    assert 0.4 < chosen.threshold < 0.6
    nothing = {"boxes": BOXES, "scores": np.zeros_like(SCORES)}
    assert settled(spec, truths, nothing) == spec
    sure = {"boxes": BOXES, "scores": np.where(SCORES > 0.5, 1, 0).astype(np.float32)}
    settled_for_sure = settled(spec, truths, sure)
    assert isinstance(settled_for_sure, Detection)
    assert 0 < settled_for_sure.threshold < 1
