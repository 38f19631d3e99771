from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.errors import ModelError
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.export.parity import check, compare
from edgetl.tasks.all import task_of
from edgetl.tasks.base import LOGITS, Classification
from tests.export.networks import LABELS, SIZE, SPEC, tiny

TASK = task_of(Classification(labels=LABELS))


def test_the_difference_is_relative_to_the_largest_logit() -> None:
    task = task_of(Classification(labels=("a", "b")))
    reference = np.array([[4.0, 1.0], [0.0, -8.0]], np.float32)
    logits = np.array([[4.0, 5.0], [0.0, -8.0]], np.float32)
    parity = compare(task, {LOGITS: reference}, {LOGITS: logits})
    assert (parity.images, parity.max_difference, parity.same) == (2, 0.5, 0.5)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ModelError, match="NaN or infinite"):
        compare(TASK, {LOGITS: np.array([[np.nan, 1.0]], np.float32)}, {LOGITS: np.zeros((1, 2), np.float32)})


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ModelError, match=r"\(1, 2\) and \(1, 3\) cannot be compared"):
        compare(TASK, {LOGITS: np.zeros((1, 2), np.float32)}, {LOGITS: np.zeros((1, 3), np.float32)})


def _batches() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=(n, 3, SIZE, SIZE)).astype(np.float32) for n in (1, 4)]


def test_an_export_agrees_with_its_network() -> None:
    content = to_bytes(to_onnx(tiny(), task=Classification(labels=LABELS), spec=SPEC, opset=18))
    parity = check(tiny(), content, _batches(), task=TASK, max_difference=1e-4)
    assert (parity.images, parity.same) == (5, 1.0)


def test_another_network_does_not_and_the_figures_are_told() -> None:
    content = to_bytes(to_onnx(tiny(seed=1), task=Classification(labels=LABELS), spec=SPEC, opset=18))
    with pytest.raises(
        ModelError, match=r"of an output's largest value on 5 images, allowed 0\.01 .*agrees on \d"
    ):
        check(tiny(), content, _batches(), task=TASK, max_difference=0.01)


def test_no_images_is_an_error() -> None:
    content = to_bytes(to_onnx(tiny(), task=Classification(labels=LABELS), spec=SPEC, opset=18))
    with pytest.raises(ModelError, match="no images to compare"):
        check(tiny(), content, [], task=TASK, max_difference=0.01)


class _BatchSeen(nn.Module):
    """Bakes the batch that it was traced with into the graph."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) * float(len(images))


def test_a_baked_batch_is_found() -> None:
    content = to_bytes(to_onnx(_BatchSeen(), task=Classification(labels=LABELS), spec=SPEC, opset=18))
    with pytest.raises(ModelError, match="differs from the network"):
        check(_BatchSeen(), content, _batches(), task=TASK, max_difference=0.01)


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ModelError, match="cannot load the exported graph"):
        check(tiny(), b"not a model", _batches(), task=TASK, max_difference=0.01)
