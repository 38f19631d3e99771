"""Losses between features against plain numpy, where the features come from, and the projectors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.config import DistillFeatures
from edgetl.distill import features as f
from edgetl.distill.objective import Distillation
from edgetl.distill.views import AtSize
from edgetl.errors import ModelError, TensorError
from edgetl.models import backbones
from edgetl.models.detector import create_detector
from edgetl.tasks.base import Detection
from edgetl.train.objective import Batch
from edgetl.train.tasks.detection import DetectionTraining
from tests.train.tiny import TASK


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(0, 1, shape) for shape in shapes]


def huber(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    gap = np.abs(a - b)
    return np.where(gap < 1, 0.5 * gap**2, gap - 0.5)


def test_fitnets_agrees_with_numpy() -> None:
    student, teacher = arrays((4, 3, 2, 2), (4, 3, 2, 2))
    value = f.fitnets(torch.from_numpy(student), torch.from_numpy(teacher))
    assert value.item() == pytest.approx(0.5 * ((student - teacher) ** 2).mean(), rel=1e-5)


def test_attention_agrees_with_numpy_and_ignores_channels_and_scale() -> None:
    student, teacher = arrays((4, 3, 2, 2), (4, 5, 2, 2))
    maps = [(v**2).sum(1).reshape(4, -1) for v in (student, teacher)]
    maps = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps]
    own, other = torch.from_numpy(student), torch.from_numpy(teacher)
    expected = ((maps[0] - maps[1]) ** 2).sum(1).mean()
    assert f.attention(own, other).item() == pytest.approx(expected, rel=1e-5)
    assert f.attention(3.0 * own, other).item() == pytest.approx(expected, rel=1e-5)
    assert f.attention(own, -2.0 * own).item() == pytest.approx(0.0, abs=1e-6)


def test_relational_agrees_with_numpy() -> None:
    n = 5
    student, teacher = arrays((n, 3), (n, 7))

    def distances(v: np.ndarray) -> np.ndarray:
        found = np.array([np.linalg.norm(v[i] - v[j]) for i, j in itertools.permutations(range(n), 2)])
        return found / found.mean()

    def angles(v: np.ndarray) -> np.ndarray:
        found = []
        for i, j, k in itertools.permutations(range(n), 3):
            a, b = v[i] - v[j], v[k] - v[j]
            found.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        return np.array(found)

    expected = huber(distances(student), distances(teacher)).mean()
    expected += 2 * huber(angles(student), angles(teacher)).mean()
    value = f.relational(torch.from_numpy(student), torch.from_numpy(teacher))
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_relational_is_zero_for_a_turned_and_scaled_copy_and_for_too_few_images() -> None:
    [teacher] = arrays((6, 3))
    turned = torch.from_numpy(2.0 * teacher @ np.linalg.qr(arrays((3, 3))[0])[0] + 1.0)
    assert f.relational(turned, torch.from_numpy(teacher)).item() == pytest.approx(0.0, abs=1e-8)
    assert f.relational(turned[:1], turned[:1]).item() == 0.0
    assert f.relational(turned[:2], 3.0 * turned[:2]).item() == pytest.approx(0.0, abs=1e-8)


def test_relational_has_a_gradient_where_two_images_are_the_same() -> None:
    student = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]], requires_grad=True)
    f.relational(student, torch.randn(3, 4)).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(
        TensorError, match=r"features \(1, 2, 3, 3\) and the teacher's \(1, 4, 3, 3\) must be equal"
    ):
        f.fitnets(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3))
    with pytest.raises(TensorError, match=r"must be of the same images and positions"):
        f.attention(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 2, 2))
    with pytest.raises(TensorError, match=r"must be \(images, width\) of the same images"):
        f.relational(torch.zeros(2, 2), torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenetv3_small_050", [8, 4, 2, 1]),
        ("torchvision/resnet18", [8, 4, 2, 1]),
    ],
)
def test_stage_ends_are_the_last_blocks_of_each_resolution(name: str, expected: list[int]) -> None:
    size = 32
    network = backbones.create(name, 3, "none").eval()
    ends = f.stage_ends(network, TASK, size, name)
    sides = [end.side for end in ends]
    assert sides == sorted(sides, reverse=True)
    assert set(expected) <= set(sides)
    if name == "torchvision/resnet18":
        assert [end.name for end in ends][-3:] == ["layer2.1", "layer3.1", "layer4.1"]
    with f.watching(network, [end.name for end in ends]) as outputs:
        network(torch.zeros(2, 3, size, size))
    assert [tuple(v.shape[1:3]) for v in outputs.values()] == [(e.channels, e.side) for e in ends]
    assert not any(m._forward_hooks for m in network.modules())


def test_a_network_without_feature_maps_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^The teacher gives no feature maps .*; relational needs none\.$"):
        f.stage_ends(backbones.create("test_vit", 3, "none"), TASK, 160, "The teacher")


@pytest.mark.parametrize("kind", [k for k in DistillFeatures if k is not DistillFeatures.NONE])
def test_gradients_reach_the_student_and_the_projectors_alone(kind: DistillFeatures) -> None:
    student = backbones.create("mobilenetv3_small_050", 3, "none", seed=1)
    teacher = backbones.create("torchvision/resnet18", 3, "none", seed=2)
    guide = AtSize(teacher, 48)
    beside = f.Features(
        kind,
        task=TASK,
        student=student,
        teacher=teacher,
        sizes=(32, 48),
        prefix="network.",
        weight=1.0,
        seed=3,
    )
    assert (len(beside.projectors) > 0) == (kind is DistillFeatures.FITNETS)
    images, labels = torch.randn(4, 3, 48, 48), torch.tensor([0, 1, 2, 0])
    batch = Batch(images=images, targets=labels)
    plain, both = (
        Distillation(
            teacher=guide, task=TASK, temperature=2.0, soft_weight=0.0, student_size=32, features=features
        )
        for features in (None, beside)
    )
    assert (plain.modules, both.modules) == (None, beside)
    plain, value = plain.loss(student.eval(), batch), both.loss(student, batch)
    assert value.item() > plain.item()
    (value - plain).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    assert all(p.grad is not None for p in beside.parameters())


def test_attention_between_equal_networks_is_zero() -> None:
    teacher = backbones.create("mobilenetv3_small_050", 3, "none", seed=1).eval()
    beside = f.Features(
        DistillFeatures.ATTENTION,
        task=TASK,
        student=teacher,
        teacher=teacher,
        sizes=(32, 32),
        prefix="network.",
        weight=2.0,
        seed=3,
    )
    guide, images = AtSize(teacher, 32), torch.randn(2, 3, 32, 32)
    with f.watching(teacher, beside.student_names) as own, f.watching(guide, beside.teacher_names) as theirs:
        guide(images)
    assert beside(own, theirs).item() == pytest.approx(0.0, abs=1e-6)
    projectors = nn.Module.parameters(beside)
    assert list(projectors) == []


def test_a_detectors_backbone_is_followed_stage_by_stage() -> None:
    task = DetectionTraining(spec=Detection(labels=("a", "b")))
    ends = f.stage_ends(create_detector("test_efficientnet", 2), task, 64, "it")
    assert [end.side for end in ends] == [32, 16, 8, 4, 2]
    assert all(end.name.startswith("backbone.blocks.") for end in ends)
