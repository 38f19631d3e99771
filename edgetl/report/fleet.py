"""Devices side by side: the columns and cells that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgetl.deploy.fleet.record import DeviceRecord, FleetRecord, Outcome
from edgetl.report import units

NOTHING = "-"


@dataclass(frozen=True, kw_only=True)
class Head:
    """A column: its header, whether it holds figures, whether it must not wrap."""

    text: str
    number: bool = False
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Columns, and a row of cells for each device, in the order of the record."""

    heads: tuple[Head, ...]
    rows: tuple[tuple[str, ...], ...]


_Cell = Callable[[DeviceRecord], str]


def side_by_side(record: FleetRecord) -> SideBySide:
    """The devices' figures that a command is about."""
    columns: list[tuple[Head, _Cell]] = [
        (Head(text="device", keep=True), lambda d: d.device),
        (Head(text="outcome", keep=True), lambda d: d.outcome.value),
        *_columns(record.command),
        (Head(text="took", number=True), lambda d: units.duration(d.seconds)),
    ]
    rows = tuple(tuple(cell(device) or NOTHING for _, cell in columns) for device in record.devices)
    return SideBySide(heads=tuple(head for head, _ in columns), rows=rows)


def summary(record: FleetRecord) -> str:
    """How many devices came to which outcome."""
    counts = {outcome: sum(d.outcome is outcome for d in record.devices) for outcome in Outcome}
    parts = [f"{count} {outcome.value}" for outcome, count in counts.items() if count]
    return f"{units.counted(len(record.devices), 'device')}: {', '.join(parts)}."


def _columns(command: str) -> list[tuple[Head, _Cell]]:
    match command:
        case "status" | "init":
            return [
                _text("machine", lambda d: d.state.machine if d.state else ""),
                _text("Python", lambda d: d.state.python if d.state else ""),
                _text("edgetl", lambda d: d.state.edgetl if d.state else ""),
                _text("runs", _runs),
                *([] if command == "init" else _STATE),
            ]
        case "deploy" | "rollback":
            return [
                _text("runs", _runs),
                _text("before", lambda d: _stem(d.before)),
                _number("sent", lambda d: units.bytes_(d.sent_bytes) if d.sent_bytes else ""),
                *_GOLDEN,
                *([] if command == "rollback" else _TIMES),
            ]
        case "verify":
            return [_text("runs", _runs), *_GOLDEN]
        case "bench":
            return [_text("runs", _runs), *_TIMES, *_FOOTPRINT]
        case "gate":
            return [_text("runs", _runs), *_GATE]
        case "tune":
            return [
                _text("variant", lambda d: d.tuned.variant if d.tuned else ""),
                _text("engine", lambda d: d.tuned.target.value if d.tuned else ""),
                _number("threads", lambda d: str(d.tuned.best_threads) if d.tuned else ""),
                _number("median", _tuned_ms),
            ]
        case "capture":
            return [
                _text("folder", lambda d: d.brought.folder if d.brought else ""),
                _number("new", lambda d: str(d.brought.new) if d.brought else ""),
                _number("size", lambda d: units.bytes_(d.brought.size_bytes) if d.brought else ""),
                _number("to come", lambda d: str(d.brought.left) if d.brought else ""),
                _number("broken", lambda d: str(d.brought.broken + d.brought.torn) if d.brought else ""),
            ]
        case _:
            raise ValueError(f"there is no command {command} over many devices")


def _stem(file: str) -> str:
    return file.removesuffix(".edgetl")


def _runs(device: DeviceRecord) -> str:
    return _stem(device.current)


def _text(title: str, cell: _Cell) -> tuple[Head, _Cell]:
    return Head(text=title), cell


def _number(title: str, cell: _Cell) -> tuple[Head, _Cell]:
    return Head(text=title, number=True), cell


def _tuned_ms(device: DeviceRecord) -> str:
    from edgetl.bench.tune import TrialOutcome

    if device.tuned is None:
        return ""
    chosen = [t.latency for t in device.tuned.trials if t.outcome is TrialOutcome.CHOSEN and t.latency]
    return units.milliseconds(chosen[0].p50_ms) if chosen else ""


def _clock(device: DeviceRecord) -> str:
    if device.state is None or device.state.clock_s is None:
        return ""
    return f"{device.state.clock_s:+.0f} s" if device.state.clock_s else "right"


_STATE = [
    _number(
        "free",
        lambda d: units.bytes_(d.state.free_bytes) if d.state and d.state.free_bytes is not None else "",
    ),
    _number("clock", _clock),
    _number("kept\nimages", lambda d: str(d.state.captured) if d.state else ""),
]
_GOLDEN = [
    _text("golden", lambda d: ("same" if d.check.passed else "OTHER") if d.check else ""),
]
_TIMES = [
    _text("variant", lambda d: d.bench.variant if d.bench else ""),
    _text("engine", lambda d: d.bench.target if d.bench else ""),
    _number("p50", lambda d: units.milliseconds(d.bench.latency.p50_ms) if d.bench else ""),
    _number("p90", lambda d: units.milliseconds(d.bench.latency.p90_ms) if d.bench else ""),
]
_FOOTPRINT = [
    _number("p99", lambda d: units.milliseconds(d.bench.latency.p99_ms) if d.bench else ""),
    _number("load", lambda d: units.milliseconds(d.bench.footprint.load_ms) if d.bench else ""),
    _number("memory", lambda d: units.bytes_(d.bench.footprint.peak_memory_bytes) if d.bench else ""),
]
_GATE = [
    _text("verdict", lambda d: d.gate.verdict.text if d.gate else ""),
    _text("variant", lambda d: d.gate.variant if d.gate else ""),
    _number("latency", lambda d: f"{100 * d.gate.trial.change:+.1f}%" if d.gate and d.gate.trial else ""),
]
