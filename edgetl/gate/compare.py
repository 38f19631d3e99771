"""Comparing a bundle's figures with a baseline's; pure functions on records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import BaselineError, ConfigError
from edgetl.gate.baseline import Baseline
from edgetl.gate.latency_check import check_stored, check_trial
from edgetl.metrics import compare_paired, difference_interval
from edgetl.records import GateCheck, GateReport, LatencyTrial, Verdict

# A drop of 0.95 to 0.94 is 0.010000000000000009 in floating point and must not exceed a limit of 0.01.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much worse than the baseline passes.

    Attributes:
        max_accuracy_drop: top-1 on the 0..1 scale; 0.01 is one point.
        max_latency_increase: of the median, relative; 0.025 is 2.5%. That is half of five per cent: a bundle as fast
            as its baseline and one that is 5% slower are both as far from it as can be, so both are told soon.
        max_size_increase: of the model file, relative.

    Raises:
        ConfigError: with all problems at once.
    """

    max_accuracy_drop: float = 0.01
    max_latency_increase: float = 0.025
    max_size_increase: float = 0.05

    def __post_init__(self) -> None:
        values = {
            "max_accuracy_drop": (self.max_accuracy_drop, 1.0),
            "max_latency_increase": (self.max_latency_increase, float("inf")),
            "max_size_increase": (self.max_size_increase, float("inf")),
        }
        problems = [
            f"{name} is {value}, expected a share from 0" + (f" to {top:g}." if top == 1.0 else " up.")
            for name, (value, top) in values.items()
            if not 0.0 <= value <= top
        ]
        if problems:
            raise ConfigError(problems)


def compare(
    baseline: Baseline,
    current: Baseline,
    limits: Limits | None = None,
    *,
    trial: LatencyTrial | None = None,
    spread: float | None = None,
    allow_other_machine: bool = False,
) -> GateReport:
    """Hold a bundle's figures to a baseline.

    Accuracy fails when top-1 drops by more than the limit, size when it grows by more. Latency passes when the
    increase of the median is surely within the limit, fails when it surely exceeds it (all of its 99% interval does),
    and is else unsure.

    Args:
        baseline: the figures to hold to.
        current: the bundle's figures.
        limits: what passes; the defaults where unset.
        trial: both were timed in turn in one process, and this is the outcome; its limit holds.
        spread: relative standard deviation of the median latency between runs of one bundle on this machine, where no
            trial was held; see `check_stored`.
        allow_other_machine: show latency without judging it where the machines differ, instead of refusing.

    Raises:
        BaselineError: the figures are not comparable: other classes, other images, another batch or thread
            count, another machine.
    """
    limits = limits or Limits()
    _refuse_other_subject(baseline, current)
    same_machine = baseline.machine.fingerprint == current.machine.fingerprint
    if not same_machine and not allow_other_machine:
        raise BaselineError(
            f"The baseline was measured on another machine ({baseline.machine.fingerprint}; this is "
            f"{current.machine.fingerprint}), so latency cannot be compared. Write a baseline here, compare "
            "with a bundle (--against), or show latency without judging it (--allow-other-machine)."
        )
    checks = (
        _accuracy(baseline, current, limits.max_accuracy_drop),
        check_trial(baseline.latency, current.latency, trial)
        if trial is not None
        else check_stored(
            baseline.latency,
            current.latency,
            limits.max_latency_increase,
            spread=spread,
            judged=same_machine,
        ),
        _size(baseline, current, limits.max_size_increase),
    )
    return GateReport(
        baseline=baseline.bundle,
        current=current.bundle,
        variant=current.variant,
        checks=checks,
        machine=current.machine,
        trial=trial,
    )


def _refuse_other_subject(baseline: Baseline, current: Baseline) -> None:
    """Figures of other things than the baseline's are not comparable.

    Raises:
        BaselineError: naming the first difference.
    """
    if baseline.labels != current.labels:
        gone = sorted(set(baseline.labels) - set(current.labels))
        new = sorted(set(current.labels) - set(baseline.labels))
        what = f"missing {_some(gone)}, new {_some(new)}" if gone or new else "in another order"
        raise BaselineError(f"The bundle's classes are not the baseline's: {what}.")
    before, now = baseline.accuracy, current.accuracy
    if before.source != now.source:
        data = {"measured": "on an image set", "manifest": "as written in the bundle"}
        raise BaselineError(
            f"The baseline's accuracy is {data[before.source]}, the bundle's {data[now.source]}. "
            "Give both the same image set, or neither."
        )
    if before.images_sha256 != now.images_sha256:
        raise BaselineError(
            f"The baseline's accuracy was measured on other images ({before.evaluation.images}; now "
            f"{now.evaluation.images}). Give the same image set, or write the baseline anew."
        )
    for name in ("scenario", "batch", "threads"):
        was, is_now = getattr(baseline.latency, name), getattr(current.latency, name)
        if was != is_now:
            raise BaselineError(
                f"The baseline's latency was measured with {name} {was}, this one with {is_now}."
            )


def _accuracy(baseline: Baseline, current: Baseline, limit: float) -> GateCheck:
    before, now = baseline.accuracy, current.accuracy
    change, p_value = now.evaluation.top1 - before.evaluation.top1, None
    if before.hits and now.hits:
        paired = compare_paired(_hits(before.hits), _hits(now.hits))
        interval, p_value = paired.interval, paired.p_value
    else:
        interval = difference_interval(
            (before.evaluation.top1, before.evaluation.top1_interval),
            (now.evaluation.top1, now.evaluation.top1_interval),
        )
    passed = -change <= limit + _ROUNDING
    sure = f"95% interval {_points(interval[0])} to {_points(interval[1])}"
    if p_value is not None:
        sure += f", McNemar p = {p_value:.2g}"
    sentence = (
        f"Top-1 went from {before.evaluation.top1:.1%} to {now.evaluation.top1:.1%} on "
        f"{now.evaluation.images} images: "
        f"{_points(change)} points ({sure}); "
        + _verdict(passed, f"a drop of {100 * limit:.3g} point" + ("" if limit == 0.01 else "s"))
    )
    return GateCheck(
        name="accuracy",
        unit="top-1",
        baseline=before.evaluation.top1,
        current=now.evaluation.top1,
        change=change,
        interval=interval,
        limit=limit,
        judged=True,
        verdict=Verdict.PASS if passed else Verdict.FAIL,
        sentence=sentence,
    )


def _size(baseline: Baseline, current: Baseline, limit: float) -> GateCheck:
    change = current.size_bytes / baseline.size_bytes - 1
    passed = change <= limit + _ROUNDING
    sentence = (
        f"The model file went from {baseline.size_bytes:,} to {current.size_bytes:,} bytes: "
        f"{_percent(change)}; " + _verdict(passed, f"an increase of {100 * limit:.3g}%")
    )
    return GateCheck(
        name="size",
        unit="bytes",
        baseline=float(baseline.size_bytes),
        current=float(current.size_bytes),
        change=change,
        interval=None,
        limit=limit,
        judged=True,
        verdict=Verdict.PASS if passed else Verdict.FAIL,
        sentence=sentence,
    )


def _verdict(passed: bool, allowed: str) -> str:
    return f"{allowed} is allowed: {'passes' if passed else 'FAILS'}."


def _hits(text: str) -> NDArray[np.bool_]:
    return np.array([letter == "1" for letter in text], dtype=np.bool_)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}%"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return shown or "none"
