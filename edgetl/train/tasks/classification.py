"""Losses of classification, and how they weigh classes of unequal size."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgetl.train.objective import LossFunction


def cross_entropy(
    label_smoothing: float = 0.0, *, weights: Tensor | None = None, shift: Tensor | None = None
) -> LossFunction:
    """Cross-entropy with the labels, smoothed (Szegedy et al. 2016, section 7).

    Args:
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
        weights: (C,) float32, what an image of each class counts; see `class_weights`.
        shift: (C,) float32, added to the logits before the loss; see `log_prior`.
    """

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        logits = model(images).float()
        if shift is not None:
            logits = logits + shift.to(logits.device)
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        # a mean over the images, not over their weights, so that the loss of a batch is that of its parts
        each = F.cross_entropy(
            logits,
            labels,
            weight=weights.to(logits.device),
            reduction="none",
            label_smoothing=label_smoothing,
        )
        return each.mean()

    return loss


def class_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """(C,) float32 weights in inverse proportion to the classes' sizes; their mean over the images is 1.

    A class without images counts like one with a single image.
    """
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    present = int((np.bincount(labels, minlength=classes) > 0).sum())
    return torch.from_numpy((len(labels) / (present * counts)).astype(np.float32))


def log_prior(labels: NDArray[np.int64], classes: int) -> Tensor:
    """(C,) float32 log shares of the classes, for the logit-adjusted loss (Menon et al. 2021, equation 10, tau 1).

    A class without images counts like one with a single image.
    """
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))
