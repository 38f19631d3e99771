"""Exact areas, against scikit-learn, and intervals that hold as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.runtime.unknown.separation import auroc, components, taken_as_known


def test_an_area_by_hand() -> None:
    known, unknown = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0])
    above, below = components(known, unknown)
    assert above.tolist() == [1.0, 0.75, 0.5]
    assert below.tolist() == [0.5, 1.0]
    assert auroc(known, unknown)[0] == above.mean() == below.mean() == 0.75


def test_areas_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    for shift in (0.0, 1.0, 3.0):
        known, unknown = generator.normal(size=200).round(1), generator.normal(shift, 1, 50).round(1)
        truths = np.repeat([0, 1], [200, 50])
        found = metrics.roc_auc_score(truths, np.concatenate([known, unknown]))
        assert auroc(known, unknown)[0] == pytest.approx(found, abs=1e-12)


def test_the_interval_holds_the_area_as_often_as_it_says() -> None:
    generator, true, held = np.random.default_rng(1), 0.7602, 0
    for _ in range(400):
        _, low, high = auroc(generator.normal(size=60), generator.normal(1.0, 1.0, 40))
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_perfect_score_is_not_certain() -> None:
    value, low, high = auroc(np.zeros(30), np.ones(20))
    assert (value, high) == (1.0, 1.0)
    assert 0.8 < low < 0.9
    assert auroc(np.array([0.0]), np.array([0.0]))[0] == 0.5


def test_how_many_pass_where_most_known_images_do() -> None:
    known = np.arange(100.0)
    assert taken_as_known(known, np.array([94.0, 94.5, 200.0])) == (1, 94.0)
    assert taken_as_known(known, known, share=1.0) == (100, 99.0)
    assert taken_as_known(known[:1], known)[0] == 1
