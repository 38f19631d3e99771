from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgetl.config import Imbalance, LabelsConfig, RelationLoss, TrainConfig
from edgetl.errors import ConfigError
from edgetl.tasks.base import Classification
from edgetl.tasks.relations import Tree, distances
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.relations import hierarchical, related_loss, soft_labels

LABELS = ("free", "crack", "fray", "stain")
TREE = Tree(
    parents={
        "crack": "break",
        "fray": "break",
        "break": "defect",
        "stain": "defect",
        "defect": "part",
        "free": "part",
    }
)
SPEC = Classification(labels=LABELS, relation=TREE)
TARGETS = np.array([0, 0, 0, 0, 1, 1, 2, 3])
LOGITS = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))


def test_soft_labels_are_shares_by_distance() -> None:
    shares = soft_labels(distances(TREE, LABELS), 0.5).weights
    # From `crack`: itself, then fray (a third of the height), stain (two thirds), free.
    expected = np.exp(-2 * np.array([1, 0, 1 / 3, 2 / 3]))
    assert shares[1].numpy() == pytest.approx(expected / expected.sum(), abs=1e-6)
    assert shares.sum(dim=1).numpy() == pytest.approx(np.ones(4), abs=1e-6)


def test_the_hierarchical_loss_is_that_of_each_step_down_the_tree() -> None:
    shares = F.softmax(LOGITS, dim=1).double().numpy()
    loss = related_loss(hierarchical(TREE, LABELS, 0.7))
    fray = shares[0]
    broken, defect = fray[1] + fray[2], fray[1] + fray[2] + fray[3]
    steps = np.log([defect, broken / defect, fray[2] / broken])
    expected = -(steps * np.exp(-0.7 * np.arange(3))).sum()
    assert loss(LOGITS[:1], torch.tensor([2])).item() == pytest.approx(expected, rel=1e-5)
    free = -np.log(fray[0])
    assert loss(LOGITS[:1], torch.tensor([0])).item() == pytest.approx(free, rel=1e-5)


@pytest.mark.parametrize("imbalance", Imbalance)
@pytest.mark.parametrize(
    ("asked", "limit"), [("soft", {"softness": 1e-3}), ("hierarchical", {"discount": 0.0})]
)
def test_at_its_limit_each_loss_is_cross_entropy_with_every_setting(
    imbalance: Imbalance, asked: str, limit: dict[str, float]
) -> None:
    config = TrainConfig(imbalance=imbalance, label_smoothing=0.2)
    settings = LabelsConfig(tree="tree.toml", loss=RelationLoss(asked), **limit)
    plain = training_task(SPEC).hard_loss(config, TARGETS)
    loss = training_task(SPEC, labels=settings).hard_loss(config, TARGETS)
    targets = torch.from_numpy(TARGETS)
    for form in (targets, F.one_hot(targets, 4).float().roll(1, 0) * 0.3 + F.one_hot(targets, 4) * 0.7):
        assert loss(LOGITS, form).item() == pytest.approx(plain(LOGITS, form).item(), rel=1e-5)


@pytest.mark.parametrize("asked", [RelationLoss.SOFT, RelationLoss.HIERARCHICAL])
def test_a_blend_of_labels_is_the_blend_of_their_losses(asked: RelationLoss) -> None:
    task = training_task(SPEC, labels=LabelsConfig(tree="tree.toml", loss=asked))
    loss, one, other = task.hard_loss(), torch.from_numpy(TARGETS), torch.from_numpy(TARGETS[::-1].copy())
    blended = 0.3 * task.shares(one) + 0.7 * task.shares(other)
    expected = 0.3 * loss(LOGITS, one) + 0.7 * loss(LOGITS, other)
    assert loss(LOGITS, blended).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("asked", [RelationLoss.SOFT, RelationLoss.HIERARCHICAL])
def test_a_near_mistake_costs_less_than_a_far_one(asked: RelationLoss) -> None:
    loss = training_task(SPEC, labels=LabelsConfig(tree="tree.toml", loss=asked)).hard_loss()
    crack = torch.tensor([1])
    near, far = torch.tensor([[0.0, 1, 5, 0]]), torch.tensor([[5.0, 1, 0, 0]])
    assert loss(near, crack) < loss(far, crack)
    hopeless = torch.tensor([[300.0, 0, 0, 0]], requires_grad=True)
    value = loss(hopeless, crack)
    value.backward()
    assert value.isfinite()
    assert hopeless.grad is not None
    assert hopeless.grad.abs().sum() > 0.1, "no probability is lost where it rounds to 0"


def test_a_loss_without_its_relation_is_refused() -> None:
    settings = LabelsConfig(tree="tree.toml", loss=RelationLoss.SOFT)
    with pytest.raises(
        ConfigError, match=r"labels\.loss = soft asks how the classes are related; name a tree"
    ):
        training_task(Classification(labels=LABELS), labels=settings).hard_loss()
