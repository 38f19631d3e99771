"""The teacher, adapted to images of another domain without their labels."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgetl.config import AdaptConfig, AdaptMethod, Strategy, TrainConfig
from edgetl.data.index import DataIndex
from edgetl.errors import ConfigError, ModelError
from edgetl.models import checkpoint
from edgetl.progress import SILENT, Progress
from edgetl.records.adapt import NO_METHOD, AdaptRecord, AdaptTry
from edgetl.records.scores import value
from edgetl.records.train import EpochRecord, TrainRecord, phases_kept
from edgetl.statistics import binomial_tail, discordant
from edgetl.tasks.base import Classification
from edgetl.train.adapt.choice import LEVEL, Choice, Scored, choose, density_ratios
from edgetl.train.adapt.domains import FEW_IMAGES, RETAKEN_VAL, AdaptInputs, Domains, flat
from edgetl.train.adapt.methods import LEAST, RETAKEN, Methods, too_small
from edgetl.train.adapt.objective import SOURCE, TARGET
from edgetl.train.evaluate import score_splits
from edgetl.train.loader import step_sizes
from edgetl.train.phases import HEAD_PHASE
from edgetl.train.sets import PixelSet, Sets
from edgetl.train.tasks.base import TrainingTask

CHECKPOINT = "adapted.safetensors"
ADAPTED = "edgetl.adapted"
"""Key of a checkpoint's metadata: the method."""
_SAME_SCENES = 1 / 2
"""Where a change of the camera explains so much of the distance between the domains, they show the same scenes: 67 to
82% of it for changed cameras, at most 1% between the places of `office_caltech10` (`tests/slow/test_adaptation.py`)."""
_MOVES_FEATURES = (AdaptMethod.MMD, AdaptMethod.DANN)
_COMPARES = (AdaptMethod.CORAL, *_MOVES_FEATURES)
"""Methods that compare the features of the two domains in each step, where the backbone learns."""


def methods(config: AdaptConfig, strategy: Strategy, *, judged: bool) -> tuple[AdaptMethod, ...]:
    """What is tried: the method that is asked for, or all that the strategy allows and that can be chosen.

    Where no labels judge, `auto` goes by how dense the answers are. That says nothing of methods whose loss draws the
    domains' features together, which makes answers dense whether they are right or wrong: fine-tuned between places
    `dann` had the densest in three pairs of four, and lost 13 points there (`tests/slow/test_adaptation.py`). Those of
    `camera` lay densest too, and were worse than others. So these are left out then.

    Args:
        config: what is asked for.
        strategy: of the teacher's training.
        judged: there are labels to judge by, of the target or of images as its camera takes them.

    Raises:
        ConfigError: the method moves features that the strategy freezes.
    """
    frozen = strategy is Strategy.HEAD
    if config.method is AdaptMethod.AUTO:
        found = [method for method in AdaptMethod if method is not AdaptMethod.AUTO]
        if not config.weighs:
            found.remove(AdaptMethod.WEIGHTED)
        if not judged:
            found = [method for method in found if method not in (*_COMPARES, AdaptMethod.CAMERA)]
        return tuple(method for method in found if not (frozen and method in _MOVES_FEATURES))
    if frozen and config.method in _MOVES_FEATURES:
        raise ConfigError(
            f'adapt.method = "{config.method}" moves the features, which train.strategy = "head" freezes; take "bn",'
            ' "coral", "self_training", "camera" or "auto", or another strategy.'
        )
    return (config.method,)


def as_learned(config: AdaptConfig, train: TrainConfig, trained: TrainRecord) -> TrainConfig:
    """The settings of the teacher's training, by the strategy that made it.

    Where the epochs in which further layers learned were undone, since the head alone scored higher, the teacher is one
    of which only the head learned: it adapts as such, on cached features, unless a method that moves the features is
    asked for. In so few epochs as an adaptation has its other layers would lose more than they learn.
    """
    undone = train.strategy is not Strategy.HEAD and phases_kept(trained.epochs) == (HEAD_PHASE,)
    if not undone or config.method in _MOVES_FEATURES:
        return train
    epochs = sum(epoch.phase == HEAD_PHASE for epoch in trained.epochs)
    return train.model_copy(update={"strategy": Strategy.HEAD, "epochs": epochs})


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
    methods(config, train.strategy, judged=True)
    if config.method in _COMPARES and train.strategy is not Strategy.HEAD:
        sizes = step_sizes(len(index.split("train")), train.batch_size, config.share)
        if reason := too_small(sizes):
            raise ConfigError(
                f"adapt.method = {config.method} {reason} (train.batch_size = {train.batch_size}, adapt.share ="
                f" {config.share:g}). Take a larger batch, a share nearer to 0.5, or another method, as bn."
            )
    if config.domain is None:
        return
    domains = {sample.domain for sample in index.samples if sample.domain}
    if config.domain not in domains:
        known = f"it holds {', '.join(sorted(domains))}" if domains else "there is none"
        raise ConfigError(
            f"adapt.domain is {config.domain!r}, which no image has in the CSV's column domain; {known}."
        )
    if (source := sum(s.domain != config.domain for s in index.split("train"))) < LEAST:
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
    taken, unless it made nothing. Where a change of the camera explains how the target differs, `auto` tries all of
    them, and the source's validation images as the target's camera takes them stand in for labelled ones of the target.
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
    for path in [*out.glob("*.state"), *out.glob("features-*.npy"), out / RETAKEN, out / RETAKEN_VAL]:
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
        explained=found.explained,
        retaken=found.retaken,
        sure=found.choice.sure,
        tries=found.tries,
        epochs=found.epochs,
        val=val,
        test=test,
        seconds=time.perf_counter() - begun,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempts:
    """The networks by method, the teacher as it was among them; what is recorded of each; and what `auto` takes.
    `explained` and `retaken` as in the record."""

    networks: dict[str, nn.Module]
    tries: tuple[AdaptTry, ...]
    epochs: tuple[EpochRecord, ...]
    choice: Choice
    metric: str
    task: TrainingTask
    sets: Sets
    labelled: int
    explained: float | None
    retaken: int

    def taken(self, asked: AdaptMethod) -> str:
        """The network that is taken, of a method that was asked for or of any."""
        if self.labelled:
            others = [one for one in self.tries if one.target is not None and one.method != NO_METHOD]
            best = max(others, key=lambda one: one.target or 0.0, default=None)
            helped = best is not None and best.p_value is not None and best.p_value < LEVEL
            return best.method if best is not None and helped else NO_METHOD
        if asked is AdaptMethod.AUTO:
            return self.choice.name
        return str(asked) if asked in self.networks else NO_METHOD


def attempts(config: AdaptConfig, inputs: AdaptInputs, *, out: Path, progress: Progress = SILENT) -> Attempts:
    """What each method makes of the teacher; raises as `run` does."""
    check(config, inputs.train, inputs.index)
    check_images(config, inputs.target, inputs.index)
    domains = Domains(config, inputs, out, progress)
    decides = config.method is AdaptMethod.AUTO and not domains.labelled
    found = domains.retaken() if decides else None
    explained = None if found is None else found[1]
    retaken = None if found is None or found[1] < _SAME_SCENES else found[0]
    makes = Methods(domains)
    networks = {NO_METHOD: domains.teacher}
    tries, epochs = [AdaptTry(method=NO_METHOD)], tuple[EpochRecord, ...]()
    judged = domains.labelled > 0 or retaken is not None
    for method in methods(config, inputs.train.strategy, judged=judged):
        started = time.perf_counter()
        try:
            network, history = makes.adapted(method)
        except ModelError as error:
            tries.append(AdaptTry(method=method, note=str(error)))
            progress.warning(f"adapt: {method} was not tried. {error}")
            continue
        networks[method], epochs = network, epochs + history
        tries.append(AdaptTry(method=method, seconds=time.perf_counter() - started))
    verdict = Verdict(domains, networks, retaken)
    return Attempts(
        networks=networks,
        tries=tuple(verdict.scored(one, decides=decides) for one in tries),
        epochs=epochs,
        choice=verdict.choice,
        metric=domains.metric,
        task=domains.task,
        sets=domains.sets,
        labelled=domains.labelled,
        explained=explained,
        retaken=0 if retaken is None else len(retaken),
    )


class Verdict:
    """What is known of networks: which of the images with labels they get right, and the choice without labels of the
    target (`edgetl.train.adapt.choice`).

    Args:
        domains: the images.
        networks: by method, the teacher as it was among them.
        retaken: labelled images of the source as the target's camera takes them, which stand in for the target's.
    """

    def __init__(self, domains: Domains, networks: dict[str, nn.Module], retaken: PixelSet | None) -> None:
        self.domains, self.made = domains, len(networks) - 1
        truths, seed = domains.sets.val.targets, domains.inputs.seed
        source = domains.val_domains == SOURCE
        weights = None
        if retaken is None:
            features = flat(domains.features(domains.teacher, domains.sets.val))[source]
            weights = density_ratios(features, flat(domains.features(domains.teacher, domains.target)), seed)
        self.val: dict[str, float] = {}
        self.right: dict[str, NDArray[np.bool_]] = {}
        scored = {}
        for name, network in networks.items():
            outputs = domains.outputs(network, domains.sets.val)
            self.val[name] = value(domains.task.evaluate(truths, outputs, resamples=0), domains.metric)
            self.right[name] = outputs.argmax(1) == truths
            judges, right = outputs[source], self.right[name][source]
            if retaken is not None:
                judges = domains.outputs(network, retaken)
                right = judges.argmax(1) == retaken.targets
            scored[name] = Scored(source=judges, right=right, target=domains.outputs(network, domains.target))
        self.choice = choose(scored, weights, NO_METHOD, seed)

    def scored(self, one: AdaptTry, *, decides: bool) -> AdaptTry:
        """With its figures, where it made a network.

        Args:
            one: what was tried.
            decides: the choice without labels of the target is taken.
        """
        choice = self.choice
        if (name := one.method) not in choice.density:
            return one
        target, p_value = None, None
        if (labelled := self.domains.val_domains == TARGET).any():
            before, after = self.right[NO_METHOD][labelled], self.right[name][labelled]
            target = float(after.mean())
            lost, won = discordant(before, after)
            # Times the methods that made a network (Bonferroni), since the best counts.
            p_value = None if name == NO_METHOD else min(1.0, self.made * binomial_tail(won, lost + won))
        weakness = choice.ruled_out.get(name, "")
        return dataclasses.replace(
            one,
            val=self.val[name],
            weighted=choice.accuracy.get(name),
            density=choice.density[name],
            note=f"ruled out: {weakness}" if weakness and decides else weakness,
            target=target,
            p_value=p_value,
        )
