"""A labelled set of other classes, on which a backbone learns before it sees the data at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgetl.data import depth
from edgetl.data.build import index_of
from edgetl.data.index import DataIndex, DataSettings
from edgetl.data.sources import labelling_in
from edgetl.data.unlabelled import not_scored
from edgetl.errors import DataError
from edgetl.progress import SILENT, Progress
from edgetl.records.train import UnlabelledRecord
from edgetl.tasks.base import Classification


@dataclass(frozen=True, kw_only=True)
class OtherInputs:
    """What is needed besides the source.

    Attributes:
        index: the data at hand, of whose validation and test images none must teach.
        seed: chooses the splits where the source has none.
        window: that of the preprocessing.
    """

    index: DataIndex
    seed: int
    window: tuple[float, float] | None = None


@contextmanager
def named_errors() -> Iterator[None]:
    """What is wrong with the source says which setting named it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"pretrain.source: {error}") from error


def run(
    config: DataSettings, inputs: OtherInputs, *, out: Path, progress: Progress = SILENT
) -> UnlabelledRecord:
    """Index a labelled set and write `index.json` into `out`.

    Its images that are in the validation or test split of the data at hand, or near-copies of those, are left out.

    Args:
        config: names the source, and how splits are taken.
        inputs: the data at hand.
        out: where to write.
        progress: gets a bar, and the number that is left out.

    Raises:
        DataError: the source cannot be used, or asks for something else than the data at hand does.
        StorageError: the index cannot be written.
    """
    with named_errors():
        labelling = labelling_in(config.source)
        index = index_of(
            config, labelling=labelling, seed=inputs.seed, sound=inputs.index.sound, progress=progress
        )
    if not isinstance(index.task, Classification | type(inputs.index.task)):
        raise DataError(
            f"pretrain.source: {config.source} is no set of one class per image, nor does it ask what the data"
            " asks; give a folder CLASS/*, or a CSV with the columns path, label."
        )
    if index.sound is None:
        depth.check(index, inputs.window, progress=progress)
    samples = not_scored(index.samples, inputs.index, progress=progress)
    held_out = len(index.samples) - len(samples)
    if held_out:
        progress.message(
            f"pretrain.source: {held_out} of {len(index.samples)} images are in the validation or test split, or"
            " near-copies of those, and are left out"
        )
    index = dataclasses.replace(index, samples=samples)
    if not index.split("train") or not index.split("val"):
        raise DataError(
            f"pretrain.source: nearly all images in {config.source} are in the data's own validation or test split,"
            " which must not teach; give another set."
        )
    index.save(out / "index.json")
    return UnlabelledRecord(
        index=f"{out.name}/index.json",
        images=len(index.split("train")),
        held_out=held_out,
        skipped=index.skipped,
        sha256=index.sha256,
    )
