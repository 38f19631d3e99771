"""Loss functions that the training loop takes."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

LossFunction = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, images (N, 3, H, W) float32, labels (N,) int64, both on the model's device) -> scalar, a mean over N."""


def cross_entropy(label_smoothing: float = 0.0) -> LossFunction:
    """Cross-entropy with the labels, smoothed (Szegedy et al. 2016, section 7).

    Args:
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
    """

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(images).float(), labels, label_smoothing=label_smoothing)

    return loss
