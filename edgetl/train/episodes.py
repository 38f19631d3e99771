"""A last phase of training on small problems of a few classes, for features that recognise classes added later.

A device adds a class by the mean of a few pictures' features (`edgetl.runtime.enrol`). Training with labels makes
features that tell the trained classes apart; these phases ask for more: that any few classes can be recognised from
few pictures. Each problem, an episode, has some of the training classes.

`prototypical`: each image's features are compared with the mean of the others' of each class in the step (Snell,
Swersky, Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017) by cosines, after training with labels, as
in Chen et al., "Meta-Baseline" (ICCV 2021), whose scale is taken.

`reptile`: a few steps on one problem, then the weights go a part of that way (Nichol, Achiam, Schulman, "On First-Order
Meta-Learning Algorithms", 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgetl.config import Episodes
from edgetl.train.objective import Batch, Need, Objective
from edgetl.train.watching import watching

PHASE = "episodes"
WAYS = 5
"""Classes of a problem, or all where there are fewer."""
_REPTILE_STEPS = 5
_SCALE = 10.0
"""Of cosines into logits."""


@dataclass(frozen=True, kw_only=True)
class Episodic:
    """How a phase draws its steps, and what becomes of the weights after each problem.

    Attributes:
        ways: classes of a problem.
        steps: that a problem lasts.
        toward: the share of the way of these steps that the weights go, in (0, 1].
    """

    ways: int
    steps: int
    toward: float


def episodic(method: Episodes) -> Episodic:
    """How a method draws its steps.

    Raises:
        ValueError: there is no method.
    """
    match method:
        case Episodes.NONE:
            raise ValueError("No method of episodes.")
        case Episodes.PROTOTYPICAL:
            return Episodic(ways=WAYS, steps=1, toward=1.0)
        case Episodes.REPTILE:
            return Episodic(ways=WAYS, steps=_REPTILE_STEPS, toward=0.5)
        case _:
            assert_never(method)


def objective(method: Episodes, labels: Objective, layer: str) -> Objective:
    """What a method minimises.

    Args:
        method: not `none`.
        labels: the loss with the labels.
        layer: the network's last layer, whose input the features are.

    Raises:
        ValueError: there is no method.
    """
    match method:
        case Episodes.NONE:
            raise ValueError("No method of episodes.")
        case Episodes.PROTOTYPICAL:
            return Prototypical(labels=labels, layer=layer)
        case Episodes.REPTILE:
            return AmongPresent()
        case _:
            assert_never(method)


def episode_order(
    strata: NDArray[np.int64], sizes: list[int], own: Episodic, generator: np.random.Generator
) -> NDArray[np.int64]:
    """The images of an epoch's steps, problem after problem: as many as the steps take.

    The classes of a problem are drawn evenly from all, and its images evenly from its classes; an image comes again
    only after all of its class have come in that problem.

    Args:
        strata: (N,) the class of each image.
        sizes: images of each step.
        own: how problems are drawn.
        generator: of this epoch.
    """
    classes, rows = np.unique(strata), []
    for first in range(0, len(sizes), own.steps):
        wanted = sum(sizes[first : first + own.steps])
        drawn = generator.permutation(classes)[: own.ways]
        each = -(-wanted // len(drawn))
        dealt = []
        for one in drawn:
            images = np.flatnonzero(strata == one)
            rounds = [generator.permutation(images) for _ in range(-(-each // len(images)))]
            dealt.append(np.concatenate(rounds)[:each])
        # One of each class after the other, so that every step has images of all.
        rows.append(np.stack(dealt, axis=1).reshape(-1)[:wanted])
    return np.concatenate(rows)


@dataclass(frozen=True, kw_only=True)
class Prototypical:
    """A loss, plus the cross-entropy of cosines to the means of the classes in the step, each image's own left out.

    Attributes:
        labels: the loss that it is added to.
        layer: the network's last layer, whose input the features are.
    """

    labels: Objective
    layer: str

    @property
    def modules(self) -> nn.Module | None:
        """What learns in the other loss."""
        return self.labels.modules

    @property
    def needs(self) -> frozenset[Need]:
        """Pixels and labels."""
        return self.labels.needs | {Need.IMAGES}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See the class; unlabelled images take part in the other loss alone."""
        name = f">{self.layer}"
        with watching(model, (name,)) as seen:
            value = self.labels.loss(model, batch)
        features, targets = seen[name].flatten(1).float(), batch.targets
        if batch.labelled is not None:
            features, targets = features[batch.labelled], targets[batch.labelled]
        found = prototype_loss(features, targets)
        return value if found is None else value + found


def prototype_loss(features: Tensor, targets: Tensor) -> Tensor | None:
    """The mean over the images of classes that come twice or more: a scalar; None with fewer than two such classes.

    Args:
        features: (N, F) float32.
        targets: (N,) int64, the class of each.
    """
    counts = torch.bincount(targets)
    several = counts[targets] > 1
    classes, own = torch.unique(targets[several], return_inverse=True)
    if len(classes) < 2:
        return None
    vectors = F.normalize(features[several], dim=1)
    member = F.one_hot(own, len(classes)).to(vectors.dtype)
    sums = member.T @ vectors
    size = member.sum(0)
    # Of an image's own class the mean is that of the others.
    cosines = F.normalize(sums / size[:, None], dim=1) @ vectors.T
    without = F.normalize(sums[own] - vectors, dim=1)
    same = (without * vectors).sum(1)
    logits = torch.where(member.bool(), same[:, None], cosines.T) * _SCALE
    return F.cross_entropy(logits, own)


@dataclass(frozen=True, kw_only=True)
class AmongPresent:
    """The cross-entropy among the classes that are in the step."""

    needs: frozenset[Need] = frozenset({Need.LABELS})

    @property
    def modules(self) -> nn.Module | None:
        """Nothing learns beside the network."""
        return None

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See the class."""
        classes, own = torch.unique(batch.targets, return_inverse=True)
        return F.cross_entropy(model(batch.images).float()[:, classes], own)


class Outer:
    """The weights between problems: after each they go a share of the way that its steps went."""

    def __init__(self, parameters: list[nn.Parameter], own: Episodic) -> None:
        """Begin with the weights as they are."""
        self._parameters, self._own = parameters, own
        self._before = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def stepped(self, number: int, *, last: bool) -> None:
        """After step `number` of an epoch, counted from 0; the epoch's `last` one ends a problem too."""
        if self._own.toward == 1.0 or not (last or (number + 1) % self._own.steps == 0):
            return
        for parameter, before in zip(self._parameters, self._before, strict=True):
            before.lerp_(parameter, self._own.toward)
            parameter.copy_(before)


def few_shot(
    features: NDArray[np.float32],
    classes: NDArray[np.int64],
    centre: NDArray[np.float32],
    *,
    shots: int,
    episodes: int,
    generator: np.random.Generator,
) -> Mapping[int, float]:
    """How often each image is recognised as one of five classes (or all, where there are fewer) by few pictures.

    Each episode draws the classes, and `shots` images of each, whose mean is the class; the others are assigned to the
    nearest mean, by cosines after `centre` is taken off (Wang et al., "SimpleShot", 2019).

    Args:
        features: (N, F).
        classes: (N,) int64; each has more than `shots` images.
        centre: (F,), the mean over images of other classes.
        shots: pictures of a class.
        episodes: so many.
        generator: draws the same for features of the same images.

    Returns:
        By the image's row, its share of right answers; of images that were queried at least once.
    """
    apart = features - centre
    unit = apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-6)
    names = np.unique(classes)
    right, asked = np.zeros(len(classes)), np.zeros(len(classes))
    for _ in range(episodes):
        drawn = generator.permutation(names)[:WAYS]
        rows = [generator.permutation(np.flatnonzero(classes == one)) for one in drawn]
        means = np.stack([unit[own[:shots]].mean(axis=0) for own in rows])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)
        queries = np.concatenate([own[shots:] for own in rows])
        truth = np.repeat(np.arange(len(drawn)), [len(own) - shots for own in rows])
        right[queries] += (unit[queries] @ means.T).argmax(axis=1) == truth
        asked[queries] += 1
    return {int(at): float(right[at] / asked[at]) for at in np.flatnonzero(asked)}
