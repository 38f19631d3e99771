"""The gate: hold a bundle to a stored baseline, or to another bundle measured side by side with it."""

from __future__ import annotations

from pathlib import Path

from edgetl.errors import BaselineError
from edgetl.gate import baseline as baselines
from edgetl.gate.baseline import Baseline
from edgetl.gate.capture import Timing, capture, capture_pair
from edgetl.gate.compare import Limits, compare, refuse_other_target, refuse_other_task
from edgetl.gate.latency import SECONDS
from edgetl.process import usable_cores
from edgetl.progress import SILENT, Progress
from edgetl.records.gate import GateReport
from edgetl.records.scores import BadImages


def make_baseline(
    bundle: Path,
    *,
    data: Path | None = None,
    bad_images: BadImages = BadImages.REFUSE,
    variant: str | None = None,
    target: str = "auto",
    threads: int | None = None,
    warmup: int = 20,
    runs: int = 200,
    progress: Progress = SILENT,
) -> Baseline:
    """Measure a bundle here, to hold later ones to.

    Args:
        bundle: the bundle.
        data: labelled images to measure accuracy on; the bundle's own test score is taken where unset.
        bad_images: skip images that cannot be used, or refuse the set.
        variant: its variant, the default one where unset.
        target: the engine, as in `edgetl.load`.
        threads: threads of the engine; every usable core where unset.
        warmup: calls before the first latency sample.
        runs: latency samples.
        progress: shows images and samples.

    Raises:
        BundleError: the bundle cannot be used.
        BaselineError: no images were given and the bundle has no score of its own.
        DataError: the images cannot be used, or have a class that the bundle does not know.
    """
    timing = Timing(threads=threads, warmup=warmup, runs=runs)
    return capture(
        bundle,
        variant=variant,
        target=target,
        data=data,
        bad_images=bad_images,
        timing=timing,
        progress=progress,
    )


def gate_baseline(
    bundle: Path,
    baseline: Path,
    *,
    limits: Limits | None = None,
    data: Path | None = None,
    bad_images: BadImages = BadImages.REFUSE,
    variant: str | None = None,
    target: str = "auto",
    threads: int | None = None,
    history: Path | None = None,
    allow_other_machine: bool = False,
    progress: Progress = SILENT,
) -> GateReport:
    """Measure a bundle and hold it to a stored baseline.

    Latency is sampled as the baseline's was; `threads` overrides its thread count. `history` is a file of
    `edgetl bench --history` with five runs or more of this bundle's name, variant and engine on this machine: it shows
    by how much the median differs between runs, which is taken as large where unset. The other arguments are as in
    `make_baseline`.

    Returns:
        The report; `passed` is False where something got worse than the limits allow.

    Raises:
        BaselineError: the baseline is missing or broken, or not comparable. Never a pass.
        BundleError: the bundle cannot be used.
        HistoryError: the history cannot be read.
    """
    from edgetl.bundle.archive import open_bundle
    from edgetl.history.trend import spread

    stored = baselines.load(baseline)
    manifest = open_bundle(bundle).manifest
    refuse_other_task(stored.task, manifest.task)
    timing = Timing(
        threads=threads or stored.latency.threads, warmup=stored.latency.warmup, runs=stored.latency.runs
    )
    refuse_other_target(stored.target, _engine(bundle, variant, target, timing.engine_threads))
    current = capture(
        bundle,
        variant=variant,
        target=target,
        data=data,
        bad_images=bad_images,
        timing=timing,
        progress=progress,
    )
    known = None
    if history is not None:
        subject = (current.machine.fingerprint, manifest.name, current.variant, current.target)
        known = spread(history, *subject, threads=current.latency.threads)
    return compare(stored, current, limits, spread=known, allow_other_machine=allow_other_machine)


def gate_against(
    bundle: Path,
    reference: Path,
    *,
    limits: Limits | None = None,
    data: Path | None = None,
    bad_images: BadImages = BadImages.REFUSE,
    variant: str | None = None,
    target: str = "auto",
    threads: int | None = None,
    seconds: float = SECONDS,
    progress: Progress = SILENT,
) -> GateReport:
    """Measure a bundle and a reference bundle in this process, their calls timed in turn, and compare.

    Arguments, result and errors are as in `make_baseline` and `gate_baseline`, and:

    Args:
        bundle: the bundle that is judged.
        reference: the bundle to hold to.
        limits: what passes; the defaults where unset.
        data: labelled images to measure accuracy on.
        bad_images: as in `make_baseline`; both are scored on the same images.
        variant: the variant of both.
        target: the engine of both.
        threads: threads of the engines.
        seconds: longest time for the timing, which stops as soon as it is decided; then latency is unsure.
        progress: shows images and of the timing.

    Raises:
        BaselineError: `auto` takes another engine for the one than for the other.
    """
    from edgetl.bundle.archive import open_bundle

    limits = limits or Limits()
    before, now = (open_bundle(path).manifest for path in (reference, bundle))
    refuse_other_task(before.task, now.task)
    engines = [_engine(path, variant, target, threads or usable_cores()) for path in (reference, bundle)]
    if engines[0] != engines[1]:
        raise BaselineError(
            f"{target} runs {reference.name} on {engines[0]} and {bundle.name} on {engines[1]}, whose latencies do not "
            "compare. Name one engine for both (--target), or measure both with: edgetl tune BUNDLE"
        )
    first, second, trial = capture_pair(
        reference,
        bundle,
        limit=limits.max_latency_increase,
        seconds=seconds,
        variant=variant,
        target=target,
        data=data,
        bad_images=bad_images,
        threads=threads,
        progress=progress,
    )
    return compare(first, second, limits, trial=trial)


def _engine(bundle: Path, variant: str | None, target: str, threads: int) -> str:
    """What a bundle would run on, known before anything is measured."""
    from edgetl.bundle.archive import open_bundle
    from edgetl.runtime.choice import choose_here
    from edgetl.runtime.session import parse_target

    chosen = choose_here(open_bundle(bundle), threads=threads, target=parse_target(target), variant=variant)
    return chosen.target.value
