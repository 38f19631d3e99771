"""Every loss against plain numpy."""

from __future__ import annotations

from typing import assert_never

import numpy as np
import pytest
import torch

from edgetl.config import LOSSES_OF_BOXES, DistillLoss
from edgetl.errors import ConfigError, TensorError
from edgetl.train.tasks import soft

N, C = 6, 5
LOSSES_OF_LABELS = [loss for loss in DistillLoss if loss not in LOSSES_OF_BOXES]


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(0)
    student, teacher = (torch.tensor(random.normal(0, 3, (N, C)), dtype=torch.float32) for _ in range(2))
    return student, teacher, torch.tensor(random.integers(0, C, N))


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    return float((teacher * (np.log(teacher) - np.log(student))).sum(1).mean())


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))


def reference(
    loss: DistillLoss, student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, temperature: float
) -> float:
    own, other = softmax(student / temperature), softmax(teacher / temperature)
    match loss:
        case DistillLoss.HINTON:
            value = divergence(other, own)
        case DistillLoss.DKD:
            rows = np.arange(len(labels))
            target = divergence(
                np.stack([other[rows, labels], 1 - other[rows, labels]], 1),
                np.stack([own[rows, labels], 1 - own[rows, labels]], 1),
            )
            without = [np.delete(v[i], labels[i]) for v in (teacher, student) for i in rows]
            rest_teacher, rest_student = np.split(softmax(np.stack(without) / temperature), 2)
            value = target + 2.0 * divergence(rest_teacher, rest_student)
        case DistillLoss.DIST:
            value = (1 - correlation(own, other)) + (1 - correlation(own.T, other.T))
        case DistillLoss.BCKD | DistillLoss.CROSSKD | DistillLoss.LD:
            raise AssertionError(loss)
        case _:
            assert_never(loss)
    return value * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("loss", LOSSES_OF_LABELS)
def test_losses_agree_with_numpy(
    loss: DistillLoss, temperature: float, logits: tuple[torch.Tensor, ...]
) -> None:
    student, teacher, labels = logits
    expected = reference(
        loss, student.double().numpy(), teacher.double().numpy(), labels.numpy(), temperature
    )
    measured = soft.soft_loss(loss, student, teacher, labels, temperature)
    assert measured.shape == ()
    assert measured.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES_OF_LABELS)
def test_losses_are_zero_and_flat_where_student_and_teacher_agree(
    loss: DistillLoss, logits: tuple[torch.Tensor, ...]
) -> None:
    _, teacher, labels = logits
    student = teacher.clone().requires_grad_()
    value = soft.soft_loss(loss, student, teacher, labels, 2.0)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-5)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-4


@pytest.mark.parametrize("loss", LOSSES_OF_LABELS)
def test_losses_stay_finite_where_the_teacher_is_certain(loss: DistillLoss) -> None:
    teacher = torch.tensor([[200.0, 0.0, -200.0], [0.0, 300.0, 0.0]])
    student = torch.tensor([[-200.0, 0.0, 200.0], [50.0, 0.0, 0.0]], requires_grad=True)
    value = soft.soft_loss(loss, student, teacher, torch.tensor([0, 1]), 1.0)
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("loss", sorted(LOSSES_OF_BOXES))
def test_losses_of_boxes_are_refused(loss: DistillLoss, logits: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(ConfigError, match=f"distill.loss = {loss} is of boxes; take hinton"):
        soft.soft_loss(loss, *logits, 1.0)


def test_dkd_of_two_classes_is_plain_distillation(logits: tuple[torch.Tensor, ...]) -> None:
    student, teacher, labels = logits
    student, teacher, labels = student[:, :2], teacher[:, :2], labels % 2
    decoupled = soft.dkd(student, teacher, labels, 2.0)
    torch.testing.assert_close(decoupled, soft.hinton(student, teacher, 2.0))


def test_half_precision_logits_are_computed_in_float32(logits: tuple[torch.Tensor, ...]) -> None:
    student, teacher, _ = logits
    assert soft.hinton(student.bfloat16(), teacher.bfloat16(), 2.0).dtype == torch.float32


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(TensorError, match=r"Student logits \(4, 3\) and teacher logits \(4, 5\)"):
        soft.hinton(torch.zeros(4, 3), torch.zeros(4, 5), 1.0)
    with pytest.raises(TensorError, match=r"labels is \(3,\), expected \(4,\)"):
        soft.dkd(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(3, dtype=torch.int64), 1.0)
