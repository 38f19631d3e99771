from __future__ import annotations

import numpy as np
import pytest

from edgetl.errors import TensorError
from edgetl.records.gate import Verdict
from edgetl.tasks.detection.judge import judge, settled_margin
from edgetl.tasks.detection.scores import Found, Truth

LABELS = ("red", "white")


def objects(images: int, seed: int) -> list[Truth]:
    generator = np.random.default_rng(seed)
    truths = []
    for _ in range(images):
        low = generator.uniform(0, 300, (6, 2))
        truths.append(
            Truth(boxes=np.concatenate([low, low + 40], axis=1), labels=generator.integers(0, 2, 6))
        )
    return truths


def detector(truths: list[Truth], seed: int, *, found: float = 0.9, lost: int | None = None) -> list[Found]:
    """Finds a share of the objects, none of the class `lost`, and some background."""
    generator = np.random.default_rng(seed)
    answers = []
    for truth in truths:
        seen = (generator.random(6) < found) & (truth.labels != lost)
        low = generator.uniform(0, 300, (2, 2))
        boxes = np.concatenate([truth.boxes[seen], np.concatenate([low, low + 40], axis=1)])
        boxes += generator.normal(0, 2, boxes.shape)
        labels = np.concatenate([truth.labels[seen], generator.integers(0, 2, 2)])
        scores = np.concatenate([generator.uniform(0.3, 1, int(seen.sum())), generator.uniform(0, 0.5, 2)])
        answers.append(Found(boxes=boxes, labels=labels, scores=scores))
    return answers


def verdicts(*checks) -> list[Verdict]:
    return [check.verdict for check in checks]


def test_a_detector_is_as_good_as_itself() -> None:
    truths = objects(30, 0)
    same = detector(truths, 1)
    mean, classes = judge(truths, same, same, LABELS)
    assert (mean.change, mean.interval) == (0.0, (0.0, 0.0))
    assert verdicts(mean, classes) == [Verdict.PASS, Verdict.PASS]


def test_a_detector_that_finds_a_third_less_fails() -> None:
    truths = objects(60, 0)
    mean, _ = judge(truths, detector(truths, 1), detector(truths, 2, found=0.6), LABELS)
    assert mean.verdict is Verdict.FAIL
    assert "FAILS" in mean.sentence


def test_a_class_that_collapses_is_named() -> None:
    truths = objects(60, 0)
    _, classes = judge(truths, detector(truths, 1), detector(truths, 1, lost=1), LABELS)
    assert classes.verdict is Verdict.FAIL
    assert "white from" in classes.sentence


def test_few_images_that_differ_by_chance_do_not_fail() -> None:
    failed = 0
    for seed in range(4):
        truths = objects(25, seed)
        checks = judge(truths, detector(truths, 1000 + seed), detector(truths, 2000 + seed), LABELS)
        failed += Verdict.FAIL in verdicts(*checks)
    # The level is one in twenty; more than one of four have a chance of one in 71.
    assert failed <= 1


def test_the_margin_falls_with_the_number_of_images() -> None:
    assert [settled_margin(n) for n in (25, 72, 400, 5000)] == [0.05, 0.03, 0.015, 0.01]


def test_no_images_and_other_images_are_refused() -> None:
    truths = objects(3, 0)
    found = detector(truths, 1)
    with pytest.raises(TensorError, match="expected as many, at least one"):
        judge(truths, found, found[:2], LABELS)
    with pytest.raises(TensorError, match="at least one"):
        judge([], [], [], LABELS)


def test_where_no_object_is_marked_there_is_no_class_to_lose() -> None:
    truths = [Truth(boxes=np.zeros((0, 4)), labels=np.zeros(0, np.int64)) for _ in range(4)]
    found = detector(objects(4, 0), 1)
    mean, classes = judge(truths, found, found, LABELS)
    assert verdicts(mean, classes) == [Verdict.PASS, Verdict.PASS]
    assert "no object to judge" in classes.sentence
