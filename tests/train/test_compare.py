"""Comparing two sets of answers for the same images."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.tasks.base import MultiLabel
from edgetl.train.compare import compare
from edgetl.train.tasks.all import training_task

from .tiny import TASK

TARGETS = np.arange(60) % 3
RIGHT = np.eye(3, dtype=np.float32)[TARGETS]


def wrong_at(rows: slice) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    outputs = RIGHT.copy()
    outputs[rows] = np.roll(outputs[rows], 1, axis=1)
    return outputs


def test_top1_is_compared_by_the_images_that_only_one_names() -> None:
    # 5 lost and 15 won: P(at least 15 of 20 by a fair coin) = 0.0207
    found = compare(TASK, "top1", TARGETS, wrong_at(slice(5, 20)), wrong_at(slice(0, 5)), seed=0)
    assert (found.images, found.before, found.after) == (60, 0.75, pytest.approx(55 / 60))
    assert found.p_value == pytest.approx(0.020695, abs=1e-6)
    assert found.interval[0] > 0
    assert found.helped
    # 3 more by 10 against 7: by chance
    found = compare(TASK, "top1", TARGETS, wrong_at(slice(7, 17)), wrong_at(slice(0, 7)), seed=0)
    assert found.after > found.before
    assert not found.helped
    assert found.interval[0] < 0 < found.interval[1]


def test_other_scores_are_compared_by_resamples_that_follow_their_seed() -> None:
    task = training_task(MultiLabel(labels=("a", "b", "c"), thresholds=(0.5, 0.5, 0.5)))
    rng = np.random.default_rng(0)
    targets = (rng.random((80, 3)) < 0.5).astype(np.float32)
    noise, good = rng.normal(0, 1, (80, 3)).astype(np.float32), (4 * targets - 2).astype(np.float32)
    name = task.selection(targets)
    found = compare(task, name, targets, noise, good, seed=1)
    assert found == compare(task, name, targets, noise, good, seed=1)
    assert found.helped
    assert not compare(task, name, targets, good, noise, seed=1).helped
