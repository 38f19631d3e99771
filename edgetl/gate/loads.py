"""Load time and peak memory of fresh processes: measuring them in turn, and judging them by ranks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from edgetl.bench.memory import load_fresh
from edgetl.gate.baseline import Loads
from edgetl.progress import SILENT, Progress
from edgetl.records.bench import Footprint
from edgetl.records.gate import GateCheck, Verdict

REPEATS = 5
LEVEL = 0.01
"""How often, at most, chance alone says that a figure surely is above what is allowed, or surely is not."""


def measure_loads(
    bundles: Sequence[Path],
    *,
    variant: str | None = None,
    target: str = "auto",
    threads: int | None = None,
    repeats: int = REPEATS,
    progress: Progress = SILENT,
) -> list[Loads]:
    """Load each bundle and run it once in fresh processes, the bundles in turn (A B B A).

    Raises:
        EdgetlError: a process failed; carries its message.
    """
    found: list[list[Footprint]] = [[] for _ in bundles]
    with progress.task("Loading in fresh processes", repeats * len(bundles)) as bar:
        for turn in range(repeats):
            for at in range(len(bundles))[:: 1 if turn % 2 == 0 else -1]:
                found[at].append(load_fresh(bundles[at], variant=variant, target=target, threads=threads))
                bar.advance()
    return [
        Loads(
            load_ms=tuple(f.load_ms for f in runs),
            peak_memory_bytes=tuple(f.peak_memory_bytes for f in runs),
        )
        for runs in found
    ]


def judge_memory(before: Loads, after: Loads, limit: float, *, same_machine: bool) -> GateCheck:
    """Hold peak memory to `limit`, a relative growth. It is not judged on another machine."""
    stated = min(before.peak_memory_bytes) > 0 and min(after.peak_memory_bytes) > 0
    reason = "the machines differ" if not same_machine else "" if stated else "this system does not report it"
    return _judge("memory", "bytes", before.peak_memory_bytes, after.peak_memory_bytes, limit, reason)


def judge_load_time(
    before: Loads, after: Loads, limit: float, *, same_machine: bool, interleaved: bool
) -> GateCheck:
    """Hold load time to `limit`, a relative growth. It is judged only where both were loaded in turn."""
    reason = "the machines differ"
    if same_machine:
        reason = "" if interleaved else "it was measured at another time; compare with a bundle (--against)"
    return _judge("load time", "ms", before.load_ms, after.load_ms, limit, reason)


def rank_tail(exceptions: int, first: int, second: int) -> float:
    """P that at most `exceptions` of first x second pairs are out of order, where both are alike.

    The exact distribution of Mann and Whitney's (1947) U.
    """

    @cache
    def ways(m: int, n: int, u: int) -> int:
        if u < 0:
            return 0
        if m == 0 or n == 0:
            return 1 if u == 0 else 0
        return ways(m - 1, n, u - n) + ways(m, n - 1, u)

    counts = [ways(first, second, u) for u in range(first * second + 1)]
    return sum(counts[: exceptions + 1]) / sum(counts)


def _judge(
    name: str, unit: str, before: Sequence[float], after: Sequence[float], limit: float, unjudged: str
) -> GateCheck:
    """Fails where the new figures surely are above the allowed ones, passes where they surely are not.

    The old figures are raised by what is allowed; then both are compared by rank, so that no shape is assumed and
    no process that took long decides alone.
    """
    allowed, pairs = [value * (1 + limit) for value in before], len(before) * len(after)
    above = sum(new > old for new in after for old in allowed)
    below = sum(new <= old for new in after for old in allowed)
    old, new = statistics.median(before), statistics.median(after)
    change = new / old - 1 if old else 0.0
    if unjudged or rank_tail(pairs - below, len(before), len(after)) <= LEVEL:
        verdict = Verdict.PASS
    elif rank_tail(pairs - above, len(before), len(after)) <= LEVEL:
        verdict = Verdict.FAIL
    else:
        verdict = Verdict.UNSURE
    what = {"memory": "Peak memory", "load time": "Load time"}[name]
    judged = {
        Verdict.PASS: "passes.",
        Verdict.FAIL: "FAILS.",
        Verdict.UNSURE: "cannot tell, since the processes differ too much: repeat on a quieter machine.",
    }[verdict]
    sentence = (
        f"{what} went from {_figure(old, unit)} to {_figure(new, unit)}: {change:+.1%} (medians of {len(before)} and "
        f"{len(after)} fresh processes, {_spread(before)} and {_spread(after)} apart); "
    )
    sentence += (
        f"not judged: {unjudged}." if unjudged else f"an increase of {100 * limit:.3g}% is allowed: {judged}"
    )
    return GateCheck(
        name=name,
        unit=unit,
        baseline=float(old),
        current=float(new),
        change=change,
        interval=None,
        limit=limit,
        judged=not unjudged,
        verdict=verdict,
        sentence=sentence,
    )


def _spread(values: Sequence[float]) -> str:
    """The distance of the largest from the smallest, relative to the median."""
    middle = statistics.median(values)
    return f"{(max(values) - min(values)) / middle:.0%}" if middle else "0%"


def _figure(value: float, unit: str) -> str:
    return f"{value / 1e6:.1f} MB" if unit == "bytes" else f"{value:.0f} ms"
