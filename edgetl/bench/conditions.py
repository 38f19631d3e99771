"""Whether the machine is fit to measure on: warnings before the measurement, and on what happened during it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from edgetl.bench.changes import level_shifts
from edgetl.bench.sensors import Reading, text, ticks_by_process
from edgetl.records.bench import Conditions
from edgetl.runtime.engines.table import engine_of
from edgetl.runtime.targets import EngineName
from edgetl.text import few

_BUSY_SHARE = 0.25
_BUSY_SHOWN = 3
_WATCH_S = 0.2
_LOAD_SHARE = 0.5
_SWAP_SHARE = 0.05
_STEAL_SHARE = 0.01
BUSY_CORES = 0.25
"""Other programs that keep so many cores busy on average put a measurement in doubt."""
_LEAST_S = 0.5
# NTP slews by half a millisecond a second at most; what is beyond was set by a jump, or is a sleeping machine.
_JUMP_S, _SLEW_SHARE = 0.05, 1e-3


def unfit(root: Path = Path("/"), *, sleep: Callable[[float], None] = time.sleep) -> tuple[str, ...]:
    """Why this machine is unfit to measure on right now, a sentence each; takes a fifth of a second.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
        sleep: waits seconds, while other processes are watched.
    """
    return (
        *_busy(root, sleep),
        *_loaded(root),
        *_governed(root),
        *_on_battery(root),
        *_swapping(root),
    )


def busy_now(root: Path = Path("/"), *, sleep: Callable[[float], None] = time.sleep) -> tuple[str, ...]:
    """As `unfit`, of what goes on at this moment only: other programs, a battery, memory that is short."""
    return (*_busy(root, sleep), *_on_battery(root), *_swapping(root))


def between(
    before: Reading, after: Reading, target: EngineName = EngineName.CPU
) -> tuple[Conditions, tuple[str, ...]]:
    """What the machine did between two readings, and warnings where figures of that time are in doubt."""
    seconds = after.monotonic_s - before.monotonic_s
    joules = {
        name: _counted(before.energy_uj[name], after.energy_uj[name], after.energy_range_uj[name]) / 1e6
        for name in after.energy_uj
        if name in before.energy_uj
    }
    watts = {name: energy / seconds for name, energy in joules.items()} if seconds > 0 else {}
    ticks = after.cpu_ticks - before.cpu_ticks
    steal = (after.stolen_ticks - before.stolen_ticks) / ticks if ticks > 0 else None
    events = (
        after.throttle_events - before.throttle_events
        if after.throttle_events is not None and before.throttle_events is not None
        else None
    )
    clocks = (
        (before.clock_mhz, after.clock_mhz)
        if before.clock_mhz is not None and after.clock_mhz is not None
        else None
    )
    others = _others(before, after)
    conditions = Conditions(
        seconds=seconds,
        versions=versions(target, after.driver),
        clock_mhz=clocks,
        throttle_events=events,
        temperature_c=after.temperature_c,
        power_w=watts | after.power_w,
        energy_j=joules,
        steal=steal,
        notes=after.notes,
        others=others,
    )
    return conditions, tuple(_doubts(before, after, events, steal))


def shifted(samples_ms: Sequence[float]) -> tuple[str, ...]:
    """A warning where the level of the samples moves: throttling in the middle, or another program."""
    found = level_shifts(samples_ms)
    if not found:
        return ()
    moves = ", ".join(
        f"at sample {change.index} from {change.before:.3g} to {change.after:.3g} ms ({change.ratio - 1:+.0%})"
        for change in found
    )
    return (
        f"The level of the {len(samples_ms)} samples moved {moves}: the machine throttled, or another program "
        "ran. Measure again, or compare interleaved with: edgetl gate NEW --against OLD",
    )


def versions(target: EngineName, driver: str = "") -> dict[str, str]:
    """Versions of what computes: numpy, the engine's package, and the GPU's driver where there is one."""
    found = {}
    for name in ("numpy", *engine_of(target).packages):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | ({"nvidia driver": driver} if driver else {})


def _doubts(before: Reading, after: Reading, events: int | None, steal: float | None) -> list[str]:
    doubts = []
    others = _others(before, after)
    if others is not None and others >= BUSY_CORES:
        doubts.append(
            f"Other programs kept {others:.1f} cores busy meanwhile{_busiest(before, after)}: these figures scatter and"
            " are too high, and their ratios may be far off. Stop the programs and measure again."
        )
    seconds = after.monotonic_s - before.monotonic_s
    jump = (after.wall_s - before.wall_s) - seconds
    if seconds < 0:
        doubts.append("The monotonic clock ran backwards: none of these figures can be trusted.")
    elif abs(jump) > _JUMP_S + _SLEW_SHARE * seconds:
        doubts.append(
            f"The wall clock moved {jump:+.3g} s against the monotonic clock meanwhile: it was set, or the machine "
            "slept. Latencies are by the monotonic clock; measure again if the machine slept."
        )
    if events:
        doubts.append(
            f"The CPU throttled {events} times meanwhile: cool it, or lower its load, and measure again."
        )
    if after.gpu_slowed:
        doubts.append(
            f"The GPU runs below its clock (reasons 0x{after.gpu_slowed:x} of NVML: heat or power): see nvidia-smi -q."
        )
    if steal is not None and steal > _STEAL_SHARE:
        doubts.append(
            f"The hypervisor took {steal:.1%} of the CPU's time for other machines: figures are too high by that "
            "and scatter; compare interleaved."
        )
    if pages := after.swapped_pages - before.swapped_pages:
        doubts.append(f"The machine swapped {pages} pages meanwhile: free memory and measure again.")
    return doubts


def _counted(before: int, after: int, limit: int) -> int:
    """What a counter grew by; it starts from 0 again after `limit`."""
    return after - before if after >= before else after - before + limit


def _busy(root: Path, sleep: Callable[[float], None]) -> list[str]:
    start = ticks_by_process(root)
    if not start:
        return []
    sleep(_WATCH_S)
    whole = _WATCH_S * os.sysconf("SC_CLK_TCK")
    shares = [
        ((ticks - start[process]) / whole, process)
        for process, ticks in ticks_by_process(root).items()
        if process in start
    ]
    busy = sorted((share for share in shares if share[0] >= _BUSY_SHARE), reverse=True)
    if not busy:
        return []
    named = few([f"{name} ({pid}, {share:.0%} of a core)" for share, (pid, name) in busy], _BUSY_SHOWN)
    return [f"Other programs are busy: {named}. Stop them, or pin this one to cores of its own (--pin)."]


def _others(before: Reading, after: Reading) -> float | None:
    """Cores that other programs kept busy on average; None where that is not known, or the time was too short."""
    seconds = after.monotonic_s - before.monotonic_s
    if after.own_ticks is None or before.own_ticks is None or not after.cpu_ticks or seconds < _LEAST_S:
        return None
    ticks = after.busy_ticks - before.busy_ticks - (after.own_ticks - before.own_ticks)
    return max(ticks, 0) / (seconds * os.sysconf("SC_CLK_TCK"))


def _busiest(before: Reading, after: Reading) -> str:
    """The process that ran most, in parentheses, where one did."""
    whole = (after.monotonic_s - before.monotonic_s) * os.sysconf("SC_CLK_TCK")
    shares = [
        ((ticks - before.processes.get(process, 0)) / whole, process)
        for process, ticks in after.processes.items()
    ]
    share, (pid, name) = max(shares, default=(0.0, (0, "")))
    return f", most of all {name} ({pid}, {share:.0%} of a core)" if share >= BUSY_CORES / 2 else ""


def _loaded(root: Path) -> list[str]:
    try:
        load = float(text(root / "proc/loadavg").split()[0])
    except (ValueError, IndexError):
        return []
    cores = os.cpu_count() or 1
    if load <= _LOAD_SHARE * cores:
        return []
    return [f"The load average is {load:g} on {cores} cores: let the machine come to rest first."]


def _governed(root: Path) -> list[str]:
    governor = text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor not in ("powersave", "conservative", "ondemand"):
        return []
    return [
        f"The CPU's governor is {governor}, so its clock moves with the load: "
        "sudo cpupower frequency-set -g performance"
    ]


def _on_battery(root: Path) -> list[str]:
    supplies = root.glob("sys/class/power_supply/*")
    if any(text(s / "type") == "Battery" and text(s / "status") == "Discharging" for s in supplies):
        return ["The machine runs on battery, which lowers clocks: plug it in."]
    return []


def _swapping(root: Path) -> list[str]:
    fields = dict(
        line.split(":", 1) for line in text(root / "proc/meminfo").splitlines() if line.count(":") == 1
    )
    try:
        total, free, memory = (int(fields[name].split()[0]) for name in ("SwapTotal", "SwapFree", "MemTotal"))
    except (KeyError, ValueError, IndexError):
        return []
    if total - free <= _SWAP_SHARE * memory:
        return []
    return [
        f"{(total - free) / 2**10:.0f} MiB are swapped out: memory is short, and page faults may be timed."
    ]
