"""The linear probe: data that a line parts, scikit-learn's answers, and features without a say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from edgetl.errors import TensorError
from edgetl.tasks.base import Classification, MultiLabel
from edgetl.train.tasks.all import training_task
from edgetl.transfer import probe
from edgetl.transfer.probe import linear_probe

LABELS = ("a", "b", "c")
ONE, ANY = training_task(Classification(labels=LABELS)), training_task(MultiLabel(labels=LABELS))


def made(
    images: int, *, width: int = 6, noise: float = 0.0, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Features (N, F), and the class (N,) of the largest of three sums of them."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(images, width)).astype(np.float32)
    scores = x @ np.random.default_rng(9).normal(size=(width, 3))
    return 5 + 3 * x, (scores + noise * generator.normal(size=scores.shape)).argmax(axis=1)


def test_classes_that_a_line_parts_are_learnt() -> None:
    train, (x, y) = made(300), made(200, seed=1)
    found = linear_probe(ONE, train, (x, y))
    assert found.outputs.shape == (200, 3)
    assert (found.outputs.argmax(axis=1) == y).mean() > 0.95
    assert found.ridge <= 0.01


def test_noise_asks_for_a_strong_ridge() -> None:
    y = np.random.default_rng(3).integers(0, 3, 120)
    (x, _), (seen, _) = made(120, width=40), made(120, width=40, seed=1)
    assert linear_probe(ONE, (x, y), (seen, y[::-1].copy())).ridge >= 1.0


def test_one_class_per_image_as_scikit_learn_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "RIDGES", (0.1,))
    (x, y), (seen, right) = made(150, noise=0.5), made(40, seed=1)
    oracle = LogisticRegression(C=1 / (0.1 * len(x)), tol=1e-8, max_iter=500)
    oracle.fit((x - x.mean(0)) / x.std(0), y)
    found = linear_probe(ONE, (x, y), (seen, right)).outputs.astype(np.float64)
    shares = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
    assert shares == pytest.approx(oracle.predict_proba((seen - x.mean(0)) / x.std(0)), abs=2e-3)


def test_any_number_of_classes_is_a_regression_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "RIDGES", (0.1,))
    (x, y), (seen, _) = made(150, noise=0.5), made(40, seed=1)
    targets = np.column_stack([y == 0, y != 1, y == 2]).astype(np.float32)
    found = linear_probe(ANY, (x, targets), (seen, np.zeros((40, 3), np.float32))).outputs
    for at in range(3):
        oracle = LogisticRegression(C=1 / (0.1 * len(x)), tol=1e-8, max_iter=500)
        oracle.fit((x - x.mean(0)) / x.std(0), targets[:, at])
        assert found[:, at] == pytest.approx(
            oracle.decision_function((seen - x.mean(0)) / x.std(0)), abs=1e-2
        )


def test_more_features_than_images_give_the_same_answers() -> None:
    (x, y), (seen, right) = made(30, noise=0.5), made(20, seed=1)
    plain = linear_probe(ONE, (x, y), (seen, right))
    wide = linear_probe(
        ONE, (np.pad(x, ((0, 0), (0, 40)), constant_values=2.0), y), (np.pad(seen, ((0, 0), (0, 40))), right)
    )
    assert wide.ridge == plain.ridge
    assert wide.outputs == pytest.approx(plain.outputs, abs=2e-2)


def test_features_that_are_not_finite_are_refused() -> None:
    x, y = made(30)
    x[3, 2] = np.inf
    with pytest.raises(TensorError, match="a value is not finite"):
        linear_probe(ONE, (x, y), made(10))
