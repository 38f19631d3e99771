from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.errors import ModelError
from edgetl.export.network_divergence import first_diverging_module
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.export.parity import check
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Classification
from tests.export.networks import LABELS, SIZE, SPEC, tiny

IMAGES = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)


class Branch(nn.Module):
    """What it does depends on the images, and is frozen by a trace."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * 2 if float(values.mean()) > 0 else values + 1


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.Tanh())
        self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(8, 8, 1), nn.Tanh()), Branch())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(LABELS)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(images)))


@pytest.fixture
def branching() -> nn.Module:
    """With zeros, as the trace has them, the branch goes one way; with large images the other."""
    torch.manual_seed(0)
    model = Branching().eval()
    nn.init.constant_(model.blocks[0][0].weight, 0.1)
    nn.init.constant_(model.blocks[0][0].bias, -0.01)
    nn.init.zeros_(model.stem[0].bias)
    nn.init.constant_(model.stem[0].weight, 0.1)
    return model


def test_a_sound_export_has_no_diverging_module() -> None:
    model = tiny()
    exported = to_onnx(model, task=Classification(labels=LABELS), spec=SPEC, opset=18)
    assert first_diverging_module(model, exported, IMAGES, limit=1e-3) is None


def test_a_frozen_branch_is_named(branching: nn.Module) -> None:
    exported = to_onnx(branching, task=Classification(labels=LABELS), spec=SPEC, opset=18)
    found = first_diverging_module(branching, exported, np.abs(IMAGES), limit=1e-3)
    assert found is not None
    assert (found.layer, found.operator) == ("blocks.1", "Branch")
    assert found.error_before < 1e-5


def test_the_export_stage_s_check_names_it(branching: nn.Module) -> None:
    content = to_bytes(to_onnx(branching, task=Classification(labels=LABELS), spec=SPEC, opset=18))
    with pytest.raises(
        ModelError, match=r"differs from the network: .*; they part first in the layer blocks\.1 \(Branch\)\."
    ):
        check(
            branching,
            content,
            [np.abs(IMAGES)],
            task=task_of(Classification(labels=LABELS)),
            max_difference=1e-3,
        )
