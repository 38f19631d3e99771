"""Comparing a bundle's figures with a baseline's; pure functions on records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetl.errors import BaselineError, ConfigError
from edgetl.gate.baseline import Accuracy, Baseline
from edgetl.gate.latency_check import check_stored, check_trial
from edgetl.gate.loads import judge_load_time, judge_memory
from edgetl.records.gate import BoxTurns, Flip, Flips, GateCheck, GateReport, LatencyTrial, Verdict
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Detection, MultiHead, ScoreLimits, Task, TaskSpec, labels_of

if TYPE_CHECKING:
    pass

# 1.05 / 1 - 1 is 0.050000000000000044 in floating point and must not exceed a limit of 0.05.
_ROUNDING = 1e-9
_CPU = "CPUExecutionProvider"
# Flipped images that a report names, of each kind.
_FLIPS_KEPT = 200


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much worse than the baseline passes.

    Attributes:
        max_accuracy_drop: of top-1 and macro-F1 on the 0..1 scale; 0.01 is one point. Unset: one point, or the least
            that the images can settle (`edgetl.tasks.judging.settled_margin`).
        max_recall_drop: of any class's recall, on the 0..1 scale.
        max_latency_increase: of the median, relative; 0.025 is 2.5%. That is half of five per cent: a bundle as fast
            as its baseline and one that is 5% slower are both as far from it as can be, so both are recognised soon.
        max_size_increase: of the model file, relative.
        max_memory_increase: of the peak memory of a fresh process, relative.
        max_load_increase: of the time to load in a fresh process, relative; wide, since few processes are timed.
        max_bits_increase: of the mean bits that convolutions and matrix products compute in, relative.

    Raises:
        ConfigError: with all problems at once.
    """

    max_accuracy_drop: float | None = None
    max_recall_drop: float = 0.10
    max_latency_increase: float = 0.025
    max_size_increase: float = 0.05
    max_memory_increase: float = 0.10
    max_load_increase: float = 0.50
    max_bits_increase: float = 0.0

    def __post_init__(self) -> None:
        values = {
            "max_accuracy_drop": (self.max_accuracy_drop or 0.0, 1.0),
            "max_recall_drop": (self.max_recall_drop, 1.0),
            "max_latency_increase": (self.max_latency_increase, float("inf")),
            "max_size_increase": (self.max_size_increase, float("inf")),
            "max_memory_increase": (self.max_memory_increase, float("inf")),
            "max_load_increase": (self.max_load_increase, float("inf")),
            "max_bits_increase": (self.max_bits_increase, float("inf")),
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

    Accuracy is judged by `edgetl.tasks.classification.judge`, memory and load time by `edgetl.gate.loads`.
    Size and precision fail when they grow by more than the limit. Latency passes when the increase of the
    median is surely within the limit, fails when all of its 99% interval exceeds it, and is else unsure.

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
        *_accuracy(baseline, current, limits),
        check_trial(baseline.latency, current.latency, trial)
        if trial is not None
        else check_stored(
            baseline.latency,
            current.latency,
            limits.max_latency_increase,
            spread=spread,
            judged=same_machine,
            mean=baseline.handed_on is not None or current.handed_on is not None,
        ),
        _size(baseline, current, limits.max_size_increase),
        judge_memory(baseline.loads, current.loads, limits.max_memory_increase, same_machine=same_machine),
        judge_load_time(
            baseline.loads,
            current.loads,
            limits.max_load_increase,
            same_machine=same_machine,
            interleaved=trial is not None,
        ),
        _precision(baseline, current, limits.max_bits_increase),
        *_placement(baseline, current),
    )
    return GateReport(
        baseline=baseline.bundle,
        current=current.bundle,
        variant=current.variant,
        target=current.target,
        checks=checks,
        machine=current.machine,
        trial=trial,
        flips=None
        if isinstance(current.task, Detection)
        else flips(baseline.accuracy, current.accuracy, task_of(current.task)),
        boxes=box_turns(baseline.accuracy, current.accuracy, baseline.task, current.task),
        image_set=current.accuracy.image_set,
    )


def refuse_other_task(before: TaskSpec, now: TaskSpec) -> None:
    """What a bundle's manifest alone says, so that nothing is measured in vain.

    Raises:
        BaselineError: the task or the classes are not the baseline's.
    """
    for head, kind in _kinds(before).items():
        if (own := _kinds(now).get(head, kind)) != kind:
            where = f" in the head {head}" if head else ""
            raise BaselineError(
                f"The baseline is of the task {kind}{where}, the bundle of {own}: they cannot be compared."
            )
    was, is_now = labels_of(before), labels_of(now)
    if was != is_now:
        gone, new = sorted(set(was) - set(is_now)), sorted(set(is_now) - set(was))
        what = f"missing {_some(gone)}, new {_some(new)}" if gone or new else "in another order"
        raise BaselineError(f"The bundle's classes are not the baseline's: {what}.")


def _kinds(task: TaskSpec) -> dict[str, str]:
    """What is asked, and by which head; of a task without heads the name is empty."""
    heads = {name: head.kind for name, head in task.heads.items()} if isinstance(task, MultiHead) else {}
    return {"": task.kind, **heads}


def refuse_other_target(before: str, now: str) -> None:
    """Figures of two engines are not comparable; `auto` takes another one once `edgetl tune` found it faster.

    Raises:
        BaselineError: the engines are not the same.
    """
    if before != now:
        raise BaselineError(
            f"The baseline was measured on the target {before}, this on {now}. Name the same one "
            "(--target), or write the baseline anew."
        )


def _refuse_other_subject(baseline: Baseline, current: Baseline) -> None:
    """Figures of other things than the baseline's are not comparable.

    Raises:
        BaselineError: naming the first difference.
    """
    refuse_other_task(baseline.task, current.task)
    before, now = baseline.accuracy, current.accuracy
    if before.source != now.source:
        data = {"measured": "on an image set", "manifest": "as written in the bundle"}
        raise BaselineError(
            f"The baseline's accuracy is {data[before.source]}, the bundle's {data[now.source]}. "
            "Give both the same image set, or neither."
        )
    if before.images_sha256 != now.images_sha256:
        raise BaselineError(
            f"The baseline's accuracy was measured on other images: {_other_images(before, now)}. "
            "Give the same image set, or write the baseline anew."
        )
    refuse_other_target(baseline.target, current.target)
    for name in ("scenario", "batch", "threads"):
        was, is_now = getattr(baseline.latency, name), getattr(current.latency, name)
        if was != is_now:
            raise BaselineError(
                f"The baseline's latency was measured with {name} {was}, this one with {is_now}."
            )


def _other_images(before: Accuracy, now: Accuracy) -> str:
    gone, new = sorted(set(before.paths) - set(now.paths)), sorted(set(now.paths) - set(before.paths))
    if gone or new:
        return f"missing {_some(gone)}, new {_some(new)}"
    if before.paths:
        return "the same names with another content or class"
    return f"{before.evaluation.images} by another data hash; now {now.evaluation.images}"


def _accuracy(baseline: Baseline, current: Baseline, limits: Limits) -> tuple[GateCheck, ...]:
    before, now = baseline.accuracy, current.accuracy
    same_model = baseline.model_sha256 == current.model_sha256
    task = task_of(current.task)
    allowed = ScoreLimits(
        max_drop=limits.max_accuracy_drop, max_class_drop=limits.max_recall_drop, same_model=same_model
    )
    if not now.predictions:
        return task.judge_scores(before.evaluation, now.evaluation, allowed)
    truths, was, is_now = map(task.read, (now.truth, before.predictions, now.predictions))
    return task.judge(truths, was, is_now, allowed)


def flips(before: Accuracy, now: Accuracy, task: Task) -> Flips | None:
    """The images that one of the two got wholly right; None where there are no answers image by image."""
    if not now.predictions:
        return None
    truths, was_, now_ = (task.read(values) for values in (now.truth, before.predictions, now.predictions))
    said = [task.words(values) for values in (truths, was_, now_)]
    turned = task.right(truths, was_) != task.right(truths, now_)
    found = [
        (bool(was_right), Flip(path=path, label=truth, before=was, after=is_now))
        for path, truth, was, is_now, was_right, flipped in zip(
            now.paths, *said, task.right(truths, was_), turned, strict=True
        )
        if flipped
    ]
    lost, won = [flip for was, flip in found if was], [flip for was, flip in found if not was]
    return Flips(lost=len(lost), won=len(won), images=(*lost[:_FLIPS_KEPT], *won[:_FLIPS_KEPT]))


def box_turns(before: Accuracy, now: Accuracy, earlier: TaskSpec, task: TaskSpec) -> BoxTurns | None:
    """Of detectors, what became of their boxes; None of others, and where there are no answers image by image."""
    if not (isinstance(earlier, Detection) and isinstance(task, Detection) and now.predictions):
        return None
    from edgetl.tasks.detection.turns import turns

    code = task_of(task)
    return turns(
        now.paths,
        code.read(now.truth),
        code.read(before.predictions),
        code.read(now.predictions),
        task.labels,
        (earlier.threshold, task.threshold),
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


def _precision(baseline: Baseline, current: Baseline, limit: float) -> GateCheck:
    """A layer that fell back to wider arithmetic (INT8 to float) is seen here, whatever it costs on this machine."""
    before, now = (_mean_bits(figures.layers) for figures in (baseline, current))
    change = now / before - 1
    passed = change <= limit + _ROUNDING
    sentence = (
        f"Convolutions and matrix products compute in {_widths(current.layers)}, before in "
        f"{_widths(baseline.layers)} (by the model's graph); "
        + _verdict(passed, f"an increase of the mean by {100 * limit:.3g}%")
    )
    return GateCheck(
        name="precision",
        unit="bits",
        baseline=before,
        current=now,
        change=change,
        interval=None,
        limit=limit,
        judged=True,
        verdict=Verdict.PASS if passed else Verdict.FAIL,
        sentence=sentence,
    )


def _placement(baseline: Baseline, current: Baseline) -> tuple[GateCheck, ...]:
    """Nodes that an accelerator leaves to the CPU, where the engine has both."""
    if not current.placement or not baseline.placement:
        return ()
    before, now = (_share_on_cpu(figures.placement) for figures in (baseline, current))
    passed = now <= before + _ROUNDING
    off = [figures.placement.get(_CPU, 0) for figures in (baseline, current)]
    sentence = (
        f"{off[1]} of {sum(current.placement.values())} nodes run off the accelerator, before {off[0]} of "
        f"{sum(baseline.placement.values())}; " + _verdict(passed, "no larger share")
    )
    return (
        GateCheck(
            name="off accelerator",
            unit="share",
            baseline=before,
            current=now,
            change=now - before,
            interval=None,
            limit=0.0,
            judged=True,
            verdict=Verdict.PASS if passed else Verdict.FAIL,
            sentence=sentence,
        ),
    )


def _share_on_cpu(placement: dict[str, int]) -> float:
    return placement.get(_CPU, 0) / sum(placement.values())


def _mean_bits(layers: dict[str, int]) -> float:
    counted = sum(layers.values())
    return sum(int(bits) * number for bits, number in layers.items()) / counted if counted else 32.0


def _widths(layers: dict[str, int]) -> str:
    return ", ".join(f"{bits} bits ({number})" for bits, number in layers.items()) or "unknown arithmetic"


def _verdict(passed: bool, allowed: str) -> str:
    return f"{allowed} is allowed: {'passes' if passed else 'FAILS'}."


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}%"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return shown or "none"
