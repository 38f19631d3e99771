"""What a history shows: trends, changes of level, and how far equal runs differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from edgetl.bench.changes import ChangePoint, change_points
from edgetl.history.store import Subject, runs_by_subject
from edgetl.records.bench import HistoryRecord, HistoryRun, LevelChange, Trend

LEAST_RUNS = 5
"""Fewer runs say nothing about how far runs differ."""
LONGEST = 400
"""Runs of a subject that are looked at, the latest."""

_SINGLE_STREAM = "single-stream"


def read(path: Path, *, last: int = LONGEST) -> HistoryRecord:
    """The trends of a history file, with the `last` runs of each subject.

    Raises:
        HistoryError: the file is missing, no history, of a newer edgetl, or locked.
    """
    trends = tuple(_trend(subject, runs[-last:]) for subject, runs in runs_by_subject(path).items())
    return HistoryRecord(path=str(path), trends=trends)


def spread(
    path: Path, machine_fingerprint: str, name: str, variant: str, target: str, *, threads: int | None = None
) -> float | None:
    """How far the median latency (single-stream, batch 1) of one bundle's variant differs between runs of one machine.

    Args:
        path: the history file.
        machine_fingerprint: `Machine.fingerprint`.
        name: the bundle's own name (`Manifest.name`).
        variant: the variant's name.
        target: the engine.
        threads: threads of the engine; those with the most runs where unset.

    Returns:
        The relative standard deviation as `relative_spread` gives it: 0.03 is 3%; None below five runs.

    Raises:
        HistoryError: the file is missing, no history, of a newer edgetl, or locked.
    """
    series = [
        runs
        for subject, runs in runs_by_subject(path).items()
        if subject[:4] == (machine_fingerprint, name, variant, target)
        and subject[4] == _SINGLE_STREAM
        and (threads is None or subject[6] == threads)
    ]
    return relative_spread(max(series, key=len)[-LONGEST:]) if series else None


def relative_spread(runs: Sequence[HistoryRun]) -> float | None:
    """Standard deviation of the logarithm of the median latency, pooled over stretches of one level.

    A level ends where it moves and the bundle changed with it: then the code did it. Where it moves under the same
    bundle the machine did it, and that belongs to the spread.

    Returns:
        None where fewer than five runs are left, counting one less a further stretch.
    """
    logs = [math.log(run.p50_ms) for run in runs if run.p50_ms > 0]
    if len(logs) != len(runs) or len(runs) < LEAST_RUNS:
        return None
    edges = [
        change.index
        for change in change_points([run.p50_ms for run in runs])
        if runs[change.index].bundle_sha256 != runs[change.index - 1].bundle_sha256
    ]
    stretches = [logs[a:b] for a, b in itertools.pairwise([0, *edges, len(logs)])]
    freedom = len(logs) - len(stretches)
    if freedom < LEAST_RUNS - 1:
        return None
    squares = sum(sum((log - sum(part) / len(part)) ** 2 for log in part) for part in stretches)
    return math.sqrt(squares / freedom)


def _trend(subject: Subject, runs: Sequence[HistoryRun]) -> Trend:
    machine, name, variant, target, scenario, batch, threads = subject
    found = change_points([run.p50_ms for run in runs])
    return Trend(
        machine=machine,
        name=name,
        variant=variant,
        target=target,
        scenario=scenario,
        batch=batch,
        threads=threads,
        runs=tuple(runs),
        changes=tuple(_described(change, runs) for change in found),
        spread=relative_spread(runs),
    )


def _described(change: ChangePoint, runs: Sequence[HistoryRun]) -> LevelChange:
    first, last = runs[change.index], runs[change.index - 1]
    move = "slower" if change.ratio > 1 else "faster"
    if first.bundle_sha256 == last.bundle_sha256:
        cause = "the bundle is the same, so the machine did it"
    elif first.commit and first.commit != last.commit:
        cause = f"between commits {_short(last.commit)} and {_short(first.commit)}"
    else:
        cause = "with another bundle"
    return LevelChange(
        index=change.index,
        before_ms=change.before,
        after_ms=change.after,
        sentence=(
            f"{abs(change.ratio - 1):.1%} {move} from {first.time} on: {change.before:.3g} to {change.after:.3g} ms, "
            f"{cause}."
        ),
    )


def _short(commit: str) -> str:
    """A commit as people write it; `none` outside of git."""
    whole, dash, dirty = commit.partition("-")
    return f"{whole[:9]}{dash}{dirty}" or "none"
