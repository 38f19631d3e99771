"""New classes are turned down where that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.data.index import DataIndex
from edgetl.inputs.image import PreprocessSpec
from edgetl.tasks.base import Classification
from edgetl.train.extend.aligning import align
from edgetl.train.extend.before import Before
from edgetl.train.sets import PixelSet
from edgetl.train.tasks.classification import ClassificationTraining

SIDE, EACH = 4, 10
NAMES = ("red", "green", "blue")
SPEC = PreprocessSpec(size=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Colours(nn.Module):
    """Answers with the image's mean colour; the last class as loudly as it is told."""

    def __init__(self, loud: float) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.diag(torch.tensor([1.0, 1.0, loud])))
            self.head.bias.copy_(torch.tensor([0.0, 0.0, 0.05]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.mean(dim=(2, 3)))


class Task(ClassificationTraining):
    def output_layers(self, model: nn.Module) -> tuple[str, ...]:
        return ("head",)


def images() -> PixelSet:
    """Pictures of each colour with half as much of every other."""
    targets = np.repeat(np.arange(3), EACH)
    pixels = np.full((3 * EACH, SIDE, SIDE, 3), 100, np.uint8)
    pixels[np.arange(3 * EACH), :, :, targets] = 200
    return PixelSet(pixels, targets, SPEC)


def before(known: int) -> Before:
    index = DataIndex(Path(), NAMES[:known], ())
    return Before(checkpoint=Path("none"), index=index, share=0.0, temperature=1.0)


def test_a_loud_new_class_is_turned_down_where_that_helps() -> None:
    model, task = Colours(loud=3.0), Task(spec=Classification(labels=NAMES))
    record = align(model, task, before(2), images(), seed=0)
    assert record is not None
    assert record.factor == pytest.approx(1 / 3)
    assert (record.comparison.before, record.comparison.after) == pytest.approx((1 / 3, 1.0))
    torch.testing.assert_close(model.head.weight, torch.eye(3))
    assert model.head.bias[2].item() == pytest.approx(0.05), "a bias is no weight"
    assert "from 33.3% to 100.0%" in record.note
    assert "kept so" in record.note


def test_what_does_not_help_leaves_the_weights() -> None:
    model, task = Colours(loud=1.2), Task(spec=Classification(labels=NAMES))
    record = align(model, task, before(2), images(), seed=0)
    assert record is not None
    assert not record.comparison.helped
    assert model.head.weight[2, 2].item() == pytest.approx(1.2)
    assert "left as they were" in record.note
    assert align(model, task, before(3), images(), seed=0) is None, "no new classes"
