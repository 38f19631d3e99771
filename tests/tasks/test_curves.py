"""Precision over recall and what surer answers are worth, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from edgetl.tasks.curves import MOST, of_any, of_one, precision_at


@pytest.mark.parametrize("decimals", [8, 1])
def test_precision_and_its_average_are_scikit_learn_s(decimals: int) -> None:
    rng = np.random.default_rng(3)
    there = rng.random(400) < 0.3
    scores = np.round(rng.normal(there * 1.0, 1.0), decimals)  # of one decimal: with many ties
    found, average = precision_at(scores, there)
    assert average == pytest.approx(average_precision_score(there, scores))
    precision, recall, _ = precision_recall_curve(there, scores)
    expected = [precision[:-1][recall[:-1] >= r - 1e-12].max() for r in np.linspace(0, 1, 101)]
    assert found == pytest.approx(expected)


def test_the_surest_answers_of_one_class_are_counted() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    found = of_one(scores, np.array([0, 1, 0, 0]), ("a", "b"))
    assert len(found.right) == 50
    assert found.right[11] == found.right[24] == 1.0  # 24% of four images is one at least, 50% are two
    assert found.right[37] == found.right[48] == pytest.approx(2 / 3, abs=1e-4)
    assert found.right[-1] == 0.75
    assert [(c.label, c.images) for c in found.classes] == [("a", 3), ("b", 1)]
    assert found.classes[0].precision == (1.0,) * 101


def test_the_six_lowest_of_many_classes_are_kept_and_empty_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    labels = tuple(f"class {at}" for at in range(12))
    truths = rng.integers(0, 10, 300)
    scores = rng.random((300, 12)) + 2.0 * np.eye(12)[truths] * np.linspace(0, 1, 12)
    one = of_one(scores / scores.sum(axis=1, keepdims=True), truths, labels)
    several = of_any(1 / (1 + np.exp(-scores)), np.eye(12)[truths], labels)
    for found in (one, several):
        averages = [c.average_precision for c in found.classes]
        assert len(averages) == MOST
        assert averages == sorted(averages)
        assert {c.label for c in found.classes} <= set(labels[:10])
    assert several.right == ()
