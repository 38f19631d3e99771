from __future__ import annotations

import numpy as np
import pytest

from edgetl.tasks.detection.boxes import areas, overlaps, suppress


def some(count: int, seed: int) -> np.ndarray:
    low = np.random.default_rng(seed).uniform(0, 60, (count, 2))
    return np.concatenate([low, low + np.random.default_rng(seed + 1).uniform(1, 40, (count, 2))], axis=1)


def test_overlaps_of_a_case_worked_by_hand() -> None:
    first = np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 20.0, 30.0]])
    second = np.array([[5.0, 0.0, 15.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
    assert overlaps(first, second) == pytest.approx(np.array([[1 / 3, 1.0], [0.0, 0.0]]))
    assert overlaps(first[:1], second[:1], np.array([True])) == pytest.approx(np.array([[0.5]]))
    assert areas(first).tolist() == [100.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_that_of_torchvision(seed: int) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.ops import batched_nms

    boxes = some(80, seed).astype(np.float32)
    generator = np.random.default_rng(seed)
    scores, labels = generator.random(80).astype(np.float32), generator.integers(0, 3, 80)
    expected = batched_nms(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), 0.5)
    assert suppress(boxes, scores, labels, overlap=0.5, most=300).tolist() == expected.tolist()
    assert suppress(boxes, scores, labels, overlap=0.5, most=7).tolist() == expected[:7].tolist()


def test_no_box_and_one_box() -> None:
    for count in (0, 1):
        remains = suppress(some(count, 0), np.ones(count), np.zeros(count, int), overlap=0.5, most=5)
        assert remains.tolist() == list(range(count))
