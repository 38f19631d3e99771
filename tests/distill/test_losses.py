"""Every loss against plain numpy, and the loss function that teaches a student."""

from __future__ import annotations

from typing import assert_never

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.config import DistillLoss
from edgetl.distill import losses
from edgetl.distill.views import AtSize, at_size
from edgetl.errors import TensorError

N, C = 6, 5


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
        case _:
            assert_never(loss)
    return value * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("loss", DistillLoss)
def test_losses_agree_with_numpy(
    loss: DistillLoss, temperature: float, logits: tuple[torch.Tensor, ...]
) -> None:
    student, teacher, labels = logits
    expected = reference(
        loss, student.double().numpy(), teacher.double().numpy(), labels.numpy(), temperature
    )
    measured = losses.soft_loss(loss, student, teacher, labels, temperature)
    assert measured.shape == ()
    assert measured.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", DistillLoss)
def test_losses_are_zero_and_flat_where_student_and_teacher_agree(
    loss: DistillLoss, logits: tuple[torch.Tensor, ...]
) -> None:
    _, teacher, labels = logits
    student = teacher.clone().requires_grad_()
    value = losses.soft_loss(loss, student, teacher, labels, 2.0)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-5)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-4


@pytest.mark.parametrize("loss", DistillLoss)
def test_losses_stay_finite_where_the_teacher_is_certain(loss: DistillLoss) -> None:
    teacher = torch.tensor([[200.0, 0.0, -200.0], [0.0, 300.0, 0.0]])
    student = torch.tensor([[-200.0, 0.0, 200.0], [50.0, 0.0, 0.0]], requires_grad=True)
    value = losses.soft_loss(loss, student, teacher, torch.tensor([0, 1]), 1.0)
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_dkd_of_two_classes_is_plain_distillation(logits: tuple[torch.Tensor, ...]) -> None:
    student, teacher, labels = logits
    student, teacher, labels = student[:, :2], teacher[:, :2], labels % 2
    decoupled = losses.dkd(student, teacher, labels, 2.0)
    torch.testing.assert_close(decoupled, losses.hinton(student, teacher, 2.0))


def test_soft_cross_entropy_differs_from_the_divergence_by_the_teachers_entropy(
    logits: tuple[torch.Tensor, ...],
) -> None:
    student, teacher, _ = logits
    probabilities = torch.softmax(teacher / 3.0, 1)
    entropy = -(probabilities * probabilities.log()).sum(1).mean() * 9.0
    torch.testing.assert_close(
        losses.soft_cross_entropy(student, teacher, 3.0), losses.hinton(student, teacher, 3.0) + entropy
    )


def test_half_precision_logits_are_computed_in_float32(logits: tuple[torch.Tensor, ...]) -> None:
    student, teacher, _ = logits
    assert losses.hinton(student.bfloat16(), teacher.bfloat16(), 2.0).dtype == torch.float32


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(TensorError, match=r"Student logits \(4, 3\) and teacher logits \(4, 5\)"):
        losses.hinton(torch.zeros(4, 3), torch.zeros(4, 5), 1.0)
    with pytest.raises(TensorError, match=r"labels is \(3,\), expected \(4,\)"):
        losses.dkd(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(3, dtype=torch.int64), 1.0)


class Flat(nn.Module):
    """A linear classifier with dropout on tiny images; it counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 4 * 4, 3)
        self.dropout = nn.Dropout(0.5)
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return self.layer(self.dropout(images.flatten(1)))


def test_soft_targets_mixes_soft_and_hard_on_the_same_images() -> None:
    torch.manual_seed(0)
    student, teacher = Flat().eval(), Flat().train()
    images, labels = torch.randn(4, 3, 4, 4), torch.tensor([0, 1, 2, 0])
    compute = losses.soft_targets(teacher, 2.0, 0.75, 0.1, student_size=4)
    value = compute(student, images, labels)
    value.backward()
    assert not teacher.training
    assert teacher.seen[0] is student.seen[0] is images
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert student.layer.weight.grad is not None
    soft = losses.hinton(student(images), teacher(images), 2.0)
    hard = nn.functional.cross_entropy(student(images), labels, label_smoothing=0.1)
    torch.testing.assert_close(value, 0.75 * soft + 0.25 * hard)


@pytest.mark.parametrize("loss", [DistillLoss.HINTON, DistillLoss.DIST])
def test_unlabelled_images_count_in_the_soft_loss_alone(loss: DistillLoss) -> None:
    torch.manual_seed(0)
    student, teacher = Flat().eval(), Flat()
    images, labels = torch.randn(5, 3, 4, 4), torch.tensor([2, -1, 0, -1, -1])
    compute = losses.soft_targets(teacher, 2.0, 0.75, 0.1, student_size=4, loss=loss)
    value = compute(student, images, labels)
    own, other = (m(images).detach().double().numpy() for m in (student, teacher.eval()))
    shares = np.log(softmax(own))[[0, 2]]
    smoothed = np.full((2, 3), 0.1 / 3)
    smoothed[[0, 1], [2, 0]] += 0.9
    hard = -(smoothed * shares).sum(1).mean()
    soft = reference(loss, own, other, labels.numpy(), 2.0)
    assert value.item() == pytest.approx(0.75 * soft + 0.25 * hard, rel=1e-4)
    value.backward()
    assert student.layer.weight.grad is not None


def test_without_soft_weight_the_teacher_is_not_run() -> None:
    student, teacher = Flat().eval(), Flat()
    compute = losses.soft_targets(teacher, 2.0, 0.0, student_size=4)
    compute(student, torch.randn(2, 3, 4, 4), torch.tensor([0, 1]))
    assert teacher.seen == []


@pytest.mark.parametrize(("view", "student_side", "teacher_side"), [(8, 4, 8), (8, 8, 4)])
def test_each_network_sees_the_view_at_its_own_size(view: int, student_side: int, teacher_side: int) -> None:
    student, teacher = (
        nn.Sequential(nn.Flatten(), nn.Linear(3 * s * s, 3)) for s in (student_side, teacher_side)
    )
    images, labels = torch.randn(4, 3, view, view), torch.tensor([0, 1, 2, 0])
    compute = losses.soft_targets(AtSize(teacher, teacher_side), 2.0, 1.0, student_size=student_side)
    small = {s: at_size(images, s) for s in (student_side, teacher_side)}
    expected = losses.hinton(student(small[student_side]), teacher(small[teacher_side]), 2.0)
    torch.testing.assert_close(compute(student, images, labels), expected)


def test_at_size_keeps_a_plain_picture_and_leaves_the_right_size_alone() -> None:
    images = torch.full((2, 3, 32, 32), 0.7)
    assert at_size(images, 32) is images
    small = at_size(images, 24)
    assert small.shape == (2, 3, 24, 24)
    assert small.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(small, torch.full((2, 3, 24, 24), 0.7))
    # fine stripes average out instead of turning into coarse ones
    stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 3, 32, 32).contiguous()
    assert (at_size(stripes, 8)[..., 1:-1] - 0.5).abs().max() < 0.1
