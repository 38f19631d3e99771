"""What lies behind a benchmark, and the history of many, as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgetl.records.bench import (
    BenchRecord,
    HistoryRecord,
    LayerTime,
    LoadgenRecord,
    Profile,
    Roofline,
    Trend,
)
from edgetl.report import units
from edgetl.report.terminal.tables import TableLine, Tone, numbers, pairs, say, table, text

if TYPE_CHECKING:
    from rich.console import Console

_LAYERS_SHOWN = 10
_RUNS_SHOWN = 12
_BARS = "▁▂▃▄▅▆▇█"


def details(console: Console, record: BenchRecord) -> None:
    """How the samples came about, the time by layer, the load generator's figures, and every warning."""
    seen = record.conditions
    entries = [("warm-up", _warm_up(record))]
    if record.timer_overhead_ns:
        entries.append(("timer", f"{record.timer_overhead_ns:.0f} ns per sample, subtracted"))
    if record.pinned:
        caller, *engine = map(str, record.pinned)
        entries.append(
            ("pinned", f"caller to core {caller}, engine's threads to {', '.join(engine) or 'none'}")
        )
    if seen is not None:
        entries += [
            ("clock", " to ".join(f"{mhz:.0f}" for mhz in seen.clock_mhz) + " MHz" if seen.clock_mhz else ""),
            ("throttled", f"{seen.throttle_events} times" if seen.throttle_events else ""),
            ("power", _listed(seen.power_w, "W")),
            ("temperature", _listed(seen.temperature_c, "°C")),
            ("versions", ", ".join(f"{name} {version}" for name, version in seen.versions.items())),
        ]
    if any(value for _, value in entries):
        pairs(console, entries)
    if record.profile is not None:
        _profile(console, record.profile)
    if record.roofline is not None:
        _roofline(console, record.roofline)
    if record.loadgen is not None:
        _loadgen(console, record, record.loadgen)
    for note in seen.notes if seen else ():
        say(console, f"Note: {note}", "faint")
    for warning in record.warnings:
        say(console, f"Warning: {warning}", "bad")


def history(console: Console, record: HistoryRecord) -> None:
    """A trend a subject: its latest runs, its curve, and where its level moved."""
    if not record.trends:
        say(console, f"{record.path} holds no runs yet.")
    for trend in record.trends:
        _trend(console, trend)


def sparkline(values: Sequence[float]) -> str:
    """One bar per value, from the smallest to the largest."""
    low, high = min(values), max(values)
    steps = [round((value - low) / (high - low) * (len(_BARS) - 1)) if high > low else 0 for value in values]
    return "".join(_BARS[step] for step in steps)


def _trend(console: Console, trend: Trend) -> None:
    title = (
        f"{trend.name}, variant {trend.variant} on {trend.target}, {trend.scenario}, batch {trend.batch}, "
        f"{units.counted(trend.threads, 'thread')}"
    )
    medians = [run.p50_ms for run in trend.runs]
    width = max(console.width - 20, 10)
    pairs(
        console,
        [
            ("machine", trend.machine),
            ("runs", units.count(len(medians))),
            ("median", f"{sparkline(medians[-width:])}  {_range(medians)}"),
            ("between runs", f"{units.percent(trend.spread)} apart" if trend.spread is not None else ""),
        ],
        title=title,
    )
    moved = {change.index for change in trend.changes}
    first = max(len(trend.runs) - _RUNS_SHOWN, 0)
    lines = [
        TableLine(
            cells=(
                run.time,
                _commit(run.commit),
                run.bundle_sha256[:9],
                units.significant(run.p50_ms),
                units.significant(run.p90_ms),
                units.significant(run.throughput),
                units.significant(run.load_ms),
                units.bytes_(run.peak_memory_bytes),
                str(run.warnings or ""),
                "level moved" if index in moved else "",
            ),
            tone="strong" if index in moved else "plain",
        )
        for index, run in enumerate(trend.runs)
        if index >= first
    ]
    heads = (
        *text("time", "commit", "bundle"),
        *numbers("p50 ms", "p90 ms", "images/s", "load ms", "memory", "warnings"),
        *text(""),
    )
    table(console, heads, lines)
    for change in trend.changes:
        tone: Tone = "bad" if change.after_ms > change.before_ms else "good"
        say(console, f"Level moved: {change.sentence}", tone)


def _warm_up(record: BenchRecord) -> str:
    calls = units.counted(record.latency.warmup, "call")
    if record.steady is None:
        return ""
    return f"{calls} until steady" if record.steady else f"not steady after {calls}"


def _listed(values: Mapping[str, float], unit: str) -> str:
    return ", ".join(f"{name} {units.significant(value)} {unit}" for name, value in values.items())


def _profile(console: Console, profile: Profile) -> None:
    title = (
        f"Time by operator and by layer: {profile.engine}'s profiler, {units.counted(profile.calls, 'call')} of "
        f"{units.milliseconds(profile.call_ms)} each while profiled"
    )
    table(
        console,
        (*text("operator", "on"), *numbers("nodes", "ms", "share")),
        [_layer(each, each.operator, str(each.nodes)) for each in profile.operators[:_LAYERS_SHOWN]],
        title=title,
    )
    table(
        console,
        (*text("layer", "on", "operator"), *numbers("ms", "share")),
        [
            TableLine(
                cells=(
                    each.name,
                    each.provider,
                    each.operator,
                    units.significant(each.median_ms),
                    units.percent(each.share),
                )
            )
            for each in profile.layers[:_LAYERS_SHOWN]
        ],
    )
    if (left := len(profile.layers) - _LAYERS_SHOWN) > 0:
        say(console, f"{units.counted(left, 'more layer')} with --json.", "faint")


def _roofline(console: Console, found: Roofline) -> None:
    peaks, macs = found.peaks, found.float_macs + found.int8_macs
    table(
        console,
        (*text("layer", "operator", "in"), *numbers("ms", "M MACs", "of peak", "kB", "of copy")),
        [
            TableLine(
                cells=(
                    each.name,
                    each.operator,
                    each.precision or "-",
                    units.significant(each.median_ms),
                    units.significant(each.macs / 1e6) if each.macs else "-",
                    _share(each.of_peak),
                    units.significant(each.bytes / 1e3),
                    _share(each.of_copy),
                )
            )
            for each in found.layers[:_LAYERS_SHOWN]
        ],
        title=f"How far from this machine's peaks, {units.counted(found.threads, 'thread')}",
    )
    if (left := len(found.layers) - _LAYERS_SHOWN) > 0:
        say(console, f"{units.counted(left, 'more layer')} with --json.", "faint")
    pairs(
        console,
        [
            ("peak in float", f"{units.count(peaks.float_macs)} multiply-accumulates/s, a matrix product"),
            ("peak in INT8", f"{units.count(peaks.int8_macs)} multiply-accumulates/s, the same"),
            ("memory", f"{units.significant(peaks.copy_bytes / 1e9)} GB/s read and written, a copy"),
            (
                "the model",
                f"{units.count(macs)} multiply-accumulates, {units.percent(found.int8_macs / macs if macs else 0)} of "
                f"them in INT8: {units.milliseconds(found.least_ms)} at the peaks, "
                f"{units.milliseconds(found.latency_ms)} taken",
            ),
            (
                "reaches",
                f"{units.percent(found.of_peak)} of the peaks, {units.percent(found.of_copy)} of the copy",
            ),
        ],
    )
    say(
        console,
        "Multiply-accumulates (MACs) are counted from the shapes of convolutions and matrix products; a layer's as the"
        " engine fills it up to its blocks, the model's without. Bytes are estimated: each tensor of a layer moves"
        " once; more than 100% of the copy came from caches.",
        "faint",
    )


def _share(value: float | None) -> str:
    return "-" if value is None else units.percent(value)


def _layer(each: LayerTime, *cells: str) -> TableLine:
    name, nodes = cells
    return TableLine(
        cells=(name, each.provider, nodes, units.significant(each.median_ms), units.percent(each.share))
    )


def _loadgen(console: Console, record: BenchRecord, found: LoadgenRecord) -> None:
    unit = "images/s" if found.metric == "throughput" else "ms"
    verdict = "VALID" if found.valid else f"INVALID ({found.reason})"
    pairs(
        console,
        [
            ("MLPerf loadgen", f"{found.version}, queries: {units.count(found.queries)}"),
            (
                found.metric.replace("_ms", ""),
                f"{units.significant(found.value)} {unit}; our loop {units.significant(record.value)} {unit}, "
                f"{100 * found.difference:+.1f}%",
            ),
            ("its verdict", verdict),
        ],
    )


def _range(values: Sequence[float]) -> str:
    return f"{units.significant(min(values))} to {units.significant(max(values))} ms"


def _commit(commit: str) -> str:
    whole, dash, dirty = commit.partition("-")
    return f"{whole[:9]}{dash}{dirty}"
