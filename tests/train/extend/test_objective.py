"""The loss that holds a network to what it answered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgetl.tasks.base import Classification
from edgetl.train.extend.objective import Remembering
from edgetl.train.objective import Batch, Need
from edgetl.train.tasks.classification import ClassificationTraining
from edgetl.train.tasks.soft import hinton
from tests.train.tiny import entropy

TASK = ClassificationTraining(spec=Classification(labels=("a", "b", "c")))


class Answers(nn.Module):
    """Always the same logits."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits


def remembering(share: float) -> Remembering:
    before = Answers([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    return Remembering(hard=entropy(), before=before, known=2, task=TASK, share=share, temperature=2.0)


def test_the_old_answers_count_but_where_they_contradict_the_label() -> None:
    model = Answers([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    batch = Batch(images=torch.zeros(3, 3, 4, 4), targets=torch.tensor([0, 1, 2]))
    objective = remembering(0.25)
    outputs = model.logits.detach()
    plain = nn.functional.cross_entropy(outputs, batch.targets)
    kept = hinton(outputs[[0, 2], :2], objective.before(batch.images)[[0, 2]], 2.0)
    value = objective.loss(model, batch)
    assert value.item() == pytest.approx((0.75 * plain + 0.25 * kept).item())
    assert objective.needs == {Need.IMAGES}
    value.backward()
    assert objective.before.get_parameter("logits").grad is None
    blended = Batch(images=batch.images, targets=torch.eye(3))
    assert objective.loss(model, blended).item() == pytest.approx(value.item())


def test_where_none_is_followed_the_labels_remain() -> None:
    model = Answers([[1.0, 0.5, 0.0]] * 3)
    batch = Batch(images=torch.zeros(3, 3, 4, 4), targets=torch.tensor([1, 1, 0]))
    plain = nn.functional.cross_entropy(model.logits, batch.targets).item()
    assert remembering(0.5).loss(model, batch).item() == pytest.approx(0.5 * plain)
    assert remembering(0.0).loss(model, batch).item() == pytest.approx(plain)
