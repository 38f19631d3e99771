"""Herding, against the definition."""

from __future__ import annotations

import numpy as np

from edgetl.train.extend.exemplars import herd


def test_each_next_image_brings_the_mean_nearest() -> None:
    features = np.random.default_rng(4).normal(size=(12, 3)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected: list[int] = []
    for _ in range(5):
        left = [at for at in range(12) if at not in expected]
        expected.append(
            min(left, key=lambda at: float(np.linalg.norm(unit.mean(0) - unit[[*expected, at]].mean(0))))
        )
    assert herd(features, 5).tolist() == expected
    assert herd(features, 3).tolist() == expected[:3]


def test_a_small_class_gives_all_and_no_feature_does_no_harm() -> None:
    assert sorted(herd(np.zeros((3, 2), np.float32), 7).tolist()) == [0, 1, 2]
    assert len(herd(np.ones((4, 2, 1, 1), np.float32), 2)) == 2
