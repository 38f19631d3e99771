"""What a training step minimises."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

LossFunction = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, images (N, 3, H, W) float32, labels, both on the model's device) -> scalar, a mean over N.

The labels are (N,) int64, or (N, C) float32 shares where the fit mixes images. Where the fit has unlabelled images,
their label is `edgetl.data.index.UNLABELLED`.
"""
