"""The teacher: a pretrained backbone with a new head, trained by the recipe's strategy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from edgetl.config import ClassificationConfig, Episodes, LabelsConfig, Strategy, TaskConfig, TrainConfig
from edgetl.data.index import DataIndex
from edgetl.errors import ModelError
from edgetl.inputs.image import PreprocessSpec
from edgetl.keys import UNKEYED
from edgetl.models import checkpoint
from edgetl.models.architecture import describe
from edgetl.models.backbones import NO_WEIGHTS
from edgetl.models.norms import batch_norms, rebase
from edgetl.models.size import OWN_SIZE, check_takes, network_size
from edgetl.progress import SILENT, Progress
from edgetl.records.train import EpochRecord, TrainRecord, phases_kept
from edgetl.tasks.base import Detection
from edgetl.tasks.metrics import chosen
from edgetl.train import episodes as few
from edgetl.train.evaluate import score_splits
from edgetl.train.extend.before import Before, inherit, judge, remembering
from edgetl.train.extend.nearest import nearest_means
from edgetl.train.features import compute, head_of, plain_views
from edgetl.train.freezing import frozen_norms
from edgetl.train.lineage import as_metadata, lineage_before, lineage_step
from edgetl.train.loop import NO_START, fit, reached
from edgetl.train.objective import Hard, Need, Objective
from edgetl.train.phases import HEAD_PHASE, phases, with_episodes
from edgetl.train.processes import launched, main_first
from edgetl.train.seeds import derive
from edgetl.train.sets import FeatureSet, PixelSet, Sets, open_sets
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.base import Targets, TrainingTask, output_parameters
from edgetl.train.trackers import tracking

CHECKPOINT = "teacher.safetensors"
_REBASED_ON = 512
"""Training images from which batch norms get their statistics, at most."""


@dataclass(frozen=True, kw_only=True)
class TrainInputs:
    """What the stage reads.

    Attributes:
        index: the images and their splits.
        spec: evaluation's preprocessing.
        pixels_dir: folder of decoded pixels, shared by the stages.
        seed: of everything random.
        task: the recipe's settings of the task.
        start: a checkpoint whose backbone is begun with, in place of `train.weights`.
        labels: those of the relation of its classes.
        before: the network of a finished run that goes on, in place of `train.weights`.
        episodes: the last phase, where there is one; see `edgetl.train.few_shot`.
    """

    index: DataIndex
    spec: PreprocessSpec
    pixels_dir: Path = field(metadata=UNKEYED)
    seed: int
    task: TaskConfig = field(default_factory=ClassificationConfig)
    start: Path | None = None
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    before: Before | None = None
    episodes: Episodes = Episodes.NONE


def run(config: TrainConfig, inputs: TrainInputs, *, out: Path, progress: Progress = SILENT) -> TrainRecord:
    """Train the teacher and write `out/teacher.safetensors`.

    Where several processes were launched, each must call this; the first one writes. The epoch that is best on the
    validation split is chosen. A run that was stopped goes on after its last epoch.

    A classifier that learned elsewhere has its batch norms put into terms of the training images first
    (`edgetl.models.norms.rebase`). It computes what it did; but in training a norm sees its own batch's statistics, and
    where images look otherwise than those it learned from, as in greys, its first step would be that of another network
    than the one to whose features the head had been fitted.

    Raises:
        WeightsError: the pretrained weights cannot be had or do not fit.
        ModelError: unknown backbone.
        ImageError: an image cannot be decoded.
        TrainingError: training cannot go on.
        Interrupted: Ctrl-C.
        StorageError: a file cannot be written.
        MissingDependencyError: a tracker is not installed.
    """
    index, seed = inputs.index, inputs.seed
    task = training_task(index.task, inputs.task, inputs.labels)
    before = inputs.before
    weights = config.weights if inputs.start is None else inputs.start
    if before is not None:
        weights = before.checkpoint
    model = task.network(config.backbone, weights, seed=derive(seed, "weights"), size=inputs.spec.size)
    if before is not None:
        inherit(model, task, before)
    kind = "train" if before is None else "extend"
    lineage = (*lineage_before(weights), lineage_step(kind, index))
    check_takes(model, inputs.spec.size, config.backbone, OWN_SIZE)
    with main_first():
        sets = open_sets(index, inputs.spec, inputs.pixels_dir, progress)
    metric = selecting(config, task, sets.train.targets)
    # The norms of a detector's new parts have no statistics yet, as those of random weights.
    rebased = before is None and str(weights) != NO_WEIGHTS and not isinstance(index.task, Detection)
    if rebased:
        rebase(model, [*batch_norms(model)], _seen(sets.train, progress))
    history: tuple[EpochRecord, ...] = ()
    # The handful of boxes that a new detector guesses right is no start to go back to.
    start = NO_START if isinstance(index.task, Detection) else None
    begun = time.perf_counter()
    hard = Hard(hard_loss=task.hard_loss(config, sets.train.targets), penalty=task.penalty)
    objective: Objective = hard if before is None else remembering(hard, task, before)
    on_features = None
    if (
        Need.IMAGES not in objective.needs
        and not isinstance(index.task, Detection)
        and (config.strategy is Strategy.HEAD or config.head_epochs != 0)
    ):
        try:
            on_features = _on_features(task, model, sets, config, seed, out, progress)
        except ModelError as error:
            progress.warning(
                f"{error} The head's epochs run the whole network, of which only the head learns."
            )
    planned = phases(config, seed, metric, task, on_features=on_features is not None)
    planned = with_episodes(planned, config, inputs.episodes)
    prepared = time.perf_counter() - begun
    states = []
    settings = config.model_dump(mode="json")
    with tracking(config.trackers, out / "curves", config.backbone, settings) as listen:
        for number, fitting in enumerate(planned):
            states.append(out / f"{fitting.phase}.state")
            learner: nn.Module = model
            train: PixelSet | FeatureSet = sets.train
            val_set: PixelSet | FeatureSet = sets.val
            if number == 0 and on_features is not None:
                learner, train, val_set = on_features
            own, before_it = objective, start
            if fitting.episodic is not None:  # judged beforehand, and not by this score
                own = few.objective(inputs.episodes, objective, task.output_layers(model)[0])
                before_it = NO_START
            epochs = fit(
                learner,
                fitting,
                task=task,
                train=train,
                val=val_set,
                objective=own,
                state=states[-1],
                progress=progress,
                listen=listen,
                start=before_it,
            )
            if epochs:
                start = reached(epochs, metric, best=True)
            history += epochs
    begun = time.perf_counter()
    learned = phases_kept(history)
    learning = [
        partial(output_parameters, task) if p.phase == HEAD_PHASE else p.trainable
        for p in planned
        if p.phase in learned
    ]
    if (frozen := frozen_norms(model, learning)) and not rebased:
        rebase(model, frozen, _seen(sets.train, progress))
    nearest = None
    if before is not None:
        nearest = nearest_means(model, task, sets, out=out, seed=seed, progress=progress)
        if nearest is not None:
            progress.message(f"extend: {nearest.note}")
    val, test = score_splits(task, model, sets)
    if launched().main:
        architecture = describe(model, config.backbone, task.width, inputs.spec.size)
        extra = checkpoint.provenance(index.labels, inputs.spec) | as_metadata(lineage)
        if frozen:
            extra[checkpoint.REBASED] = str(len(frozen))
        checkpoint.save(model, architecture, out / CHECKPOINT, extra)
    record = TrainRecord(
        checkpoint=f"{out.name}/{CHECKPOINT}",
        backbone=config.backbone,
        size=network_size(model, inputs.spec.size),
        epochs=history,
        val=val,
        test=test,
        seconds=prepared + sum(e.seconds for e in history) + time.perf_counter() - begun,
        lineage=lineage,
        kept=None if before is None else judge(model, index, sets.val, before),
        nearest=nearest,
    )
    if launched().main:
        for path in [*states, *out.glob("features-*.npy")]:
            path.unlink(missing_ok=True)
    return record


def _seen(data: PixelSet, progress: Progress) -> Iterator[Tensor]:
    """The training images by which batch norms' statistics are measured."""
    with progress.task("Statistics of the images", total=min(len(data), _REBASED_ON)) as bar:
        for batch in plain_views(data, _REBASED_ON):
            yield batch
            bar.advance(len(batch))


def selecting(config: TrainConfig, task: TrainingTask, targets: Targets) -> str:
    """The metric that chooses among epochs and networks: the recipe's, or the usual one for the training targets."""
    if config.select is None:
        return task.selection(targets)
    return chosen(config.select, task.metrics, setting="train.select")


def _on_features(
    task: TrainingTask,
    model: nn.Module,
    sets: Sets,
    config: TrainConfig,
    seed: int,
    out: Path,
    progress: Progress,
) -> tuple[nn.Module, FeatureSet, FeatureSet]:
    """The head as a network of its own, and what it is fed."""
    outputs = task.output_layers(model)
    head = head_of(model, outputs, sets.val.spec.size)
    views, augment = config.feature_views, config.augment
    with main_first():
        train = compute(
            model, outputs, sets.train, out, views=views, augment=augment, seed=seed, progress=progress
        )
        val = compute(model, outputs, sets.val, out, progress=progress)
    return head, train, val
