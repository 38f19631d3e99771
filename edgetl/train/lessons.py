"""The chain of what a network learned: read from the weights that it begins with, and written into its checkpoint."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from edgetl.data.index import DataIndex
from edgetl.errors import WeightsError
from edgetl.files import sha256_file
from edgetl.models import checkpoint
from edgetl.models.backbones import NO_WEIGHTS, PRETRAINED
from edgetl.models.formats import Format, recognise
from edgetl.records.codec import from_json, to_json
from edgetl.records.train import Lesson


def lessons_before(weights: str | Path) -> tuple[Lesson, ...]:
    """What a network has learned that begins with `weights`.

    Args:
        weights: `pretrained`, `none` or a file. A checkpoint of edgetl tells its own chain.

    Raises:
        WeightsError: the file says something else than a chain in its place.
    """
    if str(weights) in (PRETRAINED, NO_WEIGHTS):
        return (Lesson(kind="weights", name=str(weights)),)
    path = Path(weights)
    digest = sha256_file(path)
    told = checkpoint.read_metadata(path) if recognise(path) is Format.SAFETENSORS else {}
    if checkpoint.LESSONS not in told:
        return (Lesson(kind="weights", name=path.name, file=digest),)
    try:
        *before, last = from_json(tuple[Lesson, ...], json.loads(told[checkpoint.LESSONS]))
    except ValueError as error:
        raise WeightsError(f"{path} does not say what its network learned: {error}.") from error
    return (*before, dataclasses.replace(last, file=digest))


def lesson_of(kind: str, index: DataIndex) -> Lesson:
    """What the training images of an index teach.

    Args:
        kind: `train`, or a method of pretraining.
        index: of the images; without classes where they have no labels.
    """
    return Lesson(
        kind=kind,
        name=index.root.name or str(index.root),
        images=len(index.split("train")),
        classes=index.labels,
        data=index.sha256,
    )


def as_metadata(lessons: tuple[Lesson, ...]) -> dict[str, str]:
    """A chain as a checkpoint keeps it."""
    return {checkpoint.LESSONS: json.dumps(to_json(lessons), ensure_ascii=False)}
