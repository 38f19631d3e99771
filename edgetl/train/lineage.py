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
from edgetl.records.lineage import LineageStep


def lineage_before(weights: str | Path) -> tuple[LineageStep, ...]:
    """What a network has learned that begins with `weights`.

    Args:
        weights: `pretrained`, `none` or a file. A checkpoint of edgetl tells its own chain.

    Raises:
        WeightsError: the file says something else than a chain in its place.
    """
    if str(weights) in (PRETRAINED, NO_WEIGHTS):
        return (LineageStep(kind="weights", name=str(weights)),)
    path = Path(weights)
    digest = sha256_file(path)
    said = checkpoint.read_metadata(path) if recognise(path) is Format.SAFETENSORS else {}
    if checkpoint.LINEAGE not in said:
        return (LineageStep(kind="weights", name=path.name, file=digest),)
    try:
        *before, last = from_json(tuple[LineageStep, ...], json.loads(said[checkpoint.LINEAGE]))
    except ValueError as error:
        raise WeightsError(f"{path} does not say what its network learned: {error}.") from error
    return (*before, dataclasses.replace(last, file=digest))


def lineage_step(kind: str, index: DataIndex) -> LineageStep:
    """What the training images of an index teach.

    Args:
        kind: `train`, or a method of pretraining.
        index: of the images; without classes where they have no labels.
    """
    return LineageStep(
        kind=kind,
        name=index.root.name or str(index.root),
        images=len(index.split("train")),
        classes=index.labels,
        data=index.sha256,
    )


def as_metadata(lineage: tuple[LineageStep, ...]) -> dict[str, str]:
    """A chain as a checkpoint keeps it."""
    return {checkpoint.LINEAGE: json.dumps(to_json(lineage), ensure_ascii=False)}
