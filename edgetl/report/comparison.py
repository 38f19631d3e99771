"""A comparison's figures as cells, the same in the terminal and on the page."""

from __future__ import annotations

from edgetl.bench.statistics import summarise
from edgetl.comparison.record import ComparedModel, Comparison
from edgetl.records.gate import GateCheck
from edgetl.records.measured import Latency
from edgetl.report import units
from edgetl.tasks.metrics import metric

NONE = "-"


def latencies(record: Comparison) -> tuple[Latency | None, Latency | None]:
    """Both latencies: those timed in turn here, where they were; else those of the runs or bundles."""
    if record.trial is None:
        return record.first.latency, record.second.latency
    before, now = (
        summarise(list(samples), scenario="single-stream", batch=1, threads=0, warmup=record.trial.warmup)
        for samples in (record.trial.baseline_ms, record.trial.current_ms)
    )
    return before, now


def paired(record: Comparison) -> list[tuple[str, ...]]:
    """Metric, first, second, change, interval and its level: images wholly right, then the task's own checks."""
    right = record.right
    shares = [(alone + record.both_right) / right.images for alone in (right.only_first, right.only_second)]
    # With one class per image, wholly right is top-1, which needs no second row.
    simple = any(check.name == "accuracy" for check in record.checks)
    rows = [
        (
            "top-1" if simple else "wholly right",
            units.percent(shares[0]),
            units.percent(shares[1]),
            units.points(100 * right.difference),
            _points(right.interval),
            f"95%, p = {right.p_value:.2g}",
        )
    ]
    return [*rows, *(_check(check) for check in record.checks if not (simple and check.unit == "top-1"))]


def _check(check: GateCheck) -> tuple[str, ...]:
    return (
        check.name if check.name.casefold() == check.unit.casefold() else f"{check.name} ({check.unit})",
        units.percent(check.baseline),
        units.percent(check.current),
        units.points(100 * check.change),
        "" if check.interval is None else _points(check.interval),
        "90%",
    )


def _points(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"


def scores(record: Comparison) -> list[tuple[str, str, str]]:
    """Every score of both, each with its own 95% interval where it has one."""
    names = dict.fromkeys((*record.first.scores.scores, *record.second.scores.scores))
    return [(metric(name).title, _score(record.first, name), _score(record.second, name)) for name in names]


def _score(model: ComparedModel, name: str) -> str:
    found = model.scores.scores.get(name)
    if found is None:
        return NONE
    share = metric(name).unit == "share"
    shown = units.percent(found.value) if share else units.significant(found.value)
    return f"{shown} ({units.interval(found.interval)})" if found.interval and share else shown


def facts(record: Comparison) -> list[tuple[str, str, str, str]]:
    """What each is: variant, arithmetic, engine, sizes and latency, with the change where it is one of figures."""
    first, second = record.first, record.second
    rows = [
        ("variant", first.variant, second.variant, ""),
        ("precision", first.precision, second.precision, ""),
        ("engine here", first.target, second.target, ""),
        _sizes("model file", first.size_bytes, second.size_bytes),
        _sizes("bundle", first.bundle_bytes, second.bundle_bytes),
    ]
    times = latencies(record)
    for name in ("p50", "p90", "p99"):
        was, now = (None if one is None else float(getattr(one, f"{name}_ms")) for one in times)
        if was is not None or now is not None:
            change = _change(now / was) if was and now is not None else ""
            if name == "p50" and record.trial is not None:
                change = _change(1 + record.trial.change)  # round by round, which a busy machine moves less
            rows.append((f"latency {name}", _time(was), _time(now), change))
    if record.trial is None:
        threads = [NONE if one is None else units.counted(one.threads, "thread") for one in times]
        machines = [one.machine.fingerprint if one.machine else NONE for one in (first, second)]
        rows += [("timed with", *_two(threads), ""), ("timed on", *_two(machines), "")]
    return rows


def _time(milliseconds: float | None) -> str:
    return NONE if milliseconds is None else units.milliseconds(milliseconds)


def _two(cells: list[str]) -> tuple[str, str]:
    first, second = cells
    return first, second


def _sizes(name: str, first: int, second: int) -> tuple[str, str, str, str]:
    return name, units.bytes_(first), units.bytes_(second), _change(second / first if first else 1.0)


def _change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f}%"


def timing(record: Comparison) -> str:
    """What timing in turn found, in a sentence; or nothing."""
    trial = record.trial
    if trial is None:
        return ""
    interval = "too few rounds for an interval"
    if trial.interval is not None:
        low, high = trial.interval
        interval = f"{trial.confidence:.0%} interval {100 * low:+.1f}% to {100 * high:+.1f}%"
    return (
        f"Timed in turn in one process ({units.counted(trial.rounds, 'round')}, {trial.seconds:.0f} s): the median of"
        f" {record.second.name} is {100 * trial.change:+.1f}% from that of {record.first.name} ({interval})."
    )


def better_of(record: Comparison) -> str:
    """The name of the one that is better by McNemar's exact test at 5%; empty where neither is."""
    right = record.right
    if right.p_value > 0.05:
        return ""
    return record.second.name if right.difference > 0 else record.first.name


def summary(record: Comparison) -> str:
    """The comparison's first figure in a sentence, with what chance has to say."""
    right, images = record.right, record.images
    of = {"val": "validation images", "test": "test images"}.get(images.split, f"images of {images.source}")
    flips = f"{right.only_first} right in {record.first.name} alone, {right.only_second} in {record.second.name} alone"
    if better := better_of(record):
        said = f"{better} is better by more than chance explains"
    else:
        said = "chance alone may explain the difference"
    return (
        f"On {units.count(right.images)} {of}: {flips}; {units.points(100 * right.difference)} (95% interval"
        f" {_points(right.interval)}): {said}."
    )
