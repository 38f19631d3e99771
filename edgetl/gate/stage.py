"""The gate: hold a bundle to a stored baseline, or to another bundle measured beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgetl.errors import BaselineError
from edgetl.gate import baseline as baselines
from edgetl.gate.capture import ImageSet, Timing, capture, capture_pair
from edgetl.gate.compare import Limits, compare
from edgetl.progress import SILENT, Progress
from edgetl.records import GateReport


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """What passes, how latency is sampled, and what to do on another machine than the baseline's.

    `timing` is taken from the baseline where unset, so that like is compared with like.
    """

    limits: Limits = field(default_factory=Limits)
    timing: Timing | None = None
    allow_other_machine: bool = False


@dataclass(frozen=True, kw_only=True)
class GateInputs:
    """The bundle, and either a `baseline` file or another bundle `against` which it is measured.

    `images` measures accuracy on them; the bundles' own test scores are compared where unset.
    """

    bundle: Path
    variant: str | None = None
    baseline: Path | None = None
    against: Path | None = None
    images: ImageSet | None = None


def run(config: GateOptions, inputs: GateInputs, *, progress: Progress = SILENT) -> GateReport:
    """Measure and compare.

    Returns:
        The report; `passed` is False where something got worse than the limits allow.

    Raises:
        BaselineError: no baseline was named, it is missing or broken, or not comparable. Never a pass.
        BundleError: a bundle cannot be used.
    """
    if (inputs.baseline is None) == (inputs.against is None):
        raise BaselineError("Name one thing to compare with: a baseline file, or another bundle.")
    if inputs.against is not None:
        before, now = capture_pair(
            inputs.against,
            inputs.bundle,
            variant=inputs.variant,
            images=inputs.images,
            timing=config.timing,
            progress=progress,
        )
        return compare(before, now, config.limits, interleaved=True)
    assert inputs.baseline is not None
    stored = baselines.load(inputs.baseline)
    timing = config.timing or Timing(
        threads=stored.latency.threads, warmup=stored.latency.warmup, runs=stored.latency.runs
    )
    current = capture(
        inputs.bundle, variant=inputs.variant, images=inputs.images, timing=timing, progress=progress
    )
    return compare(stored, current, config.limits, allow_other_machine=config.allow_other_machine)
