"""The last layer answers with the nearest class mean where that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.inputs.image import PreprocessSpec
from edgetl.tasks.base import Classification
from edgetl.train.extend.nearest import nearest_means
from edgetl.train.sets import PixelSet, Sets
from edgetl.train.tasks.classification import ClassificationTraining

SIDE, EACH = 4, 10
SPEC = PreprocessSpec(size=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Colours(nn.Module):
    """Answers with the image's mean colour; the last class louder than the others."""

    def __init__(self, loud: float) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.diag(torch.tensor([1.0, 1.0, loud])))
            self.head.bias.fill_(0.1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(images.mean(dim=(2, 3)))
        return found


class Task(ClassificationTraining):
    def output_layers(self, model: nn.Module) -> tuple[str, ...]:
        return ("head",)


TASK = Task(spec=Classification(labels=("red", "green", "blue")))


def images(classes: int = 3) -> PixelSet:
    """Pictures of each colour with half as much of every other."""
    targets = np.repeat(np.arange(classes), EACH)
    pixels = np.full((classes * EACH, SIDE, SIDE, 3), 100, np.uint8)
    pixels[np.arange(classes * EACH), :, :, targets] = 200
    return PixelSet(pixels, targets, SPEC)


def test_nearest_means_take_the_place_of_a_last_layer_that_favours_a_class(tmp_path: Path) -> None:
    model = Colours(loud=3.0)
    sets = Sets(train=images(), val=images(), test=None)
    record = nearest_means(model, TASK, sets, out=tmp_path, seed=0)
    assert record is not None
    assert (record.comparison.before, record.comparison.after) == pytest.approx((1 / 3, 1.0))
    assert not model.head.bias.any()
    lengths = model.head.weight.norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand(3), msg="means of one length")
    assert "from 33.3% to 100.0%" in record.note
    assert record.note.endswith("is taken.")


def test_what_does_not_help_leaves_the_last_layer(tmp_path: Path) -> None:
    model = Colours(loud=1.0)
    was = model.head.weight.detach().clone()
    record = nearest_means(model, TASK, Sets(train=images(), val=images(), test=None), out=tmp_path, seed=0)
    assert record is not None
    assert record.note.endswith("is not taken.")
    torch.testing.assert_close(model.head.weight.detach(), was)
    short = Sets(train=images(2), val=images(), test=None)
    assert nearest_means(model, TASK, short, out=tmp_path, seed=0) is None, "a class has no training image"
