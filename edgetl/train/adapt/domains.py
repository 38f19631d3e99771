"""Both domains as the stage of adaptation sees them: their images, and what networks make of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgetl.config import (
    AdaptConfig,
    ClassificationConfig,
    LabelsConfig,
    SourceWeights,
    Strategy,
    TaskConfig,
    TrainConfig,
)
from edgetl.data.index import DataIndex
from edgetl.data.pixels import open_pixels
from edgetl.data.sources import Split
from edgetl.data.splits import spread
from edgetl.errors import ModelError
from edgetl.inputs.image import PreprocessSpec
from edgetl.keys import UNKEYED
from edgetl.models import checkpoint
from edgetl.progress import Progress
from edgetl.tasks.metrics import chosen
from edgetl.train.adapt import camera
from edgetl.train.adapt.choice import density_ratios
from edgetl.train.adapt.objective import SOURCE, TARGET
from edgetl.train.evaluate import predict_outputs
from edgetl.train.features import compute, head_of
from edgetl.train.sets import FeatureSet, PixelSet, Sets, Unlabelled, open_sets, open_unlabelled
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.base import TrainingTask

RETAKEN_VAL = "retaken-val.npy"
"""Pixels while the stage runs: the source's validation images as the target's camera takes them."""
FEW_IMAGES = 8
"""Fewer images of a domain say too little of it."""
_JUDGES = 1000
"""Validation images that are retaken, at most."""


@dataclass(frozen=True, kw_only=True)
class AdaptInputs:
    """What the stage reads.

    Attributes:
        train: how the teacher was trained.
        teacher: its checkpoint.
        index: the labelled images, the source.
        target: the images of `adapt.images`, from `edgetl.data.unlabelled`.
        held_out: how many of the folder's images were left out.
        spec: evaluation's preprocessing.
        pixels_dir: folder of decoded pixels, shared by the stages.
        seed: of everything random.
        task: the recipe's settings of the task.
        labels: those of the relation of its classes.
    """

    train: TrainConfig
    teacher: Path
    index: DataIndex
    target: DataIndex
    held_out: int
    spec: PreprocessSpec
    pixels_dir: Path = field(metadata=UNKEYED)
    seed: int
    task: TaskConfig = field(default_factory=ClassificationConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)


class Domains:
    """The teacher, the labelled images, and those of the target.

    Attributes:
        teacher: the network.
        layer: name of its last layer.
        task: what it answers.
        metric: by which networks are chosen.
        sets: the labelled images; those of the training split have domains, and weights where `adapt.weights` or
            `adapt.select` ask for them.
        val_domains: (N,) of the validation images.
        target: the images of `adapt.images`.
    """

    def __init__(self, config: AdaptConfig, inputs: AdaptInputs, out: Path, progress: Progress) -> None:
        self.config, self.inputs, self.out, self.progress = config, inputs, out, progress
        self.task: TrainingTask = training_task(inputs.index.task, inputs.task, inputs.labels)
        self.teacher, _ = checkpoint.load(inputs.teacher)
        self.layer = self.task.output_layers(self.teacher)[0]
        self.sets: Sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir, progress)
        pixels = open_pixels(inputs.target.samples, inputs.spec, inputs.pixels_dir, progress)
        blank = np.zeros(len(pixels), np.int64)
        self.target = PixelSet(pixels, blank, inputs.spec)
        self.val_domains = self._domains("val")
        domains = self._domains("train")
        weights = self._weights(domains) if config.weighs else None
        self.sets = dataclasses.replace(
            self.sets, train=dataclasses.replace(self.sets.train, domains=domains, weights=weights)
        )
        select = inputs.train.select
        self.metric = (
            self.task.selection(self.sets.train.targets)
            if select is None
            else chosen(select, self.task.metrics, setting="train.select")
        )

    @property
    def labelled(self) -> int:
        """Validation images of the target."""
        return int((self.val_domains == TARGET).sum())

    def _domains(self, split: Split) -> NDArray[np.int64]:
        """(N,) the domain of each of a split's images."""
        name = self.config.domain
        return np.array(
            [
                TARGET if name is not None and sample.domain == name else SOURCE
                for sample in self.inputs.index.split(split)
            ],
            dtype=np.int64,
        )

    def _weights(self, domains: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N,) how often each training image is drawn; labelled ones of the target like an average one."""
        source = np.flatnonzero(domains == SOURCE)
        features = flat(self.features(self.teacher, self.sets.train))[source]
        ratios = density_ratios(features, flat(self.features(self.teacher, self.target)), self.inputs.seed)
        own = ratios if self.config.weights is SourceWeights.DENSITY_RATIO else np.ones(len(ratios))
        kept = np.argsort(-ratios, kind="stable")[: max(1, round(self.config.select * len(ratios)))]
        chosen = np.zeros(len(ratios))
        chosen[kept] = own[kept] / own[kept].mean()
        weights = np.ones(len(domains))
        weights[source] = chosen
        return weights

    def views(self, network: nn.Module, data: PixelSet) -> FeatureSet:
        """Features as the teacher's training had them, of as many views."""
        train = self.inputs.train
        return compute(
            network,
            (self.layer,),
            data,
            self.out,
            views=train.feature_views,
            augment=train.augment,
            seed=self.inputs.seed,
            progress=self.progress,
        )

    def features(self, network: nn.Module, data: PixelSet) -> FeatureSet:
        """Of one plain view."""
        return compute(network, (self.layer,), data, self.out, progress=self.progress)

    def outputs(self, network: nn.Module, data: PixelSet) -> NDArray[np.float32]:
        """A network's outputs (N, D). Networks that differ in their heads alone share the features of the images."""
        if self.inputs.train.strategy is not Strategy.HEAD:
            return predict_outputs(network, data)
        try:
            head = head_of(network, (self.layer,), self.inputs.spec.size)
        except ModelError:
            return predict_outputs(network, data)  # The last layer is not all that follows the features.
        return predict_outputs(head, self.features(network, data))

    def unlabelled(self) -> Unlabelled:
        """The target's images as training has them."""
        inputs, share = self.inputs, self.config.share
        opened = open_unlabelled(inputs.target, inputs.spec, inputs.pixels_dir, self.progress, share=share)
        return dataclasses.replace(opened, target_domain=True)

    def retaken(self) -> tuple[PixelSet, float] | None:
        """Validation images of the source as the target's camera takes them, and the share (0..1, or below 0) of how
        far the domains' features lie apart that this explains; None where there are too few.
        """
        val = self.sets.val
        rows = np.array(spread(np.flatnonzero(self.val_domains == SOURCE).tolist(), _JUDGES), np.int64)
        if len(rows) < FEW_IMAGES:
            return None
        before = PixelSet(val.pixels[rows], val.targets[rows], val.spec)
        found = camera.measured(before.pixels, self.target.pixels)
        pixels = camera.retake(
            found,
            before.pixels,
            np.ones(len(rows), np.bool_),
            self.out / RETAKEN_VAL,
            seed=self.inputs.seed,
            progress=self.progress,
        )
        after = dataclasses.replace(before, pixels=pixels)
        own, retaken, target = (
            flat(self.features(self.teacher, one)) for one in (before, after, self.target)
        )
        return after, camera.explained(own, retaken, target)


def flat(data: FeatureSet) -> NDArray[np.float32]:
    """(N, D): each image's first view."""
    return np.array(data.features[0]).reshape(len(data), -1)
