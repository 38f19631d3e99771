from __future__ import annotations

import numpy as np
import pytest

from edgetl.records.codec import to_json
from edgetl.tasks.base import Classification
from edgetl.tasks.classification.answers import Prediction, smallest_sure_group
from edgetl.tasks.classification.task import ClassificationTask
from edgetl.tasks.relations import Tree

LABELS = ("free", "crack", "fray", "stain")
TREE = Tree(
    parents={
        "crack": "break",
        "fray": "break",
        "break": "defect",
        "stain": "defect",
        "defect": "part",
        "free": "part",
    }
)
SHARES = np.array([0.1, 0.3, 0.4, 0.2], np.float32)


def answer(sure: float, tree: Tree = TREE) -> Prediction:
    task = ClassificationTask(spec=Classification(labels=LABELS, relation=tree))
    [found] = task.predict({"logits": np.log(SHARES)[None]})
    return smallest_sure_group(found, SHARES, tree, LABELS, sure)


@pytest.mark.parametrize(
    ("sure", "label", "score", "classes", "text"),
    [
        (0.35, "fray", 0.4, (), "fray 40.0%"),
        (0.5, "break", 0.7, ("fray", "crack"), "break 70.0%, either fray or crack"),
        (0.8, "defect", 0.9, ("fray", "crack", "stain"), "defect 90.0%, either fray, crack or stain"),
        (
            1.0,
            "part",
            1.0,
            ("fray", "crack", "stain", "free"),
            "part 100.0%, either fray, crack, stain or free",
        ),
    ],
)
def test_an_unsure_answer_climbs_to_the_smallest_group_that_is_sure(
    sure: float, label: str, score: float, classes: tuple[str, ...], text: str
) -> None:
    found = answer(sure)
    assert (found.label, found.classes, found.text) == (label, classes, text)
    assert found.score == pytest.approx(score)
    assert (found.index, found.top[0].label) == (2, "fray"), "the best class is still told"


def test_above_several_top_groups_is_any_class() -> None:
    tree = Tree(parents={"crack": "break", "fray": "break", "stain": "other", "free": "other"})
    assert answer(0.9, tree).label == "any class"
    assert answer(0.7, tree).label == "break"


def test_a_group_of_many_names_some() -> None:
    found = Prediction(label="x", index=0, score=0.5, top=(), classes=tuple("abcdefg"))
    assert found.either == "either a, b, c, d or 3 more"


def test_a_class_is_written_as_before_there_were_groups() -> None:
    assert "classes" not in to_json(answer(0.1))
    assert to_json(answer(0.5))["classes"] == ["fray", "crack"]
