"""Distillation losses for one class per image: pure functions of logits.

Shapes: `student`, `teacher` (N, C) logits of any float dtype, computed in float32; `labels` (N,) int64 in
0..C-1. Every function returns a scalar float32 tensor, the mean over the N images.
"""

from __future__ import annotations

from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from edgetl.config import DistillLoss
from edgetl.errors import ConfigError, TensorError


def hinton(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened class probabilities, times temperature squared.

    T^2 * KL(softmax(teacher / T) || softmax(student / T)); the factor keeps the gradient's size when T
    changes. Zero where both agree.
    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2.

    Raises:
        TensorError: the shapes differ or are not (N, C).
    """
    _check(student, teacher)
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def dkd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    *,
    alpha: float = 1.0,
    beta: float = 2.0,
) -> Tensor:
    """Decoupled knowledge distillation: the label's class against the rest, and the rest among themselves.

    T^2 * (alpha * TCKD + beta * NCKD). TCKD is the KL divergence of the two-way probabilities (label, not
    label); NCKD that of the softmax over the C - 1 other classes, which `hinton` weighs by the teacher's doubt
    and this does not.
    Zhao et al., "Decoupled Knowledge Distillation" (CVPR 2022), section 3.

    Raises:
        TensorError: the shapes differ, are not (N, C), or labels is not (N,).
    """
    _check(student, teacher, labels)
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    rest = torch.ones_like(log_student, dtype=torch.bool).scatter_(1, labels[:, None], value=False)
    n, classes = student.shape
    rest_student = log_student[rest].view(n, classes - 1)
    rest_teacher = log_teacher[rest].view(n, classes - 1)
    # log(1 - p) as the log-sum of the other classes: exact where p rounds to 1
    two_student = torch.stack(
        [log_student.gather(1, labels[:, None])[:, 0], rest_student.logsumexp(1)], dim=1
    )
    two_teacher = torch.stack(
        [log_teacher.gather(1, labels[:, None])[:, 0], rest_teacher.logsumexp(1)], dim=1
    )
    target = F.kl_div(two_student, two_teacher, reduction="batchmean", log_target=True)
    others = F.kl_div(
        F.log_softmax(rest_student, dim=1),
        F.log_softmax(rest_teacher, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (alpha * target + beta * others) * temperature**2


def dist(
    student: Tensor, teacher: Tensor, temperature: float, *, inter: float = 1.0, intra: float = 1.0
) -> Tensor:
    """Relations instead of exact match: one minus Pearson's correlation of the softened probabilities.

    T^2 * (inter * mean over images of (1 - corr over classes) + intra * mean over classes of (1 - corr over
    the batch's images)). Zero where the student's probabilities are a positive linear map of the teacher's; the
    intra term needs two images or more.
    Huang et al., "Knowledge Distillation from A Stronger Teacher" (NeurIPS 2022), section 4.

    Raises:
        TensorError: the shapes differ or are not (N, C).
    """
    _check(student, teacher)
    own = F.softmax(student.float() / temperature, dim=1)
    other = F.softmax(teacher.float() / temperature, dim=1)
    between = (1 - _pearson(own, other)).mean()
    within = (1 - _pearson(own.T, other.T)).mean()
    return (inter * between + intra * within) * temperature**2


def soft_loss(
    loss: DistillLoss, student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """The soft loss that `loss` names, with its default weights. Shapes as in this module's head."""
    match loss:
        case DistillLoss.HINTON:
            return hinton(student, teacher, temperature)
        case DistillLoss.DKD:
            return dkd(student, teacher, labels, temperature)
        case DistillLoss.DIST:
            return dist(student, teacher, temperature)
        case DistillLoss.BCKD | DistillLoss.CROSSKD | DistillLoss.LD:
            raise ConfigError(f"distill.loss = {loss} is of boxes; take hinton, dkd or dist.")
        case _:
            assert_never(loss)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of each row of `a` (R, K) with the same row of `b`: (R,); 0 where a row is constant."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return F.cosine_similarity(a, b, dim=1, eps=1e-8)


def _check(student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> None:
    if student.dim() != 2 or student.shape != teacher.shape:
        raise TensorError(
            f"Student logits {tuple(student.shape)} and teacher logits {tuple(teacher.shape)} must both be "
            "(images, classes) and equal. Were both made for the same labels?"
        )
    if labels is not None and labels.shape != student.shape[:1]:
        raise TensorError(f"labels is {tuple(labels.shape)}, expected ({student.shape[0]},).")
