"""Whether a phase of episodes helps with classes that are added later, tried on training classes that are left out.

A quarter of the classes, drawn by the seed, is left out; a teacher is trained on the others and goes through the phase.
Before and after it, the classes that it never saw are recognised from one and from five pictures each.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgetl.config import Episodes, TrainConfig
from edgetl.data.index import DataIndex
from edgetl.errors import ConfigError
from edgetl.models import checkpoint
from edgetl.progress import SILENT, Progress
from edgetl.records.train import EpisodesRecord, PairedComparison
from edgetl.tasks.base import Classification
from edgetl.train import stage
from edgetl.train.compare import compare
from edgetl.train.episodes import few_shot, objective
from edgetl.train.evaluate import predict_outputs
from edgetl.train.features import compute
from edgetl.train.loop import NO_START, fit
from edgetl.train.objective import Hard
from edgetl.train.phases import phases, with_episodes
from edgetl.train.processes import from_main, launched, main_first
from edgetl.train.seeds import numpy_generator
from edgetl.train.sets import PixelSet, open_sets
from edgetl.train.stage import TrainInputs
from edgetl.train.tasks.all import training_task

LEAST = 8
"""Classes, of which a quarter is left out."""
SHOTS = (1, 5)
_EPISODES, _DRAWS, _LEVEL = 200, 1000, 0.05
FOLDER = "episodes"


def check(config: TrainConfig, index: DataIndex) -> None:
    """Find out before training whether the phase can be tried.

    Raises:
        ConfigError: the task is not one class per image, or there are too few classes or images of one.
    """
    if config.episodes is Episodes.NONE:
        return
    if not isinstance(index.task, Classification):
        raise ConfigError(
            f"train.episodes = {config.episodes} is for images of one class each, and this task is"
            f" {index.task.kind}; leave it out."
        )
    if len(index.labels) < LEAST:
        raise ConfigError(
            f"train.episodes = {config.episodes} is tried on a quarter of the classes, which are left out; there are"
            f" {len(index.labels)} classes, expected at least {LEAST}."
        )
    counts = np.bincount([s.label for s in index.samples if s.split != "test"], minlength=len(index.labels))
    if counts.min() <= max(SHOTS):
        few = index.labels[int(counts.argmin())]
        raise ConfigError(
            f"train.episodes = {config.episodes} recognises classes from {max(SHOTS)} pictures; class {few!r} has"
            f" {counts.min()} training and validation images, expected more."
        )


def run(
    config: TrainConfig, inputs: TrainInputs, *, out: Path, progress: Progress = SILENT
) -> EpisodesRecord | None:
    """Try the phase of `train.episodes`; None where none is asked for.

    Where several processes were launched, each must call this. A trial that was stopped goes on after its last epoch.

    Args:
        config: how to train.
        inputs: what to train on.
        out: the stage's folder.
        progress: where to report.

    Raises:
        ConfigError: see `check`.
        EdgetlError: as `edgetl.train.stage.run`.
    """
    method = config.episodes
    if method is Episodes.NONE:
        return None
    check(config, inputs.index)
    begun = time.perf_counter()
    known, left, names = parted(inputs.index, inputs.seed)
    own, folder = dataclasses.replace(inputs, index=known), out / FOLDER
    if launched().main:
        folder.mkdir(exist_ok=True)
    progress.message(
        f"train: without {len(names)} of {len(inputs.index.labels)} classes, to try {method} episodes on"
    )
    if not from_main((folder / stage.CHECKPOINT).is_file()):
        stage.run(config, own, out=folder, progress=progress)
    from_main(None)  # the file is written
    before, after = (checkpoint.load(folder / stage.CHECKPOINT)[0] for _ in range(2))
    _learn(config, own, after, folder, progress)
    networks = [before, after]
    record = from_main(
        _judged(config, own, left, names, networks, folder, begun, progress) if launched().main else None
    )
    assert record is not None
    (progress.message if record.used else progress.warning)(record.note)
    if launched().main:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
    return record


def parted(index: DataIndex, seed: int) -> tuple[DataIndex, DataIndex, tuple[str, ...]]:
    """The index without a quarter of its classes, that of their training and validation images alone (all as
    validation), and the names of these classes."""
    count = len(index.labels)
    drawn = sorted(numpy_generator(seed, "episodes", "left out").permutation(count)[: max(2, count // 4)])
    names = tuple(index.labels[at] for at in drawn)
    labels = tuple(name for name in index.labels if name not in names)
    kept, left = [], []
    for sample in index.samples:
        if sample.split == "test":
            continue
        name = index.labels[sample.label]
        if name in names:
            left.append(dataclasses.replace(sample, label=names.index(name), split="val"))
        else:
            kept.append(dataclasses.replace(sample, label=labels.index(name)))
    return (
        dataclasses.replace(index, labels=labels, samples=tuple(kept), asked=None),
        dataclasses.replace(index, labels=names, samples=tuple(left), asked=None),
        names,
    )


def _learn(
    config: TrainConfig, inputs: TrainInputs, model: nn.Module, folder: Path, progress: Progress
) -> None:
    """Take a trained network through the phase."""
    task = training_task(inputs.index.task, inputs.task, inputs.labels)
    with main_first():
        sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir, progress)
    labels = Hard(hard_loss=task.hard_loss(config, sets.train.targets), penalty=task.penalty)
    planned = phases(config, inputs.seed, stage.selecting(config, task, sets.train.targets), task)
    fit(
        model,
        with_episodes(planned, config, config.episodes)[-1],
        task=task,
        train=sets.train,
        val=sets.val,
        objective=objective(config.episodes, labels, task.output_layers(model)[0]),
        state=folder / "episodes.state",
        progress=progress,
        start=NO_START,
    )


def _judged(
    config: TrainConfig,
    inputs: TrainInputs,
    left: DataIndex,
    names: tuple[str, ...],
    networks: list[nn.Module],
    folder: Path,
    begun: float,
    progress: Progress,
) -> EpisodesRecord:
    task = training_task(inputs.index.task, inputs.task, inputs.labels)
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir, progress)
    other = training_task(left.task, inputs.task)
    unseen = open_val(left, inputs, progress, other.targets(left.samples, inputs.spec))
    shares = []
    for network in networks:
        layers = task.output_layers(network)
        own, centre = (
            compute(network, layers, data, folder, progress=progress).features[0].reshape(len(data), -1)
            for data in (unseen, sets.val)
        )
        shares.append(
            {
                shots: few_shot(
                    np.asarray(own),
                    unseen.targets,
                    centre.mean(axis=0),
                    shots=shots,
                    episodes=_EPISODES,
                    generator=numpy_generator(inputs.seed, "episodes", shots),
                )
                for shots in SHOTS
            }
        )
    rows = sorted(set.intersection(*(set(one) for one in shares[0].values())))
    rates = [np.array([[one[shots][at] for shots in SHOTS] for at in rows]) for one in shares]
    comparison = _paired([each.mean(axis=1) for each in rates], inputs.seed)
    answers = [predict_outputs(network, sets.val) for network in networks]
    chosen = stage.selecting(config, task, sets.train.targets)
    known = compare(task, chosen, sets.val.targets, answers[0], answers[1], seed=inputs.seed)
    fell = compare(task, chosen, sets.val.targets, answers[1], answers[0], seed=inputs.seed).helped
    used = comparison.helped and not fell
    low, high = comparison.interval
    why = "the trained classes lose by it" if comparison.helped and fell else "it is left out"
    note = (
        f"Episodes ({config.episodes}) {'helped' if comparison.helped else 'did not help'}:"
        f" {len(names)} classes that were left out were recognised from one and from five pictures in"
        f" {comparison.before:.1%} of {comparison.images:,} images before and {comparison.after:.1%} after"
        f" ({100 * (comparison.after - comparison.before):+.1f} points, 90% interval {100 * low:+.1f} to"
        f" {100 * high:+.1f}); {'the phase is taken' if used else why}."
    )
    return EpisodesRecord(
        method=config.episodes.value,
        left_out=names,
        shots={
            str(shots): (float(rates[0][:, at].mean()), float(rates[1][:, at].mean()))
            for at, shots in enumerate(SHOTS)
        },
        comparison=comparison,
        known=known,
        used=used,
        note=note,
        seconds=time.perf_counter() - begun,
    )


def open_val(
    index: DataIndex, inputs: TrainInputs, progress: Progress, targets: NDArray[np.int64]
) -> PixelSet:
    """The images as evaluation sees them."""
    from edgetl.data.pixels import open_pixels

    return PixelSet(
        open_pixels(index.samples, inputs.spec, inputs.pixels_dir, progress), targets, inputs.spec
    )


def _paired(shares: list[NDArray[np.float64]], seed: int) -> PairedComparison:
    """By the bootstrap over images (Efron 1979)."""
    before, after = shares
    differences = after - before
    generator = numpy_generator(seed, "episodes", "bootstrap")
    means = np.array(
        [differences[generator.integers(0, len(differences), len(differences))].mean() for _ in range(_DRAWS)]
    )
    low, high = (float(v) for v in np.quantile(means, [_LEVEL, 1 - _LEVEL]))
    p_value = float((means <= 0).mean())
    return PairedComparison(
        metric="few_shot",
        images=len(differences),
        before=float(before.mean()),
        after=float(after.mean()),
        interval=(low, high),
        p_value=p_value,
        helped=bool(differences.mean() > 0) and p_value <= _LEVEL,
    )
