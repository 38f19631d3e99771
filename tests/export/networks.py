"""A tiny classifier with what backbones are made of, and its preprocessing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetl.inputs.image import PreprocessSpec

SIZE = 32
LABELS = ("blue", "green", "réd")
SPEC = PreprocessSpec(size=SIZE)


class Tiny(nn.Module):
    """Convolution, ReLU6, pooling, a depthwise block with a shortcut, squeeze-excite, hard swish, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.pool = nn.MaxPool2d(2)
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.project = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.gate = nn.Sequential(nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Hardsigmoid())
        self.expand = nn.Sequential(nn.Conv2d(16, 32, 1), nn.Hardswish())
        self.head = nn.Linear(32, len(LABELS))

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.stem(images))
        x = x + self.project(self.depthwise(x))
        x = x * self.gate(x.mean((2, 3), keepdim=True))
        return self.head(self.expand(x).mean((2, 3)))


def tiny(seed: int = 0) -> Tiny:
    """The network in evaluation mode, with statistics and weights that make its activations lively."""
    torch.manual_seed(seed)
    model = Tiny()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.5)
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()
