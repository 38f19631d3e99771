"""The images that a cascade is made with: labelled, and no part of what either model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.archive import Bundle
from edgetl.data.sources import find
from edgetl.errors import DataError
from edgetl.files import sha256_file
from edgetl.progress import SILENT, Progress
from edgetl.runtime.evaluate import LabelledImage, with_truths
from edgetl.tasks.base import Classification
from edgetl.tasks.labelling import labelling_of

FEWEST = 40
"""Images, at least: a half chooses the threshold, the other judges it."""


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Images that choose the threshold and images that judge it, with the SHA-256 in hex of each; `left_out` counts
    those that a model was trained on."""

    choosing: tuple[LabelledImage, ...]
    judging: tuple[LabelledImage, ...]
    sha256: tuple[str, ...]
    left_out: int


def halves(
    data: Path, bundles: Sequence[Bundle], task: Classification, *, seed: int, progress: Progress = SILENT
) -> Halves:
    """Take a set's validation split, else what the models were validated with, else all of it; in every case without
    the images that either was trained on. Both halves get every class alike.

    Raises:
        DataError: the set cannot be read, has a class that the models do not know, or too few images.
    """
    kind = bundles[0].manifest.preprocess.kind
    entries = find(str(data), labelling_of(task), kind=kind, progress=progress).entries
    stated = [entry for entry in entries if entry.split == "val"]
    samples = with_truths(data, stated or entries, task)
    hashes = []
    with progress.task("Reading images", total=len(samples)) as bar:
        for sample in samples:
            hashes.append(sha256_file(sample.path))
            bar.advance()
    known = [splits for bundle in bundles if (splits := bundle.splits()) is not None]

    def held(split: str) -> NDArray[np.bool_]:
        found = [np.zeros(len(samples), bool), *(one.holds(split, hashes) for one in known)]
        return np.asarray(np.any(found, axis=0))

    usable = ~held("train")
    chosen = usable & held("val")
    places = np.flatnonzero(chosen if chosen.any() and not stated else usable)
    if len(places) < FEWEST:
        raise DataError(
            f"{data} has {len(places)} labelled images that neither model was trained on, and a cascade needs {FEWEST}:"
            " half of them to choose its threshold, half to judge it. Give more."
        )
    mixed = np.random.default_rng(seed).permutation(places)
    by_class = sorted(mixed, key=lambda at: samples[at].label)
    return Halves(
        choosing=tuple(samples[at] for at in by_class[::2]),
        judging=tuple(samples[at] for at in by_class[1::2]),
        sha256=tuple(hashes[at] for at in by_class),
        left_out=int((~usable).sum()),
    )
