"""Measuring a bundle for the gate: its figures now, or side by side with another bundle in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetl import files
from edgetl.bench.machine import describe, usable_cores
from edgetl.bench.scenarios import Scenario
from edgetl.bench.stage import Model, model_call, variant_name
from edgetl.bench.statistics import summarise
from edgetl.bench.timer import time_interleaved
from edgetl.errors import BaselineError, DataError, ImageError
from edgetl.gate.baseline import Accuracy, Baseline
from edgetl.metrics import evaluate_predictions
from edgetl.progress import SILENT, Progress
from edgetl.records import Evaluation, Latency

if TYPE_CHECKING:
    from edgetl.bundle.manifest import Manifest, Variant

_EVALUATION_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """An image file, its class name, and the SHA-256 of its content."""

    path: Path
    label: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How latency is sampled: threads of the engine (every usable core where unset) and calls."""

    threads: int | None = None
    warmup: int = 20
    runs: int = 200

    @property
    def engine_threads(self) -> int:
        """Threads of the engine, as a number."""
        return self.threads or usable_cores()


Images = Sequence[LabelledImage]


def open_images(data: Path | None, *, progress: Progress = SILENT) -> tuple[LabelledImage, ...] | None:
    """The labelled images of a folder or CSV: its test split, else its validation split, else all.

    Raises:
        DataError: there is nothing to read; None for `data` gives None.
    """
    if data is None:
        return None
    from edgetl.data.sources import find

    entries = find(str(data), progress=progress).entries
    splits = {entry.split for entry in entries}
    chosen = next((split for split in ("test", "val") if split in splits), None)
    return tuple(
        LabelledImage(path=entry.path, label=entry.label, sha256=_sha256(entry.path))
        for entry in sorted(entries, key=lambda entry: entry.path)
        if chosen is None or entry.split == chosen
    )


def capture(
    bundle: Path,
    *,
    variant: str | None = None,
    images: Images | None = None,
    timing: Timing | None = None,
    progress: Progress = SILENT,
) -> Baseline:
    """Measure a bundle: accuracy, latency (the model alone, batch 1) and size.

    Args:
        bundle: the bundle.
        variant: its variant, the default one where unset.
        images: measure accuracy on these; where unset, the bundle's own test score is taken.
        timing: how latency is sampled.
        progress: told of images and samples.

    Raises:
        BundleError: the bundle cannot be used.
        BaselineError: no images were given and the bundle has no score of its own.
        DataError: the images have a class that the bundle does not know.
    """
    [figures] = _capture((bundle,), variant, images, timing or Timing(), progress)
    return figures


def capture_pair(
    reference: Path,
    candidate: Path,
    *,
    variant: str | None = None,
    images: Images | None = None,
    timing: Timing | None = None,
    progress: Progress = SILENT,
) -> tuple[Baseline, Baseline]:
    """Measure two bundles as `capture` does, with their calls timed in turn in this process.

    Sample i of both latencies comes from the same round: compare them with `interleaved=True`.
    """
    first, second = _capture((reference, candidate), variant, images, timing or Timing(), progress)
    return first, second


def _capture(
    bundles: Sequence[Path],
    variant: str | None,
    images: Images | None,
    timing: Timing,
    progress: Progress,
) -> list[Baseline]:
    from edgetl.bundle.archive import open_bundle
    from edgetl.runtime.session import load

    with ExitStack() as stack:
        sessions: list[Model] = []
        calls: dict[str, Callable[[], object]] = {}
        for number, path in enumerate(bundles):
            session = stack.enter_context(load(path, variant=variant, threads=timing.engine_threads))
            sessions.append(session)
            calls[str(number)] = model_call(session, open_bundle(path).golden_images(), 1)
        timed = time_interleaved(calls, warmup=timing.warmup, runs=timing.runs, progress=progress)
        accuracies = [_accuracy(session, variant, images, progress) for session in sessions]
    return [
        _figures(path, session.manifest, variant, accuracy, _latency(timed[str(number)], timing))
        for number, (path, session, accuracy) in enumerate(zip(bundles, sessions, accuracies, strict=True))
    ]


def _figures(
    path: Path, manifest: Manifest, variant: str | None, accuracy: Accuracy, latency: Latency
) -> Baseline:
    found = _variant(manifest, variant)
    return Baseline(
        bundle=path.name,
        bundle_sha256=files.sha256_file(path),
        variant=found.name,
        labels=manifest.labels,
        size_bytes=found.size_bytes,
        accuracy=accuracy,
        latency=latency,
        machine=describe(),
    )


def _latency(samples_ms: list[float], timing: Timing) -> Latency:
    return summarise(
        samples_ms,
        scenario=Scenario.SINGLE_STREAM.value,
        batch=1,
        threads=timing.engine_threads,
        warmup=timing.warmup,
    )


def _accuracy(session: Model, variant: str | None, images: Images | None, progress: Progress) -> Accuracy:
    if images is not None:
        return measure_accuracy(session, images, progress=progress)
    found = _variant(session.manifest, variant)
    data = session.manifest.provenance.data_sha256
    for split, evaluation in (("test", found.test), ("val", found.val)):
        if evaluation is not None:
            return Accuracy(
                source="manifest", evaluation=evaluation, images_sha256=_identity(split, data, evaluation)
            )
    raise BaselineError(
        f"Variant {found.name} of {session.manifest.name} has no measured accuracy in its bundle. "
        "Give an image set to measure it on."
    )


def measure_accuracy(session: Model, images: Images, *, progress: Progress = SILENT) -> Accuracy:
    """Score a session on labelled images, and keep which ones were right.

    Raises:
        DataError: there are no images, or of a class that the bundle does not know.
        ImageError: an image cannot be read.
    """
    from edgetl.preprocess import load_batch

    names = session.manifest.labels
    if not images:
        raise DataError("The image set has no images.")
    if unknown := sorted({image.label for image in images} - set(names)):
        raise DataError(
            f"The image set has the class {unknown[0]!r}, which {session.manifest.name} does not know."
        )
    position = {name: index for index, name in enumerate(names)}
    labels = np.array([position[image.label] for image in images], dtype=np.int64)
    predicted = np.empty(len(labels), dtype=np.int64)
    with progress.task(f"Scoring {session.manifest.name}", len(labels)) as bar:
        for start in range(0, len(labels), _EVALUATION_BATCH):
            part = images[start : start + _EVALUATION_BATCH]
            batch = load_batch([image.path for image in part], session.manifest.preprocess)
            predicted[start : start + len(part)] = session.run(batch).argmax(axis=1)
            bar.advance(len(part))
    return Accuracy(
        source="measured",
        evaluation=evaluate_predictions(labels, predicted, names),
        images_sha256=files.sha256_json([[image.sha256, image.label] for image in images]),
        hits="".join("1" if right else "0" for right in labels == predicted),
    )


def _identity(split: str, data_sha256: str, evaluation: Evaluation) -> str:
    """Which images a bundle's own score belongs to, as far as the bundle tells."""
    counts = [[score.label, score.support] for score in evaluation.classes]
    return files.sha256_json([split, data_sha256, counts])


def _sha256(path: Path) -> str:
    try:
        return files.sha256_file(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}).") from error


def _variant(manifest: Manifest, wanted: str | None) -> Variant:
    name = variant_name(manifest, wanted)
    return next(v for v in manifest.variants if v.name == name)
