"""From what a user names on the command line to predictions: files and folders, of which some may be broken."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.data.sources import SUFFIXES
from edgetl.errors import DataError, ImageError
from edgetl.progress import SILENT, Progress
from edgetl.runtime.session import BATCH, Prediction, Session


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """What became of one image: a prediction, or None and the reason in `error`."""

    path: str
    prediction: Prediction | None
    error: str = ""


def find_images(names: Sequence[str], limit: int | None = None) -> tuple[Path, ...]:
    """Image files for the names given: a file as it is, a folder with all images below it in sorted order.

    Args:
        names: files and folders.
        limit: return at most so many.

    Raises:
        DataError: a name does not exist, or a folder holds no images.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise DataError(f"The folder {path} holds no images.")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"There is no image or folder at {path}.")
    return tuple(found[:limit])


def predict_all(
    session: Session, images: Sequence[Path], *, top_k: int = 1, progress: Progress = SILENT
) -> tuple[ImageResult, ...]:
    """Label image files; one that cannot be used is reported and does not stop the others.

    Raises:
        ImageError: no image at all can be used.
    """
    results: list[ImageResult] = []
    with (
        progress.task("Predicting", total=len(images)) as task,
        ThreadPoolExecutor(max(1, session.backend.threads)) as pool,
    ):
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            results += _predict_batch(session, part, list(pool.map(_Loader(session), part)), top_k)
            task.advance(len(part))
    broken = [result.error for result in results if result.prediction is None]
    if broken and len(broken) == len(results):
        raise ImageError("\n".join(broken[:10]))
    for error in broken:
        progress.warning(error)
    return tuple(results)


class _Loader:
    """Gives an image's pixels, or the sentence that says why there are none."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __call__(self, path: Path) -> NDArray[np.uint8] | str:
        try:
            return self.session.pixels(path)
        except ImageError as error:
            return str(error)


def _predict_batch(
    session: Session, paths: Sequence[Path], loaded: Sequence[NDArray[np.uint8] | str], top_k: int
) -> list[ImageResult]:
    pixels = [item for item in loaded if not isinstance(item, str)]
    predictions = iter(session.rank(session.run(np.stack(pixels)), top_k) if pixels else ())
    return [
        ImageResult(path=str(path), prediction=None, error=item)
        if isinstance(item, str)
        else ImageResult(path=str(path), prediction=next(predictions))
        for path, item in zip(paths, loaded, strict=True)
    ]
