from __future__ import annotations

import copy

import torch

from edgetl.config import DistillLoss
from edgetl.distill.cross import CrossHeads
from edgetl.distill.objective import Distillation
from edgetl.models.detector import create_detector
from edgetl.tasks.base import Detection
from edgetl.train.objective import Batch
from edgetl.train.tasks.detection import DetectionTraining
from edgetl.train.watching import watching

TASK = DetectionTraining(spec=Detection(labels=("a", "b")))
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_a_teachers_heads_end_its_own_features_as_they_did() -> None:
    teacher = create_detector("test_efficientnet", 2, seed=1).eval()
    cross = CrossHeads(copy.deepcopy(teacher), teacher, seed=0)
    with torch.no_grad():
        for projector in cross.projectors:
            projector.weight.copy_(torch.eye(96)[..., None, None])  # type: ignore[operator, union-attr]
            projector.bias.zero_()  # type: ignore[operator, union-attr]
        with watching(teacher, cross.student_names) as own:
            expected = teacher(IMAGES)
        assert torch.allclose(cross(own), expected, atol=1e-5)
    assert set(cross.state_dict()) == {
        f"projectors.{at}.{key}" for at in range(6) for key in ("weight", "bias")
    }


def test_the_soft_loss_reaches_the_student_through_the_teachers_heads() -> None:
    teacher = create_detector("test_efficientnet", 2, seed=1)
    student = create_detector("test_efficientnet", 2, seed=2)
    cross = CrossHeads(student, teacher, seed=0)
    objective = Distillation(
        teacher=teacher,
        task=TASK,
        temperature=1.0,
        soft_weight=1.0,
        student_size=64,
        soft=DistillLoss.CROSSKD,
        cross=cross,
    )
    targets = torch.full((2, 2, 8), -1.0)
    objective.loss(student, Batch(images=IMAGES, targets=targets)).backward()  # type: ignore[no-untyped-call]
    assert objective.modules is cross
    assert all(projector.weight.grad is not None for projector in cross.projectors)
    grads = {name: parameter.grad for name, parameter in student.named_parameters()}
    begun = {name for name in grads if name.startswith(("backbone", "box_heads.0.0", "class_heads.0.0"))}
    assert all(grads[name] is not None for name in begun)
    # what is behind the first layer of the heads learns from labels alone
    ends = [grad for name, grad in grads.items() if name.startswith(("box_heads.0.1", "class_out"))]
    assert all(grad is None or not grad.any() for grad in ends)
    assert all(parameter.grad is None for parameter in teacher.parameters())
