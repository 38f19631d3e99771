"""Look for wrong labels in all splits by confident learning, with probabilities that are out of sample only.

Validation and test images are answered by the teacher, which has not learned from them. Of the training images it has,
so these are answered by a linear probe on what the backbone's pretrained weights make of them, which have seen none of
these labels: the images are dealt into parts, and each part is answered by the probe that was fitted to the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import numpy as np
from numpy.typing import NDArray

from edgetl.data.confident import doubts
from edgetl.errors import ModelError
from edgetl.keys import UNKEYED
from edgetl.progress import SILENT, Progress
from edgetl.records.codec import to_json
from edgetl.records.doubts import DoubtfulLabel, DoubtsRecord, SplitDoubts
from edgetl.tasks.base import Classification, Detection, MultiHead, MultiLabel
from edgetl.tasks.classification.answers import softmax

if TYPE_CHECKING:
    from edgetl.data.index import DataIndex, Sample
    from edgetl.inputs.spec import PreprocessSpec
    from edgetl.train.sets import PixelSet

_LISTED = 24
"""Candidates that are named, of all splits together."""
_PARTS = 5
_MOST_IMAGES = 10_000
"""Training images that are looked at, evenly spread."""
_LEAST_A_CLASS = 3
"""Of a class with fewer training images a probe learns nothing that could be held against a label."""


@dataclass(frozen=True, kw_only=True)
class DoubtsInputs:
    """What is looked at: all labelled images, the teacher, and the backbone that it began with.

    `weights` are as in `train.weights`; only `pretrained` ones are known to have seen none of the labels.
    """

    index: DataIndex
    teacher: Path
    spec: PreprocessSpec
    backbone: str
    weights: str
    seed: int
    pixels_dir: Path = field(metadata=UNKEYED)


@dataclass(frozen=True, kw_only=True)
class _Looked:
    """One split with its probabilities (N, C), and where they come from."""

    split: str
    samples: tuple[Sample, ...]
    probabilities: NDArray[np.float64]
    by: str


def run(inputs: DoubtsInputs, *, out: Path, progress: Progress = SILENT) -> DoubtsRecord:
    """Look for doubtful labels; of boxes and of several heads a note says that nothing was looked at.

    Args:
        inputs: what is looked at.
        out: a folder for what the backbone makes of the training images; left empty.
        progress: gets bars.

    Raises:
        WeightsError: the teacher's checkpoint cannot be used.
        ImageError: an image cannot be decoded.
    """
    from edgetl.train.sets import open_sets

    spec = inputs.index.task
    match spec:
        case Detection():
            return DoubtsRecord(
                notes=(
                    "Wrong labels were not looked for: of boxes there is no such test here. The images with most errors"
                    " are the first to look at.",
                )
            )
        case MultiHead():
            return DoubtsRecord(notes=("Wrong labels were not looked for: there are several heads.",))
        case Classification() | MultiLabel():
            pass
        case _:
            assert_never(spec)
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir, progress)
    looked = list(_by_teacher(inputs, sets.val, sets.test, progress))
    trained, notes = _by_probe(inputs, sets.train, out, progress)
    looked += trained
    found = [_doubts_of(inputs.index, one) for one in looked]
    labels = [label for _, own in found for label in own]
    labels.sort(key=lambda label: (label.given_score - label.score, label.file, label.suspected))
    return DoubtsRecord(
        labels=tuple(labels[:_LISTED]),
        splits=tuple(split for split, _ in found),
        notes=notes,
        sound=None if inputs.spec.sound is None else to_json(inputs.spec.sound),
    )


def _by_teacher(
    inputs: DoubtsInputs, val: PixelSet, test: PixelSet | None, progress: Progress
) -> Iterator[_Looked]:
    from edgetl.models import checkpoint
    from edgetl.train.evaluate import predict_outputs

    teacher, _ = checkpoint.load(inputs.teacher)
    shown = [("val", inputs.index.split("val"), val)]
    if test is not None:
        shown.append(("test", inputs.index.split("test"), test))
    with progress.task("Doubtful labels", total=len(shown)) as task:
        for name, samples, pixels in shown:
            scores = _probabilities(inputs.index, predict_outputs(teacher, pixels))
            yield _Looked(
                split=name,
                samples=samples,
                probabilities=scores,
                by="by the teacher, which has not learned from them",
            )
            task.advance()


def _by_probe(
    inputs: DoubtsInputs, train: PixelSet, out: Path, progress: Progress
) -> tuple[list[_Looked], tuple[str, ...]]:
    """The training images, or a note why they were not looked at."""
    from edgetl.train import features
    from edgetl.train.pretrain.probe import probe
    from edgetl.train.seeds import derive
    from edgetl.train.tasks.all import training_task

    if inputs.weights != "pretrained":
        return [], (
            "Training images were not looked at: that takes pretrained weights, which have not seen their labels, and"
            f' train.weights = "{inputs.weights}".',
        )
    samples = inputs.index.split("train")
    rows = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), _MOST_IMAGES)).round().astype(int))
    chosen, own = tuple(samples[row] for row in rows), train
    if len(rows) < len(samples):
        own = replace(train, pixels=train.pixels[rows], targets=train.targets[rows])
    parts = _dealt(inputs, chosen)
    if parts is None:
        return [], (f"Training images were not looked at: a class has fewer than {_LEAST_A_CLASS} of them.",)
    task = training_task(inputs.index.task)
    try:
        model = task.network(
            inputs.backbone, inputs.weights, seed=derive(inputs.seed, "doubts"), size=inputs.spec.size
        )
        computed = features.compute(model, task.output_layers(model), own, out, progress=progress)
    except ModelError as error:  # the run is not to end for what some networks do not have
        return [], (f"Training images were not looked at: {error}",)
    seen = _pooled(computed.features[0])
    outputs = np.zeros((len(rows), task.width), dtype=np.float32)
    with progress.task("Doubtful labels of the training images", total=_PARTS) as bar:
        for part in range(_PARTS):
            asked = parts == part
            outputs[asked] = probe(task, seen[~asked], own.targets[~asked], seen[asked])
            bar.advance()
    for path in out.glob("features-*.npy"):
        path.unlink(missing_ok=True)
    looked = _Looked(
        split="train",
        samples=chosen,
        probabilities=_probabilities(inputs.index, outputs),
        by=f"by linear probes on {inputs.backbone} with its pretrained weights, each fitted to other images"
        f" ({_PARTS} parts)",
    )
    return [looked], ()


def _pooled(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, F), of maps (N, F, H, W) and tokens (N, T, F) their means, a few images at a time."""
    axes = {4: (2, 3), 3: (1,)}.get(features.ndim, ())
    parts = [np.array(features[at : at + 256]) for at in range(0, len(features), 256)]
    return np.concatenate([part.mean(axis=axes) if axes else part for part in parts]).astype(np.float32)


def _dealt(inputs: DoubtsInputs, samples: tuple[Sample, ...]) -> NDArray[np.int64] | None:
    """(N,) the part of each image: evenly by class, copies and groups together; None where a class is too small."""
    from edgetl.train.seeds import derive

    strata = np.array(inputs.index.strata(samples))
    if isinstance(inputs.index.task, Classification):
        _, sizes = np.unique(strata, return_counts=True)
        if sizes.min() < _LEAST_A_CLASS:
            return None
    units: dict[str, list[int]] = {}
    for at, sample in enumerate(samples):
        units.setdefault(sample.group or sample.sha256, []).append(at)
    order = np.random.default_rng(derive(inputs.seed, "doubts", "parts")).permutation(len(units))
    members = list(units.values())
    parts = np.zeros(len(samples), dtype=np.int64)
    next_part: dict[int, int] = {}
    for unit in order:
        rows = members[unit]
        stratum = int(strata[rows[0]])
        parts[rows] = next_part.get(stratum, stratum % _PARTS)
        next_part[stratum] = (int(parts[rows[0]]) + 1) % _PARTS
    return parts


def _probabilities(index: DataIndex, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    if isinstance(index.task, MultiLabel):
        found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(outputs.astype(np.float64), -60, 60)))
        return found
    return softmax(outputs).astype(np.float64)


def _doubts_of(index: DataIndex, looked: _Looked) -> tuple[SplitDoubts, list[DoubtfulLabel]]:
    """A split's figures and its candidates."""
    if isinstance(index.task, MultiLabel):
        return _doubts_by_class(index, looked)
    given = np.array([sample.label for sample in looked.samples], dtype=np.int64)
    found = doubts(given, looked.probabilities)
    labels = [
        DoubtfulLabel(
            file=str(looked.samples[at].path),
            split=looked.split,
            given=index.labels[given[at]],
            suspected=index.labels[other],
            given_score=float(looked.probabilities[at, given[at]]),
            score=float(looked.probabilities[at, other]),
        )
        for at, other in zip(found.places, found.suspected, strict=True)
    ]
    agrees = float((looked.probabilities.argmax(axis=1) == given).mean())
    return _figures(looked, labels, found.share, agrees), labels


def _doubts_by_class(index: DataIndex, looked: _Looked) -> tuple[SplitDoubts, list[DoubtfulLabel]]:
    """Of any number of classes each is a question of its own: is it there or not."""
    labels, shares, agree = [], [], []
    for number, name in enumerate(index.labels):
        given = np.array([number in sample.label for sample in looked.samples], dtype=np.int64)
        there = looked.probabilities[:, number]
        both = np.stack([1 - there, there], axis=1)
        agree.append(float(((there > 0.5) == given).mean()))
        if len(np.unique(given)) < 2:
            continue
        found = doubts(given, both)
        shares.append(found.share)
        labels += [
            DoubtfulLabel(
                file=str(looked.samples[at].path),
                split=looked.split,
                given=name if given[at] else f"no {name}",
                suspected=name if other else f"no {name}",
                given_score=float(both[at, given[at]]),
                score=float(both[at, other]),
            )
            for at, other in zip(found.places, found.suspected, strict=True)
        ]
    share = float(np.mean(shares)) if shares else 0.0
    return _figures(looked, labels, share, float(np.mean(agree)) if agree else 0.0), labels


def _figures(looked: _Looked, labels: list[DoubtfulLabel], share: float, agrees: float) -> SplitDoubts:
    return SplitDoubts(
        split=looked.split,
        images=len(looked.samples),
        candidates=len(labels),
        share=share,
        agrees=agrees,
        by=looked.by,
    )
