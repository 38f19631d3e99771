"""Stratified cross-validation of a recipe's training: mean and deviation over the folds."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgetl.config import TrainConfig
from edgetl.data.index import DataIndex, Sample
from edgetl.errors import DataError
from edgetl.progress import SILENT, Progress
from edgetl.records import Evaluation, FoldsRecord, Spread
from edgetl.train import stage
from edgetl.train.seeds import numpy_generator


def run(
    config: TrainConfig,
    inputs: stage.TrainInputs,
    *,
    folds: int,
    out: Path,
    progress: Progress = SILENT,
) -> FoldsRecord:
    """Train once a fold, each time validating on another part of the training and validation images.

    The test split is not touched, so settings may be chosen by the result. No network is kept. A fold that was
    finished is not kept either when the run is stopped; a stopped fold goes on after its last epoch.

    Raises:
        DataError: fewer than two folds, or a class has fewer images than folds.
        EdgetlError: as `stage.run`.
    """
    found = []
    for number, index in enumerate(split(inputs.index, folds, inputs.seed), start=1):
        progress.message(f"fold {number} of {folds}")
        folder = out / f"fold-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        own = dataclasses.replace(inputs, index=index, pixels_dir=folder / "pixels")
        found.append(stage.run(config, own, out=folder, progress=progress).val)
        shutil.rmtree(folder)
    return FoldsRecord(
        folds=tuple(found),
        top1=_spread(found, "top1"),
        macro_f1=_spread(found, "macro_f1"),
        balanced_accuracy=_spread(found, "balanced_accuracy"),
    )


def split(index: DataIndex, folds: int, seed: int) -> list[DataIndex]:
    """The training and validation images dealt into `folds` parts, each class evenly; without the test split.

    Raises:
        DataError: fewer than two folds, or a class has fewer images than folds.
    """
    if folds < 2:
        raise DataError(f"Cross-validation takes at least 2 folds, not {folds}.")
    samples = [s for s in index.samples if s.split != "test"]
    labels = np.array([s.label for s in samples], dtype=np.int64)
    counts = np.bincount(labels, minlength=len(index.labels))
    if counts.min() < folds:
        label = index.labels[int(counts.argmin())]
        raise DataError(f"Class {label!r} has {counts.min()} images, too few for {folds} folds.")
    parts = np.empty(len(samples), dtype=np.int64)
    dealt = 0
    for place in range(len(index.labels)):
        own = numpy_generator(seed, "folds", place).permutation(np.flatnonzero(labels == place))
        parts[own] = (np.arange(len(own)) + dealt) % folds
        dealt += len(own)
    return [dataclasses.replace(index, samples=_dealt(samples, parts == fold)) for fold in range(folds)]


def _dealt(
    samples: Sequence[Sample], held_out: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> tuple[Sample, ...]:
    return tuple(
        dataclasses.replace(s, split="val" if held else "train")
        for s, held in zip(samples, held_out.tolist(), strict=True)
    )


def _spread(evaluations: Sequence[Evaluation], name: str) -> Spread:
    values = [float(getattr(e, name)) for e in evaluations]
    return Spread(mean=float(np.mean(values)), deviation=float(np.std(values, ddof=1)))
