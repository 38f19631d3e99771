"""How well each score tells a folder of unknown images from a set of known ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.splits import SPLITS
from edgetl.errors import ConfigError, DataError, EdgetlError
from edgetl.files import sha256_file
from edgetl.progress import SILENT, Progress
from edgetl.records.scores import Score, Separation, UnknownEvaluation
from edgetl.records.unknown import ScoreName
from edgetl.runtime.inputs import find_images
from edgetl.runtime.known import why_none
from edgetl.runtime.session import Session
from edgetl.runtime.unknown.scores import Features, names, scorer
from edgetl.runtime.unknown.separation import auroc, taken_as_known
from edgetl.statistics import wilson_interval
from edgetl.tasks.base import Detection, Outputs


def images_in(session: Session, folder: Path, *, progress: Progress = SILENT) -> tuple[Path, ...]:
    """The unknown images, all below a folder.

    Raises:
        ConfigError: the session finds boxes.
        DataError: there is no such folder, or no image in it.
    """
    if isinstance(session.manifest.task, Detection):
        raise ConfigError(
            "unknown: the bundle is of the task detection, which answers what it finds and nothing else; leave unknown"
            " out."
        )
    if not folder.is_dir():
        raise DataError(
            f"There is no folder at {folder}; --unknown names one with images that the model should not know."
        )
    return find_images([str(folder)], kind=session.manifest.preprocess.kind, progress=progress)


def comparing(session: Session) -> Session:
    """A session whose outputs have what all scores of its variant need."""
    return session if session.variant.reference is None else session.with_features()


def measure(
    session: Session,
    folder: Path,
    *,
    known: Outputs,
    unknown: Outputs,
    samples: Sequence[Path],
    images: Sequence[Path],
    skipped: Mapping[Path, str],
    progress: Progress = SILENT,
) -> UnknownEvaluation:
    """The scores' separation.

    Args:
        session: as `comparing` gives it.
        folder: of the unknown images.
        known, unknown: the images' outputs, pooled (`edgetl.runtime.features.pooled`).
        samples, images: their files.
        skipped: unknown images that cannot be read, and why.
        progress: warns of images that are not unknown.
    """
    made_from, in_set = _not_unknown(session, images, samples)
    _warn(folder, len(images), made_from, in_set, progress)
    features = _features(session)
    spec = session.manifest.task
    assert not isinstance(spec, Detection)
    used = session.variant.unknown
    scores = []
    for name in names(features):
        score = scorer(name, spec, features)
        scores.append(
            _separation(name, used is not None and used.score is name, score(known), score(unknown))
        )
    return UnknownEvaluation(
        folder=str(folder),
        images=len(images),
        known=len(samples),
        skipped=tuple((path.relative_to(folder).as_posix(), reason) for path, reason in skipped.items()),
        made_from=made_from,
        in_set=in_set,
        scores=tuple(scores),
        note="" if features is not None else why_none(session.bundle, session.variant),
    )


def _features(session: Session) -> Features | None:
    if session.variant.reference is None or session.head is None:
        return None
    return Features(reference=session.known_images("unknown"), weights=session.head.weights)


def _separation(
    name: ScoreName, used: bool, known: NDArray[np.float64], unknown: NDArray[np.float64]
) -> Separation:
    area, low, high = auroc(known, unknown)
    passing, _ = taken_as_known(known, unknown)
    least, most = wilson_interval(passing, len(unknown))
    return Separation(
        score=name,
        used=used,
        auroc=Score(value=area, low=low, high=high),
        passing=Score(value=passing / len(unknown), low=least, high=most),
    )


def _not_unknown(session: Session, images: Sequence[Path], samples: Sequence[Path]) -> tuple[int | None, int]:
    """How many of the images the bundle was made from, None where it does not know; and how many are known here."""
    own, others = [_sha256(path) for path in images], {_sha256(path) for path in samples}
    in_set = sum(text in others for text in own if text)
    splits = session.bundle.splits()
    if splits is None:
        return None, in_set
    held = np.any([splits.holds(split, own) for split in SPLITS], axis=0)
    return int(held.sum()), in_set


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except (OSError, EdgetlError):
        return ""  # It is found among the bad images.


def _warn(folder: Path, images: int, made_from: int | None, in_set: int, progress: Progress) -> None:
    parts = [
        f"{number} are {what}"
        for number, what in (
            (made_from, "images that the bundle was made from"),
            (in_set, "in the known set, too"),
        )
        if number
    ]
    if parts:
        progress.warning(
            f"Of the {images} images in {folder}, which should be unknown, {' and '.join(parts)}. Take them out: the"
            " scores look worse than they are."
        )
