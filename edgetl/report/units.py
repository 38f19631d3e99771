"""Figures as short text, the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetl.records.adapt import AdaptRecord
from edgetl.records.measured import Latency
from edgetl.records.prune import TwoFourRecord
from edgetl.tasks.metrics import metric as metric_spec


def percent(share: float, digits: int = 1) -> str:
    """0.9731 as `97.3%`."""
    return f"{100 * share:.{digits}f}%"


def metric(name: str) -> str:
    """A score's name as written within a sentence: `top1` as `top-1`.

    Raises:
        KeyError: there is no such score.
    """
    return metric_spec(name).title


def metric_title(name: str) -> str:
    """A score's name at the head of a chart or card: `top1` as `Top-1`, `map` as `mAP`; raises as `metric`."""
    words = metric(name)
    return words if words[1:2].isupper() else words[:1].upper() + words[1:]


def points(value: float) -> str:
    """A difference in percentage points with its sign: `-0.6 points`; exactly nothing is `0.0 points`."""
    rounded = round(value, 1) or 0.0
    return f"{rounded:+.1f} points" if rounded else "0.0 points"


def interval(bounds: tuple[float, float]) -> str:
    """A 95% interval of a share: `95.1 to 98.4%`."""
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}%"


def milliseconds(value: float) -> str:
    """Three significant digits: `0.184 ms`, `5.83 ms`, `216 ms`."""
    return f"{significant(value)} ms"


def significant(value: float, digits: int = 3) -> str:
    """`digits` significant digits without an exponent, thousands grouped: `0.184`, `5.83`, `1,234`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{decimals}f}"


def times(ratio: float, digits: int = 2) -> str:
    """A ratio: `31x`, `4.2x`, `0.83x`."""
    return f"{significant(ratio, digits)}x"


def bytes_(count: int) -> str:
    """Decimal units: `812 B`, `1.3 MB`, `137 MB`."""
    if count < 1000:
        return f"{count} B"
    unit, size = next((u, s) for u, s in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= 0.9995 * s)
    return f"{count / size:.{1 if count < 100 * size else 0}f} {unit}"


def memory(count: int) -> str:
    """Binary units, as memory is sold: `15.6 GiB`."""
    return f"{significant(count / 2**30)} GiB"


def count(value: float) -> str:
    """A large count: `640`, `52,314`, `4.65 M`, `1.20 G`."""
    if value < 100_000:
        return f"{value:,.0f}"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{significant(value / size)} {unit}"
    raise AssertionError(value)


def other_time(latency: Latency | None) -> str:
    """The median in milliseconds with another number of threads, where one was tried."""
    return "-" if latency is None else significant(latency.p50_ms)


def counted(number: int, noun: str) -> str:
    """A count with its noun: `1 image`, `2,271 images`, `3 classes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{count(number)} {noun}{ending}"


def step(number: int, kept: bool, network: str = "") -> str:
    """A step of pruning: `3`, `3, taken back`; before the cuts `taught` for another network, else `input size`."""
    if number == 0:
        return "taught" if network else "input size"
    return str(number) if kept else f"{number}, taken back"


def duration(seconds: float) -> str:
    """Wall time: `0.4 s`, `48 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def without_labels(record: AdaptRecord) -> str:
    """What `AdaptTry.weighted` is, as the head of a column."""
    return "top-1, retaken" if record.retaken else "top-1, weighted"


def blocks(names: Sequence[str]) -> str:
    """Blocks that were taken out, counted and named: `2 blocks: blocks.1.1, blocks.3.2`; nothing without any."""
    return f"{counted(len(names), 'block')}: {', '.join(names)}" if names else ""


def two_four(record: TwoFourRecord, name: str) -> str:
    """2:4 sparsity in one line, with who gains from it; `name` is that of its score."""
    return (
        f"{counted(len(record.layers), 'layer')}, {percent(record.zeros)} of the parameters are zero; {metric(name)}"
        f" {percent(record.cut)} after it, {percent(record.score)} recovered; only sparse tensor cores (TensorRT)"
        " get faster by it"
    )
