"""Stratified cross-validation of a recipe's training: mean and deviation over the folds."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgetl.config import TrainConfig
from edgetl.data.audit import warn_of_copies
from edgetl.data.index import DataIndex, Sample
from edgetl.data.targets import NONE, positions
from edgetl.errors import DataError
from edgetl.files import StageCache
from edgetl.progress import SILENT, Progress
from edgetl.records.scores import Evaluation, value
from edgetl.records.train import FoldsRecord, Spread, TrainRecord
from edgetl.tasks.base import Classification
from edgetl.train import stage
from edgetl.train.seeds import derive


def run(
    config: TrainConfig,
    inputs: stage.TrainInputs,
    *,
    folds: int,
    out: Path,
    progress: Progress = SILENT,
) -> FoldsRecord:
    """Train once a fold, each time validating on another part of the training and validation images.

    The test split is not touched, so settings may be chosen by the result. A finished fold's scores and network
    (`fold-N/teacher.safetensors`) are saved in `out`, and a stopped fold goes on after its last epoch. Images that have
    a near-copy in another fold are reported: a network that has seen it is scored too well.

    Raises:
        DataError: fewer than two folds, or a class has fewer images than folds.
        EdgetlError: as `stage.run`.
    """
    found = []
    cache = StageCache(out)
    parts = split(inputs.index, folds, inputs.seed)
    held = [(sample, fold) for fold, part in enumerate(parts) for sample in part.split("val")]
    samples, numbers = [sample for sample, _ in held], [fold for _, fold in held]
    if inputs.spec.sound is None:  # pictures of short sounds are alike without being copies
        warn_of_copies(samples, numbers, "another fold", window=inputs.spec.window, progress=progress)
    for number, index in enumerate(parts, start=1):
        progress.message(f"fold {number} of {folds}")
        own = dataclasses.replace(inputs, index=index, pixels_dir=out / f"pixels-{number}")
        record, _ = cache.run(
            f"fold-{number}",
            config=config,
            inputs=own,
            kind=TrainRecord,
            outputs=lambda r: [r.checkpoint],
            work=partial(_train, config, own, progress),
        )
        found.append(record.val)
        shutil.rmtree(own.pixels_dir, ignore_errors=True)
    return FoldsRecord(folds=tuple(found), spreads=spreads(found))


def spreads(evaluations: Sequence[Evaluation]) -> dict[str, Spread]:
    """The spread of each score that every fold has: a fold without mistakes has no severity of them."""
    common = [name for name in evaluations[0].scores if all(name in e.scores for e in evaluations)]
    return {name: _spread(evaluations, name) for name in common}


def _train(config: TrainConfig, inputs: stage.TrainInputs, progress: Progress, out: Path) -> TrainRecord:
    return stage.run(config, inputs, out=out, progress=progress)


def split(index: DataIndex, folds: int, seed: int) -> list[DataIndex]:
    """The training and validation images dealt into `folds` parts, each class evenly; without the test split.

    Images of one group come into one part; then the classes are as even as the groups allow.

    Raises:
        DataError: fewer than two folds, or a class has fewer images (where there are groups: groups) than folds.
    """
    if folds < 2:
        raise DataError(f"Cross-validation takes at least 2 folds, not {folds}.")
    samples = [s for s in index.samples if s.split != "test"]
    labels = np.array(index.strata(samples), dtype=np.int64)
    grouped = any(s.group for s in samples)
    # an image without a group is one of its own
    own_groups = [s.group or s.sha256 for s in samples]
    units = {
        (label, group if grouped else at)
        for at, (sample, group) in enumerate(zip(samples, own_groups, strict=True))
        for label in positions(index.task, sample.label)
    }
    counts = np.bincount([int(label) for label, _ in units], minlength=len(index.labels))
    if counts.min() < folds:
        label, what = index.labels[int(counts.argmin())], "groups" if grouped else "images"
        raise DataError(f"Class {label!r} has {counts.min()} {what}, too few for {folds} folds.")
    if not isinstance(index.task, Classification):  # images of a class may count to rarer ones
        names, sizes = np.unique(labels, return_counts=True)
        labels = np.where(np.isin(labels, names[sizes >= folds]), labels, NONE)
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    dealer = (StratifiedGroupKFold if grouped else StratifiedKFold)(
        folds, shuffle=True, random_state=derive(seed, "folds") % 2**32
    )
    found = []
    for _, held in dealer.split(labels, labels, own_groups if grouped else None):
        held_out = np.zeros(len(samples), dtype=np.bool_)
        held_out[held] = True
        found.append(dataclasses.replace(index, samples=_dealt(samples, held_out)))
    return found


def _dealt(
    samples: Sequence[Sample], held_out: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> tuple[Sample, ...]:
    return tuple(
        dataclasses.replace(s, split="val" if held else "train")
        for s, held in zip(samples, held_out.tolist(), strict=True)
    )


def _spread(evaluations: Sequence[Evaluation], name: str) -> Spread:
    values = [value(e, name) for e in evaluations]
    return Spread(mean=float(np.mean(values)), deviation=float(np.std(values, ddof=1)))
