"""The images of an extended run: exemplars of what it knows, chosen by its own network, and what is added."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgetl.config import ExtendConfig
from edgetl.data import extension
from edgetl.data.index import DataIndex, Sample
from edgetl.data.pixels import open_pixels
from edgetl.data.unlabelled import not_scored
from edgetl.errors import ConfigError
from edgetl.inputs.image import PreprocessSpec
from edgetl.keys import UNKEYED
from edgetl.models import checkpoint
from edgetl.progress import SILENT, Progress
from edgetl.records.codec import from_json
from edgetl.records.extend import ExtendRecord
from edgetl.train.extend.exemplars import herd
from edgetl.train.features import compute
from edgetl.train.sets import PixelSet
from edgetl.train.tasks.all import training_task


@dataclass(frozen=True, kw_only=True)
class ExtendInputs:
    """What the stage reads.

    Attributes:
        checkpoint: the network of the run that goes on.
        known: that run's images.
        added: the images of `data.source`.
        source: names these, for messages.
        backbone: of the recipe, which must be the network's.
        spec: evaluation's preprocessing, which must be the network's.
        pixels_dir: folder of decoded pixels, shared by the stages.
    """

    checkpoint: Path
    known: DataIndex
    added: DataIndex
    source: str
    backbone: str
    spec: PreprocessSpec
    pixels_dir: Path = field(metadata=UNKEYED)


def run(
    config: ExtendConfig, inputs: ExtendInputs, *, out: Path, progress: Progress = SILENT
) -> ExtendRecord:
    """Choose the exemplars, and write `out/index.json` with the joined images.

    Raises:
        ConfigError: the recipe's backbone or preprocessing is not that of the network.
        DataError: as `edgetl.data.extension.check` and `fresh`.
        WeightsError: the network cannot be read.
        ImageError: an image cannot be decoded.
        StorageError: a file cannot be written.
    """
    known, added = inputs.known, inputs.added
    _check(inputs)
    samples = extension.fresh(known, added, progress)
    held_out = len(added.samples) - len(samples)
    if held_out:
        progress.message(
            f"extend: {held_out} of {len(added.samples)} added images are in the run already, or look like its"
            " validation or test images, and are left out"
        )
    exemplars = _exemplars(config.exemplars, inputs, out, progress)
    # An image of which the added validation or test split has a near-copy must not teach.
    exemplars = not_scored(exemplars, _only(added, samples), progress=progress)
    joined = extension.join(known, added, samples, exemplars)
    joined.save(out / "index.json")
    counts = np.bincount(
        np.array([sample.label for sample in exemplars], dtype=np.int64), minlength=len(known.labels)
    )
    return ExtendRecord(
        index=f"{out.name}/index.json",
        run=str(config.run),
        known=known.labels,
        new=joined.labels[len(known.labels) :],
        exemplars=dict(zip(known.labels, map(int, counts), strict=True)),
        added=len(samples),
        repeated=held_out,
    )


def _only(index: DataIndex, samples: tuple[Sample, ...]) -> DataIndex:
    return DataIndex(index.root, index.labels, samples)


def _check(inputs: ExtendInputs) -> None:
    extension.check(inputs.known, inputs.added, inputs.source)
    said = checkpoint.read_metadata(inputs.checkpoint)
    _, architecture = checkpoint.load(inputs.checkpoint)
    if architecture.backbone != inputs.backbone:
        raise ConfigError(
            f"extend.run has a network of {architecture.backbone}, but train.backbone is {inputs.backbone}; set it to"
            f" {architecture.backbone}."
        )
    own = from_json(PreprocessSpec, json.loads(said[checkpoint.SPEC])) if checkpoint.SPEC in said else None
    if own is not None and own != inputs.spec:
        raise ConfigError(
            "[preprocess] differs from that of the run in extend.run, whose network would see other pictures; take its"
            " settings from its recipe.lock.toml."
        )


def _exemplars(count: int, inputs: ExtendInputs, out: Path, progress: Progress) -> tuple[Sample, ...]:
    """Up to `count` training images of each known class, by herding on the network's features."""
    known = inputs.known
    samples = known.split("train")
    labels = np.array([sample.label for sample in samples])
    if count == 0 or not len(labels):
        return ()
    if np.bincount(labels).max() <= count:
        return samples
    task = training_task(known.task)
    network, _ = checkpoint.load(inputs.checkpoint)
    pixels = open_pixels(samples, inputs.spec, inputs.pixels_dir, progress)
    data = PixelSet(pixels, task.targets(samples, inputs.spec), inputs.spec)
    features = compute(network, task.output_layers(network), data, out, progress=progress).features[0]
    chosen: list[Sample] = []
    for label in range(len(known.labels)):
        rows = np.flatnonzero(labels == label)
        chosen += [samples[at] for at in rows[herd(np.asarray(features[rows]), count)]]
    for path in out.glob("features-*.npy"):
        path.unlink()
    return tuple(chosen)
