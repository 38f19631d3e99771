"""The stage before training: the backbone learns elsewhere first; `edgetl.train.starts` says whether that helped."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.config import Augment, PretrainConfig, PretrainMethod, Strategy, TaskConfig, TrainConfig
from edgetl.data.index import DataIndex
from edgetl.data.pixels import open_pixels
from edgetl.data.splits import spread
from edgetl.errors import DataError
from edgetl.files import read_json, write_json
from edgetl.inputs.image import PreprocessSpec
from edgetl.keys import UNKEYED
from edgetl.models import checkpoint
from edgetl.models.architecture import describe
from edgetl.models.size import OWN_SIZE, check_takes
from edgetl.progress import SILENT, Progress
from edgetl.records.lineage import LineageStep
from edgetl.records.train import EpochRecord, PretrainRecord, TrainRecord
from edgetl.tasks.metrics import chosen, metric
from edgetl.train import stage as training
from edgetl.train.devices import device_of
from edgetl.train.evaluate import predict_outputs
from edgetl.train.lineage import as_metadata, lineage_before, lineage_step
from edgetl.train.loop import NO_START, Fitting, fit
from edgetl.train.objective import Objective
from edgetl.train.pretrain.backbone import last_map, width_of, without_head
from edgetl.train.pretrain.contrast import Alike
from edgetl.train.pretrain.follow import Follow, teacher_of
from edgetl.train.pretrain.probe import Probed, ProbedTask
from edgetl.train.pretrain.rebuild import Denoise, Masked, Variational
from edgetl.train.processes import launched
from edgetl.train.seeds import derive
from edgetl.train.sets import PixelSet, with_margin
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.base import TrainingTask

CHECKPOINT = "backbone.safetensors"
_STATE, _TAUGHT = "pretrain.state", "source.json"
SOURCE = "source"
"""What `PretrainRecord.kind` calls learning from a labelled set."""
_PROBED = 2000
"""Training images, at most, to which a probe is fitted."""


@dataclass(frozen=True, kw_only=True)
class PretrainInputs:
    """What the stage reads.

    Attributes:
        index: the data at hand.
        further: what is learned first: the source, or images without labels.
        train: the settings that it shares with training; see `shared`.
        spec: evaluation's preprocessing.
        pixels_dir: folder of decoded pixels, shared by the stages.
        seed: of everything random.
        task: the recipe's settings of the task.
        held_out: images that were left out of `further`.
    """

    index: DataIndex
    further: DataIndex
    train: TrainConfig
    spec: PreprocessSpec
    pixels_dir: Path = field(metadata=UNKEYED)
    seed: int
    task: TaskConfig
    held_out: int = 0


def shared(config: PretrainConfig, train: TrainConfig) -> TrainConfig:
    """What of training's settings holds before it too, so that a change of the others leaves the stage as it is.

    A source is trained on with all layers, whatever the strategy, and its epochs are chosen by its own usual metric.
    """
    if config.source is not None:
        own = {"epochs": config.epochs, "lr": config.lr, "batch_size": config.batch_size}
        usual = {"strategy": Strategy.FULL, "select": None, "trackers": ()}
        return train.model_copy(update={**own, **usual})
    kept = ("backbone", "weights", "augment", "weight_decay", "precision", "select")
    return TrainConfig().model_copy(update={name: getattr(train, name) for name in kept})


def run(
    config: PretrainConfig, inputs: PretrainInputs, *, out: Path, progress: Progress = SILENT
) -> PretrainRecord:
    """Let the backbone learn first, write it into `out`, and look at its features.

    Features of labelled training images (at most 2,000) are computed by the pretrained backbone and by the one that it
    began as, a linear probe is fitted to each, and both answer the same images of the validation split, scored by
    `train.select` or the task's usual metric. A probe sees the features as they are, not what fine-tuning makes of
    them: it costs little, and misses much of what helps, mostly where training begins with random weights. It is
    shown, and decides nothing. The last epoch is probed, and not the best of them, which the validation split chose.

    A run that was stopped goes on after its last epoch. Of several processes the first one calls this, and the others
    `teach_source` where there is a source.

    Raises:
        WeightsError: the weights cannot be had or do not fit.
        ModelError: unknown backbone, or one that the method cannot take.
        DataError: too few images to compare.
        ImageError: an image cannot be decoded.
        TrainingError: training cannot go on.
        Interrupted: Ctrl-C.
        StorageError: a file cannot be written.
    """
    begun = time.perf_counter()
    task, size = training_task(inputs.index.task, inputs.task), inputs.spec.size
    model = _network(task, inputs, inputs.train.weights)
    check_takes(model, size, inputs.train.backbone, OWN_SIZE)
    probed, labelled = _labelled(task, inputs, progress)
    before = _features(task, model, labelled)
    progress.message(f"pretrain: {inputs.train.backbone} learns first: {_subject(config, inputs)}")
    paused = time.perf_counter()
    if config.source is not None:
        taught = (
            read_json(out / _TAUGHT, TrainRecord)
            if source_is_done(out)
            else teach_source(inputs, out=out, progress=progress)
        )
        path, epochs, spent = out / training.CHECKPOINT, taught.epochs, taught.seconds
    else:
        path = out / CHECKPOINT
        epochs = _learn(task, model, config, inputs, probed, labelled, out, progress)
        spent = sum(epoch.seconds for epoch in epochs)
        extra = checkpoint.provenance((), inputs.spec) | as_metadata(_lineage(config, inputs))
        checkpoint.save(model, describe(model, inputs.train.backbone, task.width, size), path, extra)
    spent += paused - begun
    begun = time.perf_counter()
    after = _features(task, _network(task, inputs, path), labelled)
    found = probed.compare(labelled.targets, before, after, seed=inputs.seed)
    record = PretrainRecord(
        kind=SOURCE if config.source is not None else config.method.value,
        name=inputs.further.root.name or str(inputs.further.root),
        checkpoint=f"{out.name}/{path.name}",
        backbone=inputs.train.backbone,
        images=len(inputs.further.split("train")),
        held_out=inputs.held_out,
        classes=inputs.further.labels,
        epochs=epochs,
        probe=found,
        lineage=lineage_before(path),
        seconds=spent + time.perf_counter() - begun,
    )
    title = metric(found.metric).title
    progress.message(f"pretrain: a linear probe's {title} goes from {found.before:.1%} to {found.after:.1%}")
    for name in (_STATE, _TAUGHT):
        (out / name).unlink(missing_ok=True)
    return record


def teach_source(inputs: PretrainInputs, *, out: Path, progress: Progress = SILENT) -> TrainRecord:
    """Train on the source as `edgetl.train.stage` trains on the data, with every process that was launched."""
    own = training.TrainInputs(
        index=inputs.further,
        spec=inputs.spec,
        pixels_dir=inputs.pixels_dir,
        seed=inputs.seed,
        task=inputs.task,
    )
    record = training.run(inputs.train, own, out=out, progress=progress)
    if launched().main:
        write_json(out / _TAUGHT, record)
    return record


def source_is_done(out: Path) -> bool:
    """Whether `teach_source` went to its end in this folder, in a run that was stopped after it."""
    return (out / _TAUGHT).is_file()


def _network(task: TrainingTask, inputs: PretrainInputs, weights: str | Path) -> nn.Module:
    """The network as training would begin with it."""
    seed = derive(inputs.seed, "weights")
    return task.network(inputs.train.backbone, weights, seed=seed, size=inputs.spec.size)


def _labelled(task: TrainingTask, inputs: PretrainInputs, progress: Progress) -> tuple[Probed, PixelSet]:
    """Training images to which a probe is fitted, then the validation split, all as evaluation sees them."""
    index, spec = inputs.index, inputs.spec
    own, asked = spread(index.split("train"), _PROBED), index.split("val")
    samples = (*own, *asked)
    pixels = open_pixels(samples, spec, inputs.pixels_dir, progress)
    targets = task.targets(samples, spec)
    select = inputs.train.select
    usual = task.selection(targets[: len(own)])
    name = usual if select is None else chosen(select, task.metrics, setting="train.select")
    return Probed(task=task, fitted=len(own), metric=name), PixelSet(pixels, targets, spec)


def _features(task: TrainingTask, model: nn.Module, data: PixelSet) -> NDArray[np.float32]:
    """What the network's head gets to see: (N, F)."""
    home = device_of(model)
    model.to("cuda" if torch.cuda.is_available() else home)
    with without_head(model, task.output_layers(model)) as backbone:
        width_of(backbone, data.spec.size)
        found = predict_outputs(backbone, data)
    model.to(home)
    return found


def _learn(
    task: TrainingTask,
    model: nn.Module,
    config: PretrainConfig,
    inputs: PretrainInputs,
    probed: Probed,
    labelled: PixelSet,
    out: Path,
    progress: Progress,
) -> tuple[EpochRecord, ...]:
    """Fit the network without its head, in place, to images without labels."""
    spec, samples = inputs.spec, inputs.further.samples
    if config.method.compares and len(samples) < 2:
        raise DataError(
            f"pretrain.images: {config.method} compares images, and {inputs.further.root} gives one; add others, or"
            ' set pretrain.method = "masked".'
        )
    pixels = open_pixels(samples, with_margin(spec), inputs.pixels_dir, progress)
    images = PixelSet(pixels, np.zeros(len(samples), dtype=np.int64), spec)
    augment = inputs.train.augment
    fitting = Fitting(
        phase="pretrain",
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=inputs.train.weight_decay,
        augment=augment,
        seed=inputs.seed,
        precision=inputs.train.precision,
    )
    mirror = augment not in (Augment.NONE, Augment.CROP)
    with without_head(model, task.output_layers(model)) as backbone:
        return fit(
            backbone,
            fitting,
            task=ProbedTask(probed, pairs=config.method.compares, mirror=mirror),
            train=images,
            val=labelled,
            objective=_objective(config, backbone, spec, derive(inputs.seed, "pretrain", "modules")),
            state=out / _STATE,
            progress=progress,
            start=NO_START,
        )


def _objective(config: PretrainConfig, backbone: nn.Module, spec: PreprocessSpec, seed: int) -> Objective:
    """The loss of the method."""
    size = spec.size
    width = width_of(backbone, size)
    match config.method:
        case PretrainMethod.SIMCLR:
            return Alike(width, spec, temperature=config.temperature, seed=seed)
        case PretrainMethod.VICREG:
            return Alike(width, spec, temperature=None, seed=seed)
        case PretrainMethod.MASKED:
            given = last_map(backbone, size)
            return Masked(given, size, share=config.mask, per_side=config.mask_cells, seed=seed)
        case PretrainMethod.DENOISE:
            return Denoise(last_map(backbone, size), size, noise=config.noise, seed=seed)
        case PretrainMethod.VAE:
            return Variational(width, size, seed=seed)
        case PretrainMethod.FEATURES:
            assert config.teacher is not None
            return Follow(width, teacher_of(config.teacher, spec), size, seed=seed)
        case _:
            assert_never(config.method)


def _lineage(config: PretrainConfig, inputs: PretrainInputs) -> tuple[LineageStep, ...]:
    """What the backbone has learned after learning from images without labels."""
    return (*lineage_before(inputs.train.weights), lineage_step(config.method.value, inputs.further))


def _subject(config: PretrainConfig, inputs: PretrainInputs) -> str:
    """What is learned from, in words."""
    kind = SOURCE if config.source is not None else config.method.value
    return lineage_step(kind, inputs.further).words
