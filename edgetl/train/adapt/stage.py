"""The teacher, adapted to images of another domain without their labels."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.config import (
    AdaptConfig,
    AdaptMethod,
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
from edgetl.errors import ConfigError, ModelError
from edgetl.inputs.image import PreprocessSpec
from edgetl.keys import UNKEYED
from edgetl.models import checkpoint
from edgetl.models.norms import batch_norms, recalibrate
from edgetl.progress import SILENT, Progress
from edgetl.records.adapt import NO_METHOD, AdaptRecord, AdaptTry
from edgetl.records.scores import value
from edgetl.records.train import EpochRecord
from edgetl.statistics import binomial_tail, discordant
from edgetl.tasks.base import Classification
from edgetl.tasks.classification.answers import softmax
from edgetl.tasks.metrics import chosen
from edgetl.train.adapt import camera, distances
from edgetl.train.adapt.choice import Choice, Scored, choose, density_ratios
from edgetl.train.adapt.objective import SOURCE, TARGET, Adversary, Aligned, Distance
from edgetl.train.adapt.pseudo import confident, pseudo_labels
from edgetl.train.evaluate import predict_outputs, score_splits
from edgetl.train.features import compute, head_of, plain_views
from edgetl.train.loader import step_sizes
from edgetl.train.loop import NO_START, Fitting, fit
from edgetl.train.objective import Hard, Objective
from edgetl.train.phases import phases
from edgetl.train.seeds import derive, numpy_generator
from edgetl.train.sets import FeatureSet, PixelSet, Sets, Unlabelled, open_sets, open_unlabelled
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.base import TrainingTask

CHECKPOINT = "adapted.safetensors"
RETAKEN = "retaken.npy"
"""Pixels while the stage runs: labelled images as the target's camera takes them."""
ADAPTED = "edgetl.adapted"
"""Key of a checkpoint's metadata: the method."""
FEW_IMAGES = 8
"""Fewer images of the target say too little of it."""
_ROUNDS = 3
"""Of self-training: in each, a larger share of the target's images counts."""
_STATISTICS = 512
"""Target images from which batch norm's statistics are measured, at most."""
_LEAST = 2
"""Images of a domain that have a covariance."""
_LEVEL = 0.05
"""A method helped where chance explains its gain less often than this."""
_MOVES_FEATURES = (AdaptMethod.MMD, AdaptMethod.DANN)
_COMPARES = (AdaptMethod.CORAL, *_MOVES_FEATURES)
"""Methods that compare the features of the two domains in each step, where the backbone learns."""


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


def methods(config: AdaptConfig, strategy: Strategy) -> tuple[AdaptMethod, ...]:
    """What is tried: the method that is asked for, or all that the strategy allows.

    Without labels of the target nothing says whether only the camera differs: between photographs of other places the
    answers of `camera` lay densest and were worse than others (`tests/slow/test_adaptation.py`), so that `auto` tries
    it where `adapt.domain` names labelled images.

    Raises:
        ConfigError: the method moves features that the strategy freezes.
    """
    frozen = strategy is Strategy.HEAD
    if config.method is AdaptMethod.AUTO:
        found = [method for method in AdaptMethod if method is not AdaptMethod.AUTO]
        if not config.weighs:
            found.remove(AdaptMethod.WEIGHTED)
        if config.domain is None:
            found.remove(AdaptMethod.CAMERA)
        return tuple(method for method in found if not (frozen and method in _MOVES_FEATURES))
    if frozen and config.method in _MOVES_FEATURES:
        raise ConfigError(
            f'adapt.method = "{config.method}" moves the features, which train.strategy = "head" freezes; take "bn",'
            ' "coral", "self_training", "camera" or "auto", or another strategy.'
        )
    return (config.method,)


def check(config: AdaptConfig, train: TrainConfig, index: DataIndex) -> None:
    """What would stop the stage, known before the teacher is trained.

    Raises:
        ConfigError: the task, the strategy or the size of a step does not allow it, or `adapt.domain` names what the
            data does not hold.
    """
    if not isinstance(index.task, Classification):
        raise ConfigError(
            "adapt.images asks for one class per image, and this data is labelled otherwise; leave [adapt] out."
        )
    asked = methods(config, train.strategy)
    if train.strategy is not Strategy.HEAD and (compare := [m for m in asked if m in _COMPARES]):
        steps = step_sizes(len(index.split("train")), train.batch_size, config.share)
        if all(min(step) < _LEAST for step in steps):
            raise ConfigError(
                f"adapt.method = {config.method} compares {_LEAST} or more images of either domain in each step"
                f" ({', '.join(compare)}), but train.batch_size = {train.batch_size} and adapt.share ="
                f" {config.share:g} make steps of {steps[0][0]} and {steps[0][1]}. Take a larger batch, a share nearer"
                " to 0.5, or a method that compares none, as bn."
            )
    if config.domain is None:
        return
    domains = {sample.domain for sample in index.samples if sample.domain}
    if config.domain not in domains:
        known = f"it holds {', '.join(sorted(domains))}" if domains else "there is none"
        raise ConfigError(
            f"adapt.domain is {config.domain!r}, which no image has in the CSV's column domain; {known}."
        )
    if (source := sum(s.domain != config.domain for s in index.split("train"))) < _LEAST:
        raise ConfigError(
            f"adapt.domain is {config.domain!r}, and {'all' if source == 0 else 'all but one'} of the training images"
            " are of it: there is nothing to adapt from; leave [adapt] out."
        )


def check_images(config: AdaptConfig, target: DataIndex, index: DataIndex) -> None:
    """The same, of the images of `adapt.images`.

    Args:
        config: names the domain of labelled images that are the target's.
        target: the images.
        index: the labelled images.

    Raises:
        ConfigError: there are too few, or all are training images of the source.
    """
    if (count := len(target.samples)) < FEW_IMAGES:
        raise ConfigError(
            f"adapt.images holds {count} usable image{'' if count == 1 else 's'}, too few to tell what the target is"
            f" like; it needs {FEW_IMAGES} or more."
        )
    source = {s.sha256 for s in index.split("train") if config.domain is None or s.domain != config.domain}
    if source.issuperset(sample.sha256 for sample in target.samples):
        raise ConfigError(
            f"adapt.images: all {count} images are training images, so there is no other domain; name a folder of"
            " what these do not show."
        )


def run(config: AdaptConfig, inputs: AdaptInputs, *, out: Path, progress: Progress = SILENT) -> AdaptRecord:
    """Try the methods, choose, and write `out/adapted.safetensors`.

    Where validation images of the target are labelled, the method that is best there is taken if it is significantly
    better than the teacher as it was, at 5% over all that were tried. Where none are, `auto` takes the network that
    `edgetl.train.adapt.choice` finds best, the teacher as it was included, and a method that was asked for by name is
    taken, unless it made nothing.
    Each phase of training that was stopped goes on after its last epoch.

    Raises:
        ConfigError: as for `check` and `check_images`.
        ImageError: an image cannot be decoded.
        TrainingError: training cannot go on.
        Interrupted: Ctrl-C.
        StorageError: a file cannot be written.
    """
    begun = time.perf_counter()
    found = attempts(config, inputs, out=out, progress=progress)
    asked, networks, name = config.method, found.networks, found.taken(config.method)
    val, test = score_splits(found.task, networks[name], found.sets)
    architecture = checkpoint.load(inputs.teacher)[1]
    extra = {**checkpoint.further_metadata(inputs.teacher), ADAPTED: name}
    checkpoint.save(networks[name], architecture, out / CHECKPOINT, extra)
    for path in [*out.glob("*.state"), *out.glob("features-*.npy"), out / RETAKEN]:
        path.unlink(missing_ok=True)
    return AdaptRecord(
        checkpoint=f"{out.name}/{CHECKPOINT}",
        method=name,
        asked=str(asked),
        metric=found.metric,
        images=len(inputs.target.samples),
        held_out=inputs.held_out,
        transductive=config.transductive,
        labelled=found.labelled,
        sure=found.choice.sure,
        tries=found.tries,
        epochs=found.epochs,
        val=val,
        test=test,
        seconds=time.perf_counter() - begun,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempts:
    """The networks by method, the teacher as it was among them; what is recorded of each; and what `auto` takes."""

    networks: dict[str, nn.Module]
    tries: tuple[AdaptTry, ...]
    epochs: tuple[EpochRecord, ...]
    choice: Choice
    metric: str
    task: TrainingTask
    sets: Sets
    labelled: int

    def taken(self, asked: AdaptMethod) -> str:
        """The network that is taken, of a method that was asked for or of any."""
        if self.labelled:
            others = [one for one in self.tries if one.target is not None and one.method != NO_METHOD]
            best = max(others, key=lambda one: one.target or 0.0, default=None)
            helped = best is not None and best.p_value is not None and best.p_value < _LEVEL
            return best.method if best is not None and helped else NO_METHOD
        if asked is AdaptMethod.AUTO:
            return self.choice.name
        return str(asked) if asked in self.networks else NO_METHOD


def attempts(config: AdaptConfig, inputs: AdaptInputs, *, out: Path, progress: Progress = SILENT) -> Attempts:
    """What each method makes of the teacher; raises as `run` does."""
    check(config, inputs.train, inputs.index)
    check_images(config, inputs.target, inputs.index)
    bench = _Bench(config, inputs, out, progress)
    networks = {NO_METHOD: bench.teacher}
    tries, epochs = [AdaptTry(method=NO_METHOD)], tuple[EpochRecord, ...]()
    for method in methods(config, inputs.train.strategy):
        started = time.perf_counter()
        try:
            network, history = bench.adapted(method)
        except ModelError as error:
            tries.append(AdaptTry(method=method, note=str(error)))
            progress.warning(f"adapt: {method} was not tried. {error}")
            continue
        networks[method], epochs = network, epochs + history
        tries.append(AdaptTry(method=method, seconds=time.perf_counter() - started))
    choice = bench.choose(networks)
    labelled = int((bench.val_domains == TARGET).sum())
    decides = config.method is AdaptMethod.AUTO and not labelled
    return Attempts(
        networks=networks,
        tries=tuple(bench.scored(one, len(networks) - 1, choice, decides=decides) for one in tries),
        epochs=epochs,
        choice=choice,
        metric=bench.metric,
        task=bench.task,
        sets=bench.sets,
        labelled=labelled,
    )


class _Bench:
    """The teacher, both domains' images, and what each method makes of them."""

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
        train = inputs.train
        self.metric = (
            self.task.selection(self.sets.train.targets)
            if train.select is None
            else chosen(train.select, self.task.metrics, setting="train.select")
        )
        on_features = train.strategy is Strategy.HEAD
        self.planned = phases(train, inputs.seed, self.metric, self.task, on_features=on_features)
        self.hard = Hard(hard_loss=self.task.hard_loss(train, self.sets.train.targets))

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
        features = _flat(self._features(self.teacher, self.sets.train))[source]
        ratios = density_ratios(features, _flat(self._features(self.teacher, self.target)), self.inputs.seed)
        own = ratios if self.config.weights is SourceWeights.DENSITY_RATIO else np.ones(len(ratios))
        kept = np.argsort(-ratios, kind="stable")[: max(1, round(self.config.select * len(ratios)))]
        chosen = np.zeros(len(ratios))
        chosen[kept] = own[kept] / own[kept].mean()
        weights = np.ones(len(domains))
        weights[source] = chosen
        return weights

    # --- the methods ----------------------------------------------------------------------------------

    def adapted(self, method: AdaptMethod) -> tuple[nn.Module, tuple[EpochRecord, ...]]:
        """What a method makes of the teacher, and its epochs.

        Raises:
            ModelError: the network lacks what the method needs.
        """
        network = copy.deepcopy(self.teacher)
        on_features = self.inputs.train.strategy is Strategy.HEAD
        self.progress.message(f"adapt: {method} on {len(self.target)} images of the target")
        match method:
            case AdaptMethod.BN:
                return self._normed(network), ()
            case AdaptMethod.CORAL if on_features:
                return network, self._recoloured(network)
            case AdaptMethod.CORAL:
                return network, self._aligned(network, method, lambda _: distances.coral)
            case AdaptMethod.MMD:
                return network, self._aligned(network, method, lambda _: distances.mmd)
            case AdaptMethod.DANN:
                return network, self._aligned(network, method, partial(self._adversary, network))
            case AdaptMethod.SELF_TRAINING:
                if on_features:
                    return network, self._self_trained_on_features(network)
                return network, self._self_trained(network, self.sets.train)
            case AdaptMethod.CAMERA if on_features:
                return network, self._self_trained_on_features(network, retaken=True)
            case AdaptMethod.CAMERA:
                return network, self._self_trained(network, self._half_retaken())
            case AdaptMethod.WEIGHTED if on_features:
                head, source = self._head(network)
                val = self._features(network, self.sets.val)
                return network, self._fit_head(head, "adapt-weighted", source, val)
            case AdaptMethod.WEIGHTED:
                return network, self._fit(network, "adapt-weighted", self.config.epochs, self.hard, None)
            case AdaptMethod.AUTO:
                raise AssertionError("auto is no single method")
            case _:
                assert_never(method)

    def _normed(self, network: nn.Module) -> nn.Module:
        """Batch norms see the target's statistics. Li et al., "Revisiting Batch Normalization for Practical Domain
        Adaptation" (2016), section 3.
        """
        if not batch_norms(network):
            raise ModelError("The network has no batch norm, whose statistics could be the target's.")
        recalibrate(network, list(plain_views(self.target, _STATISTICS)))
        return network

    def _recoloured(self, network: nn.Module) -> tuple[EpochRecord, ...]:
        """The head learns from source features that have the target's mean and covariance."""
        head, source = self._head(network)
        features = self._features(network, self.target)
        target = torch.from_numpy(_flat(features))
        views, from_source = np.array(source.features), self.sets.train.domains == SOURCE
        for view in views:
            plain = torch.from_numpy(view[from_source])
            view[from_source] = distances.recoloured(plain.flatten(1), target).view(plain.shape).numpy()
        own = dataclasses.replace(
            source, features=views, identity=f"{source.identity} recoloured {features.identity}"
        )
        return self._fit_head(head, "adapt-coral", own, self._features(network, self.sets.val))

    def _self_trained_on_features(
        self, network: nn.Module, *, retaken: bool = False
    ) -> tuple[EpochRecord, ...]:
        """The head learns from the source's labels and from its own for the target, which weigh the same; where the
        source is retaken, first from the source's labels alone, for its images as both cameras take them, and then
        from its surest answers.
        """
        head, source = self._head(network)
        target, val = self._features(network, self.target), self._features(network, self.sets.val)
        history: tuple[EpochRecord, ...] = ()
        if retaken:
            source = self._as_both_cameras(network, source)
            history += self._fit_head(head, "adapt-camera", source, val)
        for number in range(1, _ROUNDS + 1):
            answers = softmax(predict_outputs(head, target)).astype(np.float32)
            share = number / _ROUNDS
            rows, labels = (
                confident(answers, share) if retaken else pseudo_labels(_flat(target), answers, share)
            )
            own = _joined(source, target, rows, labels)
            phase = f"adapt-{'camera-' if retaken else ''}self-{number}"
            history += self._fit_head(head, phase, own, val)
        return history

    def _as_both_cameras(self, network: nn.Module, source: FeatureSet) -> FeatureSet:
        """The source's features, and once more those of its images as the target's camera takes them."""
        data = self.sets.train
        pixels = self._retaken(np.ones(len(data), np.bool_))
        other = self._views(network, dataclasses.replace(data, pixels=pixels))
        weights = source.weights
        return FeatureSet(
            np.concatenate([source.features, other.features], axis=1),
            np.concatenate([source.targets, other.targets]),
            f"{source.identity} {other.identity}",
            None if weights is None else np.concatenate([weights, weights]),
        )

    def _half_retaken(self) -> PixelSet:
        """The source, half of whose images are as the target's camera takes them: an epoch costs as much as before."""
        data = self.sets.train
        drawn = numpy_generator(self.inputs.seed, "retaken").random(len(data)) < 1 / 2
        return dataclasses.replace(data, pixels=self._retaken(drawn))

    def _retaken(self, which: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """The training images' pixels, some of the source's as the target's camera takes them."""
        pixels, source = self.sets.train.pixels, np.asarray(self.sets.train.domains == SOURCE)
        found = camera.measured(pixels, self._unlabelled().pixels, np.flatnonzero(source))
        path = self.out / RETAKEN
        return camera.retake(
            found, pixels, which & source, path, seed=self.inputs.seed, progress=self.progress
        )

    def _self_trained(self, network: nn.Module, train: PixelSet) -> tuple[EpochRecord, ...]:
        """The network learns from the source's labels and from its own for the target, more of them in each round."""
        further = self._unlabelled()
        history: tuple[EpochRecord, ...] = ()
        rounds = min(_ROUNDS, self.config.epochs)
        for number in range(1, rounds + 1):
            answers = softmax(predict_outputs(network, self.target)).astype(np.float32)
            if train is self.sets.train:
                features = _flat(self._features(network, self.target))
                rows, labels = pseudo_labels(features, answers, number / rounds)
            else:
                rows, labels = confident(answers, number / rounds)
            guessed = dataclasses.replace(further, pixels=further.pixels[rows], guessed=labels)
            first, last = (self.config.epochs * part // rounds for part in (number - 1, number))
            phase = f"adapt-{'' if train is self.sets.train else 'camera-'}self-{number}"
            history += self._fit(network, phase, last - first, self.hard, guessed, train)
        return history

    def _aligned(
        self, network: nn.Module, method: AdaptMethod, distance: Callable[[int], Distance]
    ) -> tuple[EpochRecord, ...]:
        """The network learns from the source's labels while a distance of the domains' features shrinks.

        Args:
            network: the teacher's copy.
            method: names the phase.
            distance: of so many steps of training.
        """
        further, epochs = self._unlabelled(), self.config.epochs
        steps = epochs * len(step_sizes(len(self.sets.train), self.inputs.train.batch_size, further.share))
        objective = Aligned(
            hard=self.hard, distance=distance(steps), layer=self.layer, weight=self.config.weight
        )
        return self._fit(network, f"adapt-{method}", epochs, objective, further)

    def _adversary(self, network: nn.Module, steps: int) -> Adversary:
        width = _flat(self._features(network, self.target)).shape[1]
        return Adversary(width, steps=steps, seed=derive(self.inputs.seed, "adversary"))

    # --- what they share ------------------------------------------------------------------------------

    def _fit(
        self,
        network: nn.Module,
        phase: str,
        epochs: int,
        objective: Objective,
        further: Unlabelled | None,
        train: PixelSet | None = None,
    ) -> tuple[EpochRecord, ...]:
        """As the last phase of the teacher's training, with target images in each step. The last epoch counts: the
        source's validation split cannot say which is best for the target.
        """
        fitting = dataclasses.replace(
            _last_epoch(self.planned[-1], phase), epochs=epochs, lr=self.config.lr, mixing=None, accumulate=1
        )
        return fit(
            network,
            fitting,
            task=self.task,
            train=self.sets.train if train is None else train,
            val=self.sets.val,
            objective=objective,
            state=self.out / f"{phase}.state",
            progress=self.progress,
            unlabelled=further,
            start=NO_START,
        )

    def _fit_head(
        self, head: nn.Module, phase: str, train: FeatureSet, val: FeatureSet
    ) -> tuple[EpochRecord, ...]:
        """As in the teacher's training, on other features."""
        return fit(
            head,
            _last_epoch(self.planned[-1], phase),
            task=self.task,
            train=train,
            val=val,
            objective=self.hard,
            state=self.out / f"{phase}.state",
            progress=self.progress,
            start=NO_START,
        )

    def _head(self, network: nn.Module) -> tuple[nn.Module, FeatureSet]:
        """The head as a network of its own, and the source's features as in the teacher's training.

        Raises:
            ModelError: the features cannot be cached.
        """
        head = head_of(network, (self.layer,), self.inputs.spec.size)
        source = self._views(network, self.sets.train)
        return head, dataclasses.replace(source, weights=self.sets.train.weights)

    def _views(self, network: nn.Module, data: PixelSet) -> FeatureSet:
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

    def _features(self, network: nn.Module, data: PixelSet) -> FeatureSet:
        return compute(network, (self.layer,), data, self.out, progress=self.progress)

    def _outputs(self, network: nn.Module, data: PixelSet) -> NDArray[np.float32]:
        """A network's outputs (N, D). Networks that differ in their heads alone share the features of the images."""
        if self.inputs.train.strategy is not Strategy.HEAD:
            return predict_outputs(network, data)
        try:
            head = head_of(network, (self.layer,), self.inputs.spec.size)
        except ModelError:
            return predict_outputs(network, data)  # The last layer is not all that follows the features.
        return predict_outputs(head, self._features(network, data))

    def _unlabelled(self) -> Unlabelled:
        inputs, share = self.inputs, self.config.share
        opened = open_unlabelled(inputs.target, inputs.spec, inputs.pixels_dir, self.progress, share=share)
        return dataclasses.replace(opened, target_domain=True)

    # --- the choice -----------------------------------------------------------------------------------

    def choose(self, networks: dict[str, nn.Module]) -> Choice:
        """See `edgetl.train.adapt.choice`."""
        truths, seed = self.sets.val.targets, self.inputs.seed
        source = self.val_domains == SOURCE
        features = _flat(self._features(self.teacher, self.sets.val))[source]
        weights = density_ratios(features, _flat(self._features(self.teacher, self.target)), seed)
        self.val: dict[str, float] = {}
        self.right: dict[str, NDArray[np.bool_]] = {}
        scored = {}
        for name, network in networks.items():
            outputs = self._outputs(network, self.sets.val)
            self.val[name] = value(self.task.evaluate(truths, outputs, resamples=0), self.metric)
            self.right[name] = outputs.argmax(1) == truths
            scored[name] = Scored(
                source=outputs[source],
                right=self.right[name][source],
                target=self._outputs(network, self.target),
            )
        return choose(scored, weights, NO_METHOD, seed)

    def scored(self, one: AdaptTry, made: int, choice: Choice, *, decides: bool) -> AdaptTry:
        """With its figures, where it made a network.

        Args:
            one: what was tried.
            made: how many methods made a network: each p value is multiplied by it (Bonferroni), since the best counts.
            choice: without labels of the target.
            decides: it is taken.
        """
        if (name := one.method) not in choice.density:
            return one
        target, p_value = None, None
        if (labelled := self.val_domains == TARGET).any():
            before, after = self.right[NO_METHOD][labelled], self.right[name][labelled]
            target = float(after.mean())
            lost, won = discordant(before, after)
            p_value = None if name == NO_METHOD else min(1.0, made * binomial_tail(won, lost + won))
        weakness = choice.ruled_out.get(name, "")
        return dataclasses.replace(
            one,
            val=self.val[name],
            weighted=choice.weighted.get(name),
            density=choice.density[name],
            note=f"ruled out: {weakness}" if weakness and decides else weakness,
            target=target,
            p_value=p_value,
        )


def _last_epoch(planned: Fitting, phase: str) -> Fitting:
    return dataclasses.replace(planned, phase=phase, select=None, patience=0, spread=False)


def _flat(data: FeatureSet) -> NDArray[np.float32]:
    """(N, D): each image's first view."""
    return np.array(data.features[0]).reshape(len(data), -1)


def _joined(
    source: FeatureSet, target: FeatureSet, rows: NDArray[np.int64], labels: NDArray[np.int64]
) -> FeatureSet:
    """Both domains' features, the rarer ones repeated until both come about equally often."""
    own, other = np.arange(len(source)), np.arange(len(rows))
    own = np.tile(own, max(1, round(len(other) / len(own))))
    other = np.tile(other, max(1, round(len(source) / len(other))))
    views = len(source.features)
    features = np.concatenate(
        [source.features[:, own], np.repeat(target.features[:, rows[other]], views, axis=0)], axis=1
    )
    targets = np.concatenate([source.targets[own], labels[other]])
    weights = None if source.weights is None else np.concatenate([source.weights[own], np.ones(len(other))])
    return FeatureSet(features, targets, f"{source.identity} {target.identity} {len(rows)}", weights)
