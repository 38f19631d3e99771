"""What the machine reports about itself at one moment: clocks, throttling, temperature, power, time lost to others.

Everything is read below a `root` folder, so that tests have trees of their own; what is not there is empty.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# What a GPU names as reasons for a lower clock: power cap, slowdown by hardware or heat, power brake (nvml.h).
_GPU_SLOWED = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
_GPU_FIELDS = "driver_version,temperature.gpu,power.draw,clocks_throttle_reasons.active"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One moment.

    `throttle_events` counts since boot, `energy_uj` since an overflow at `energy_range_uj`; `cpu_ticks` and
    `stolen_ticks` (taken by the hypervisor) since boot, as `busy_ticks`, in which any program ran; `processes` holds
    those of each process by its number and name, and `own_ticks` are this process's and those of its children that have
    ended, None where nothing is said.
    `gpu_slowed` are reasons for a lower clock, as NVML's bits.
    """

    monotonic_s: float
    wall_s: float
    clock_mhz: float | None
    throttle_events: int | None
    temperature_c: dict[str, float]
    power_w: dict[str, float]
    energy_uj: dict[str, int]
    energy_range_uj: dict[str, int]
    cpu_ticks: int
    stolen_ticks: int
    busy_ticks: int
    own_ticks: int | None
    processes: dict[tuple[int, str], int]
    swapped_pages: int
    driver: str
    gpu_slowed: int
    notes: tuple[str, ...]


def read(
    root: Path = Path("/"),
    *,
    monotonic: Callable[[], float] = time.perf_counter,
    wall: Callable[[], float] = time.time,
) -> Reading:
    """Read all sensors below `root`; nothing is raised. The clocks are for tests."""
    energy, ranges, notes = _energy(root)
    ticks, stolen, busy = _cpu_ticks(root)
    gpu = _gpus()
    return Reading(
        monotonic_s=monotonic(),
        wall_s=wall(),
        clock_mhz=_clock(root),
        throttle_events=throttle_events(root),
        temperature_c=_zones(root) | gpu.temperature_c,
        power_w=_currents(root) | gpu.power_w,
        energy_uj=energy,
        energy_range_uj=ranges,
        cpu_ticks=ticks,
        stolen_ticks=stolen,
        busy_ticks=busy,
        own_ticks=_ticks(text(root / "proc/self/stat"), children=True),
        processes=ticks_by_process(root),
        swapped_pages=_swapped(root),
        driver=gpu.driver,
        gpu_slowed=gpu.slowed,
        notes=notes,
    )


def text(path: Path) -> str:
    """A file's text without white space at the ends; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """A file's whole number; None where there is none."""
    try:
        return int(text(path))
    except ValueError:
        return None


def _clock(root: Path) -> float | None:
    clocks = [
        hertz
        for path in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
        if (hertz := number(path)) is not None
    ]
    return sum(clocks) / len(clocks) / 1e3 if clocks else None


def throttle_events(root: Path) -> int | None:
    """Times since boot that the kernel saw a core throttle for heat, or, once, their package, which every core reports.

    None where the system does not say. `root` is where `sys` is.
    """
    cores, packages = (
        [
            count
            for path in root.glob(f"sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/{kind}_throttle_count")
            if (count := number(path)) is not None
        ]
        for kind in ("core", "package")
    )
    return sum(cores) + max(packages, default=0) if cores or packages else None


def _zones(root: Path) -> dict[str, float]:
    found = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        if (millis := number(zone / "temp")) is not None:
            found[text(zone / "type") or zone.name] = millis / 1e3
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        for sensor in sorted(chip.glob("temp*_input")):
            if (millis := number(sensor)) is not None:
                label = text(chip / sensor.name.replace("_input", "_label")) or sensor.name.split("_")[0]
                found.setdefault(f"{text(chip / 'name')} {label}".strip(), millis / 1e3)
    return found


def _currents(root: Path) -> dict[str, float]:
    """Power rails of Jetson boards and the like (INA219, INA226, INA3221): watts from volts and amperes."""
    found = {}
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if not text(chip / "name").startswith("ina"):
            continue
        for sensor in sorted(chip.glob("curr*_input")):
            rail = sensor.name.removeprefix("curr").removesuffix("_input")
            volts, amperes = number(chip / f"in{rail}_input"), number(sensor)
            if volts is not None and amperes is not None:
                label = text(chip / f"in{rail}_label") or f"{text(chip / 'name')} rail {rail}"
                found[label] = volts * amperes / 1e6
    return found


def _energy(root: Path) -> tuple[dict[str, int], dict[str, int], tuple[str, ...]]:
    """RAPL's counters of whole packages, in microjoules; their parts would be counted twice."""
    energy, ranges, closed = {}, {}, False
    for zone in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
        if zone.name.count(":") != 1:
            continue
        counter = zone / "energy_uj"
        if counter.exists() and not os.access(counter, os.R_OK):
            closed = True
        elif (value := number(counter)) is not None:
            name = text(zone / "name") or zone.name
            energy[name] = value
            ranges[name] = number(zone / "max_energy_range_uj") or 0
    note = (
        "The CPU's energy counters (RAPL) may only be read by root: "
        "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
    )
    return energy, ranges, (note,) if closed else ()


def ticks_by_process(root: Path) -> dict[tuple[int, str], int]:
    """Processor ticks of every process but this one, by its number and name."""
    found = {}
    for stat in root.glob("proc/[0-9]*/stat"):
        pid, content = int(stat.parent.name), text(stat)
        ticks = _ticks(content)
        if pid != os.getpid() and ticks is not None:
            found[pid, content.rpartition(")")[0].partition("(")[2]] = ticks
    return found


def _ticks(stat: str, *, children: bool = False) -> int | None:
    """A process's ticks from its `stat`, its threads' included; those of its children that have ended on request."""
    # The name stands in parentheses and may hold anything, so fields count from the last one.
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if children else 13])) if len(fields) > 14 else None


def _cpu_ticks(root: Path) -> tuple[int, int, int]:
    """All ticks, those that a hypervisor took, and those in which a program or the kernel ran."""
    fields = text(root / "proc/stat").split("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return 0, 0, 0
    user, nice, system, idle, waiting, hard, soft, stolen = (int(field) for field in fields[1:9])
    busy = user + nice + system + hard + soft
    return busy + idle + waiting + stolen, stolen, busy


def _swapped(root: Path) -> int:
    lines = (line.split() for line in text(root / "proc/vmstat").splitlines())
    return sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in ("pswpin", "pswpout"))


@dataclass(frozen=True, kw_only=True)
class _Gpus:
    driver: str
    slowed: int
    temperature_c: dict[str, float]
    power_w: dict[str, float]


def _gpus() -> _Gpus:
    """NVIDIA's GPUs through NVML, by the tool that comes with the driver."""
    driver, slowed = "", 0
    temperature: dict[str, float] = {}
    power: dict[str, float] = {}
    for index, line in enumerate(_nvidia_smi()):
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 4:
            continue
        driver = fields[0]
        for into, field in ((temperature, fields[1]), (power, fields[2])):
            with contextlib.suppress(ValueError):  # [N/A]
                into[f"gpu {index}"] = float(field)
        with contextlib.suppress(ValueError):
            slowed |= int(fields[3], 16) & _GPU_SLOWED
    return _Gpus(driver=driver, slowed=slowed, temperature_c=temperature, power_w=power)


def _nvidia_smi() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ("nvidia-smi", f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines()
