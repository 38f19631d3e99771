"""Confident learning on labels of which it is known which are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.data.confident import doubts
from edgetl.errors import TensorError


def _made(images: int, classes: int, flipped: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True labels, given labels, and probabilities of a model that is right nine times in ten, and surer then."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, images)
    given = truth.copy()
    wrong = rng.permutation(images)[: round(flipped * images)]
    given[wrong] = (truth[wrong] + rng.integers(1, classes, len(wrong))) % classes
    answers = np.where(rng.random(images) < 0.9, truth, rng.integers(0, classes, images))
    logits = rng.normal(0, 0.5, (images, classes))
    sure = np.where(answers == truth, rng.uniform(1.5, 4.5, images), rng.uniform(0.5, 2.0, images))
    logits[np.arange(images), answers] += sure
    scores = np.exp(logits)
    return truth, given, scores / scores.sum(axis=1, keepdims=True)


def test_wrong_labels_are_found_and_their_share_is_estimated() -> None:
    truth, given, scores = _made(3000, 5, 0.08, seed=1)
    found = doubts(given, scores)
    wrong = np.flatnonzero(truth != given)
    caught = np.intersect1d(found.places, wrong)
    assert len(caught) >= 0.7 * len(wrong)
    surest = found.places[: len(wrong) // 2]
    assert np.isin(surest, wrong).mean() > 0.9
    assert (found.suspected[: len(surest)] == truth[surest]).mean() > 0.9
    assert 0.06 < found.share < 0.2  # a model that errs finds more than there is


def test_a_class_s_threshold_is_its_own() -> None:
    """By hand: class 1 is answered with 0.6 at best, which is as sure as it gets."""
    labels = np.array([0, 0, 0, 1, 1])
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.45, 0.55], [0.4, 0.6]])
    found = doubts(labels, scores)
    assert found.places.tolist() == [2]
    assert found.suspected.tolist() == [1]
    assert found.share == pytest.approx((1 / 3 * 3 + 0 * 2) / 5)


def test_right_labels_of_a_sure_model_leave_no_doubt() -> None:
    labels = np.arange(30) % 3
    found = doubts(labels, np.eye(3)[labels])
    assert (len(found.places), found.share) == (0, 0.0)
    nothing = doubts(np.zeros(0, np.int64), np.zeros((0, 3)))
    assert (len(nothing.places), nothing.share) == (0, 0.0)


def test_a_class_without_images_is_no_suspect() -> None:
    found = doubts(np.array([0, 0, 1, 1]), np.array([[0.1, 0.1, 0.8]] * 2 + [[0.1, 0.8, 0.1]] * 2))
    assert 2 not in found.suspected


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        ([0, 1], [[0.5, 0.5]], r"labels \(2,\) and probabilities \(1, 2\): expected \(N,\) and \(N, C\)"),
        ([0, 2], [[0.5, 0.5]] * 2, r"labels: values 0\.\.2 came, expected 0\.\.1"),
        ([0, 1], [[3.0, -1.0]] * 2, r"probabilities: expected values in 0\.\.1"),
        ([0, 1], [[np.nan, 0.5]] * 2, r"probabilities: expected values in 0\.\.1"),
    ],
)
def test_what_is_no_probability_is_refused(labels: list, scores: list, said: str) -> None:
    with pytest.raises(TensorError, match=said):
        doubts(np.array(labels), np.array(scores))
