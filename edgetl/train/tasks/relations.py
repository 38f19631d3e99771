"""Losses with the labels of classes that are related: soft labels, and cross-entropy by the groups of a tree.

Bertinetto et al., "Making Better Mistakes: Leveraging Class Hierarchies with Deep Networks" (CVPR 2020).

Legend: N images, C classes, G groups of a tree. Both losses are sums over log probabilities of classes and groups, so
that one matrix (C, C + G) says what an image of each class counts, whole or by shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgetl.tasks.relations import Tree, members, paths
from edgetl.train.objective import HardLoss


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loss of an image is the negative of, summed.

    Attributes:
        weights: (C, C + G) float32, what the log probability of each class, then of each group, counts for an image of
            the class of the row.
        groups: the classes of each of the G groups.
    """

    weights: Tensor
    groups: tuple[tuple[int, ...], ...] = ()


def soft_labels(apart: NDArray[np.float64], softness: float) -> Parts:
    """A label spread over the classes by their distances (section 3.3): shares in proportion to exp(-d / softness).

    Args:
        apart: (C, C) float64 distances, 0 on the diagonal.
        softness: above 0; towards 0 the label is its class alone.
    """
    shares = np.exp(-apart / softness)
    return Parts(weights=torch.from_numpy((shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)))


def hierarchical(tree: Tree, labels: Sequence[str], discount: float) -> Parts:
    """The cross-entropy of each step from the group of all classes down to the class (section 3.2).

    A step's probability is that of what it leads to, given the group that it starts from; the first step counts 1, and
    each one after it exp(-discount) times the one before. With a discount of 0 it is cross-entropy.

    Args:
        tree: of the classes.
        labels: the C class names.
        discount: 0 or more.
    """
    ways = paths(tree, labels)
    within = members(ways)
    # All classes together are certain: their log probability is 0.
    names = [name for name in within if name != ways[0][-1]]
    column = {name: len(labels) + at for at, name in enumerate(names)}
    weights = np.zeros((len(labels), len(labels) + len(names)))
    for place, way in enumerate(ways):
        steps = [place, *(column[name] for name in way[:-1])][::-1]
        for depth, (step, before) in enumerate(zip(steps, [None, *steps], strict=False)):
            weights[place, step] += math.exp(-discount * depth)
            if before is not None:
                weights[place, before] -= math.exp(-discount * depth)
    groups = tuple(within[name] for name in names)
    return Parts(weights=torch.from_numpy(weights.astype(np.float32)), groups=groups)


def related_loss(
    parts: Parts,
    label_smoothing: float = 0.0,
    *,
    weights: Tensor | None = None,
    shift: Tensor | None = None,
) -> HardLoss:
    """The loss with labels, as classes (N,) int64 or as shares (N, C) float32.

    Args:
        parts: of the loss.
        label_smoothing, weights, shift: as for `edgetl.train.tasks.classification.cross_entropy`, which it is where a
            label counts for its class alone.
    """
    matrix = parts.weights if weights is None else weights[:, None] * parts.weights
    matrix = torch.lerp(matrix, matrix.mean(dim=0, keepdim=True), label_smoothing)
    groups = [torch.tensor(places) for places in parts.groups]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        logits = outputs.float()
        if shift is not None:
            logits = logits + shift.to(logits.device)
        logs = F.log_softmax(logits, dim=1)
        of_groups = [logs[:, places.to(logs.device)].logsumexp(dim=1, keepdim=True) for places in groups]
        counted = matrix.to(logs.device)
        rows = counted[targets] if targets.dim() == 1 else targets @ counted
        return -(rows * torch.cat([logs, *of_groups], dim=1)).sum(dim=1).mean()

    return loss
