from __future__ import annotations

import numpy as np
import pytest

from edgetl.records.scores import value
from edgetl.tasks.base import Classification, ScoreLimits
from edgetl.tasks.classification.judge import judge
from edgetl.tasks.classification.scores import evaluate
from edgetl.tasks.classification.task import ClassificationTask

LABELS = ("ant", "bee", "cat", "dog", "eel", "fox")
TASK = ClassificationTask(spec=Classification(labels=LABELS))


def _case(images: int = 200, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    truths = generator.integers(0, len(LABELS), images)
    logits = generator.normal(size=(images, len(LABELS))).astype(np.float32)
    logits[np.arange(images), truths] += 2.0
    return truths, {"logits": logits}


def test_every_metric_that_the_task_names_is_in_its_evaluation() -> None:
    truths, outputs = _case()
    found = TASK.score(truths, outputs)
    assert {metric.name: value(found, metric.name) for metric in TASK.metrics}
    assert found == evaluate(truths, outputs["logits"], LABELS)
    few = ClassificationTask(spec=Classification(labels=("a", "b")))
    assert "top5" not in [metric.name for metric in few.metrics]


def test_a_score_that_an_evaluation_lacks_is_named() -> None:
    truths, outputs = _case()
    with pytest.raises(KeyError, match="mAP"):
        value(TASK.score(truths, outputs), "mAP")


def test_judging_answers_is_judging_predictions() -> None:
    truths, before = _case()
    _, after = _case(seed=1)
    first, second = TASK.decide(before), TASK.decide(after)
    limits = ScoreLimits(max_drop=0.02, max_class_drop=0.2, same_model=True)
    expected = judge(truths, first, second, LABELS, margin=0.02, max_recall_drop=0.2, same_model=True)
    assert TASK.judge(truths, first, second, limits) == expected


def test_answers_travel_as_plain_values_and_others_are_refused() -> None:
    _, outputs = _case(images=5)
    answers = TASK.decide(outputs)
    assert TASK.read(TASK.plain(answers)).tolist() == answers.tolist()
    assert TASK.words(answers) == [LABELS[i] for i in outputs["logits"].argmax(axis=1)]
    for wrong in ([6], [-1], [True], ["a"], [1.0], [None]):
        with pytest.raises(ValueError, match="class that is not among its 6 labels"):
            TASK.read(wrong)


def test_predictions_are_ranked() -> None:
    found = TASK.predict({"logits": np.array([[0, 3, 1, 0, 0, 2]], np.float32)}, top_k=3)[0]
    assert (found.label, found.index, [c.label for c in found.top]) == ("bee", 1, ["bee", "fox", "cat"])
    assert found.text == f"bee {found.score:.1%}"
