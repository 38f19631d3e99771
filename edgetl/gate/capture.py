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
from edgetl.bench.stage import model_call, variant_name
from edgetl.bench.statistics import summarise
from edgetl.bench.timer import time_interleaved
from edgetl.errors import BaselineError, DataError
from edgetl.gate.baseline import Accuracy, Baseline, Loads
from edgetl.gate.layers import layer_bits
from edgetl.gate.loads import measure_loads
from edgetl.metrics import evaluate_predictions
from edgetl.progress import SILENT, Progress
from edgetl.records import Evaluation, Latency

if TYPE_CHECKING:
    from edgetl.bundle.manifest import Manifest, Variant
    from edgetl.runtime.session import Session


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


def capture(
    bundle: Path,
    *,
    variant: str | None = None,
    data: Path | None = None,
    timing: Timing | None = None,
    progress: Progress = SILENT,
) -> Baseline:
    """Measure a bundle: accuracy, latency (the model alone, batch 1), size, load time, peak memory and precision.

    Args:
        bundle: the bundle.
        variant: its variant, the default one where unset.
        data: labelled images to measure accuracy on; the bundle's own test score is taken where unset.
        timing: how latency is sampled.
        progress: told of images and samples.

    Raises:
        BundleError: the bundle cannot be used.
        BaselineError: no images were given and the bundle has no score of its own.
        DataError: the images cannot be used, or have a class that the bundle does not know.
    """
    [figures] = _capture((bundle,), variant, data, timing or Timing(), progress)
    return figures


def capture_pair(
    reference: Path,
    candidate: Path,
    *,
    variant: str | None = None,
    data: Path | None = None,
    timing: Timing | None = None,
    progress: Progress = SILENT,
) -> tuple[Baseline, Baseline]:
    """Measure two bundles as `capture` does, with their calls timed in turn in this process.

    Sample i of both latencies comes from the same round: compare them with `interleaved=True`.
    """
    first, second = _capture((reference, candidate), variant, data, timing or Timing(), progress)
    return first, second


def _capture(
    bundles: Sequence[Path],
    variant: str | None,
    data: Path | None,
    timing: Timing,
    progress: Progress,
) -> list[Baseline]:
    from edgetl.bundle.archive import open_bundle
    from edgetl.runtime.session import load

    with ExitStack() as stack:
        sessions: list[Session] = []
        calls: dict[str, Callable[[], object]] = {}
        for number, path in enumerate(bundles):
            session = stack.enter_context(load(path, variant=variant, threads=timing.engine_threads))
            sessions.append(session)
            calls[str(number)] = model_call(session, open_bundle(path).golden_images(), 1)
        timed = time_interleaved(calls, warmup=timing.warmup, runs=timing.runs, progress=progress)
        accuracies = [_accuracy(session, variant, data, progress) for session in sessions]
        layers = [layer_bits(session.bundle.read(session.variant.member)) for session in sessions]
    loads = measure_loads(bundles, variant=variant, threads=timing.engine_threads, progress=progress)
    return [
        _figures(
            path,
            session,
            accuracies[number],
            _latency(timed[str(number)], timing),
            loads[number],
            layers[number],
        )
        for number, (path, session) in enumerate(zip(bundles, sessions, strict=True))
    ]


def _figures(
    path: Path, session: Session, accuracy: Accuracy, latency: Latency, loads: Loads, layers: dict[str, int]
) -> Baseline:
    return Baseline(
        bundle=path.name,
        bundle_sha256=files.sha256_file(path),
        task=session.manifest.task,
        variant=session.variant.name,
        model_sha256=session.variant.sha256,
        labels=session.labels,
        size_bytes=session.variant.size_bytes,
        accuracy=accuracy,
        latency=latency,
        loads=loads,
        layers=layers,
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


def _accuracy(session: Session, variant: str | None, data: Path | None, progress: Progress) -> Accuracy:
    if data is not None:
        return measure_accuracy(session, data, progress=progress)
    found = _variant(session.manifest, variant)
    known = session.manifest.provenance.data_sha256
    for split, evaluation in (("test", found.test), ("val", found.val)):
        if evaluation is not None:
            return Accuracy(
                source="manifest", evaluation=evaluation, images_sha256=_identity(split, known, evaluation)
            )
    raise BaselineError(
        f"Variant {found.name} of {session.manifest.name} has no measured accuracy in its bundle. "
        "Give an image set to measure it on."
    )


def measure_accuracy(session: Session, data: Path, *, progress: Progress = SILENT) -> Accuracy:
    """Score a session on labelled images, and keep what it said of each.

    Raises:
        DataError: there are no images, of a class that the bundle does not know, or none of one that it does.
        ImageError: an image cannot be read.
    """
    from edgetl.data.sources import find
    from edgetl.runtime.evaluate import find_samples, predict_logits

    samples = find_samples(data, session.labels, progress=progress)
    truth = np.array([sample.label for sample in samples], dtype=np.int64)
    missing = [name for at, name in enumerate(session.labels) if at not in set(truth.tolist())]
    if missing:
        raise DataError(
            f"{data} has no images of {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if missing[3:] else ''}, "
            "which the bundle knows: a class without images could be lost unseen. Add images of it."
        )
    predicted = predict_logits(session, samples, progress=progress).argmax(axis=1)
    root = find(str(data)).root
    return Accuracy(
        source="measured",
        evaluation=evaluate_predictions(truth, predicted, session.labels),
        images_sha256=files.sha256_json(
            [[files.sha256_file(s.path), session.labels[s.label]] for s in samples]
        ),
        paths=tuple(s.path.relative_to(root).as_posix() for s in samples),
        truth=tuple(truth.tolist()),
        predictions=tuple(predicted.tolist()),
    )


def _identity(split: str, data_sha256: str, evaluation: Evaluation) -> str:
    """Which images a bundle's own score belongs to, as far as the bundle tells."""
    counts = [[score.label, score.support] for score in evaluation.classes]
    return files.sha256_json([split, data_sha256, counts])


def _variant(manifest: Manifest, wanted: str | None) -> Variant:
    name = variant_name(manifest, wanted)
    return next(v for v in manifest.variants if v.name == name)
