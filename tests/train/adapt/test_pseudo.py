from __future__ import annotations

import numpy as np

from edgetl.train.adapt.pseudo import confident, pseudo_labels


def blobs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = np.array([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    classes = np.repeat([0, 1], 20)
    features = (centres[classes] + rng.normal(0, 0.5, (40, 3))).astype(np.float32)
    return features, classes


def test_neighbours_outvote_a_classifier_that_errs_on_some() -> None:
    features, classes = blobs()
    answers = np.full((40, 2), 0.2, np.float32)
    answers[np.arange(40), classes] = 0.8
    answers[[3, 5, 25]] = answers[[3, 5, 25], ::-1]
    rows, labels = pseudo_labels(features, answers, 1.0)
    assert rows.tolist() == list(range(40))
    assert labels.tolist() == classes.tolist()


def test_the_most_confident_of_each_class_come_first() -> None:
    features, classes = blobs()
    features[7] = [2.6, 2.4, 0.0]  # between the two
    answers = np.eye(2, dtype=np.float32)[classes]
    rows, labels = pseudo_labels(features, answers, 0.5)
    assert [int((labels == c).sum()) for c in (0, 1)] == [10, 10]
    assert 7 not in rows
    few, _ = pseudo_labels(features, answers, 1e-6)
    assert len(few) == 2
    assert set(few) <= set(rows)


def test_the_surest_answers_are_taken_whatever_their_class() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.55, 0.45]], np.float32)
    for share, wanted in ((0.01, [0]), (0.5, [0, 2]), (0.75, [0, 1, 2]), (1.0, [0, 1, 2, 3])):
        rows, labels = confident(probabilities, share)
        assert rows.tolist() == wanted
        assert labels.tolist() == probabilities[wanted].argmax(1).tolist()
