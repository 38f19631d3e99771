"""What teaches a student, and the sizes at which it and its teacher see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.config import DistillLoss
from edgetl.distill.objective import Distillation
from edgetl.distill.views import AtSize, at_size
from edgetl.train.objective import Batch, Need
from edgetl.train.tasks import soft
from edgetl.train.tasks.classification import cross_entropy
from tests.train.test_soft import reference, softmax
from tests.train.tiny import TASK


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
    compute = Distillation(
        teacher=teacher,
        task=TASK,
        temperature=2.0,
        soft_weight=0.75,
        student_size=4,
        hard_loss=cross_entropy(0.1),
    )
    value = compute.loss(student, Batch(images=images, targets=labels))
    value.backward()
    assert not teacher.training
    assert teacher.seen[0] is student.seen[0] is images
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert student.layer.weight.grad is not None
    divergence = soft.hinton(student(images), teacher(images), 2.0)
    hard = nn.functional.cross_entropy(student(images), labels, label_smoothing=0.1)
    torch.testing.assert_close(value, 0.75 * divergence + 0.25 * hard)


@pytest.mark.parametrize("loss", [DistillLoss.HINTON, DistillLoss.DIST])
def test_unlabelled_images_count_in_the_soft_loss_alone(loss: DistillLoss) -> None:
    torch.manual_seed(0)
    student, teacher = Flat().eval(), Flat()
    images, labels = torch.randn(5, 3, 4, 4), torch.tensor([2, 1, 0, 1, 1])
    labelled = torch.tensor([True, False, True, False, False])
    compute = Distillation(
        teacher=teacher,
        task=TASK,
        temperature=2.0,
        soft_weight=0.75,
        student_size=4,
        soft=loss,
        hard_loss=cross_entropy(0.1),
    )
    value = compute.loss(student, Batch(images=images, targets=labels, labelled=labelled))
    own, other = (m(images).detach().double().numpy() for m in (student, teacher.eval()))
    shares = np.log(softmax(own))[[0, 2]]
    smoothed = np.full((2, 3), 0.1 / 3)
    smoothed[[0, 1], [2, 0]] += 0.9
    hard = -(smoothed * shares).sum(1).mean()
    expected = reference(loss, own, other, labels.numpy(), 2.0)
    assert value.item() == pytest.approx(0.75 * expected + 0.25 * hard, rel=1e-4)
    value.backward()
    assert student.layer.weight.grad is not None


@pytest.mark.parametrize("soft_weight", [0.0, 0.75])
def test_the_tasks_penalty_is_added(soft_weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = Flat().eval(), Flat()
    batch = Batch(images=torch.randn(4, 3, 4, 4), targets=torch.tensor([0, 1, 2, 0]))
    compute = Distillation(
        teacher=teacher, task=TASK, temperature=2.0, soft_weight=soft_weight, student_size=4
    )
    plain = compute.loss(student, batch)
    monkeypatch.setattr(type(TASK), "penalty", lambda task, model: torch.tensor(7.0))
    torch.testing.assert_close(compute.loss(student, batch), plain + 7.0)


def test_without_soft_weight_the_teacher_is_not_run() -> None:
    student, teacher = Flat().eval(), Flat()
    compute = Distillation(teacher=teacher, task=TASK, temperature=2.0, soft_weight=0.0, student_size=4)
    compute.loss(student, Batch(images=torch.randn(2, 3, 4, 4), targets=torch.tensor([0, 1])))
    assert teacher.seen == []


@pytest.mark.parametrize(("view", "student_side", "teacher_side"), [(8, 4, 8), (8, 8, 4)])
def test_each_network_sees_the_view_at_its_own_size(view: int, student_side: int, teacher_side: int) -> None:
    student, teacher = (
        nn.Sequential(nn.Flatten(), nn.Linear(3 * s * s, 3)) for s in (student_side, teacher_side)
    )
    images, labels = torch.randn(4, 3, view, view), torch.tensor([0, 1, 2, 0])
    compute = Distillation(
        teacher=AtSize(teacher, teacher_side),
        task=TASK,
        temperature=2.0,
        soft_weight=1.0,
        student_size=student_side,
    )
    small = {s: at_size(images, s) for s in (student_side, teacher_side)}
    expected = soft.hinton(student(small[student_side]), teacher(small[teacher_side]), 2.0)
    torch.testing.assert_close(compute.loss(student, Batch(images=images, targets=labels)), expected)


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


@pytest.mark.parametrize("loss", list(DistillLoss))
def test_the_loss_with_one_label_an_image_says_that_it_needs_them(loss: DistillLoss) -> None:
    objective = Distillation(
        teacher=Flat(), task=TASK, temperature=2.0, soft_weight=0.5, student_size=4, soft=loss
    )
    assert Need.IMAGES in objective.needs
    assert (Need.LABELS in objective.needs) is (loss is DistillLoss.DKD)
