"""Sensors and warnings, on trees that look like a machine's `/proc` and `/sys`."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgetl.bench import conditions, sensors
from edgetl.bench.conditions import between, shifted, unfit, versions
from edgetl.bench.sensors import Reading, read
from edgetl.runtime.targets import EngineName

CPU = "sys/devices/system/cpu"


def _write(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def _unfit(root: Path) -> tuple[str, ...]:
    return unfit(root, sleep=lambda seconds: None)


def _stat(pid: int, name: str, ticks: int, children: int = 0) -> str:
    return f"{pid} ({name}) R 1 1 1 0 -1 4194304 0 0 0 0 {ticks} 5 {children} 0 20 0 1 0"


@pytest.fixture
def calm(tmp_path: Path) -> Reading:
    return read(tmp_path, monotonic=lambda: 100.0, wall=lambda: 5000.0)


def test_a_machine_that_tells_nothing_gives_empty_figures(tmp_path: Path, calm: Reading) -> None:
    later = read(tmp_path, monotonic=lambda: 103.0, wall=lambda: 5003.0)
    found, warnings = between(calm, later)
    assert warnings == ()
    assert (found.seconds, found.clock_mhz, found.throttle_events, found.steal) == (3.0, None, None, None)
    assert found.temperature_c == found.power_w == found.energy_j == {}
    assert _unfit(tmp_path) == ()


def test_this_machine_can_be_read() -> None:
    found, _ = between(read(), read())
    assert 0 <= found.seconds < 30
    assert {"numpy", "onnxruntime"} <= set(found.versions)


def test_clocks_throttling_and_temperature_of_a_pc(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            f"{CPU}/cpu0/cpufreq/scaling_cur_freq": 3_600_000,
            f"{CPU}/cpu1/cpufreq/scaling_cur_freq": 3_400_000,
            f"{CPU}/cpu0/thermal_throttle/core_throttle_count": 2,
            f"{CPU}/cpu0/thermal_throttle/package_throttle_count": 1,
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
            "sys/class/thermal/thermal_zone0/temp": 61500,
            "sys/class/hwmon/hwmon3/name": "k10temp",
            "sys/class/hwmon/hwmon3/temp1_input": 55250,
            "sys/class/hwmon/hwmon3/temp1_label": "Tctl",
        },
    )
    before = read(tmp_path)
    _write(
        tmp_path,
        {
            f"{CPU}/cpu0/cpufreq/scaling_cur_freq": 1_200_000,
            f"{CPU}/cpu1/cpufreq/scaling_cur_freq": 1_200_000,
            f"{CPU}/cpu0/thermal_throttle/core_throttle_count": 9,
        },
    )
    found, warnings = between(before, read(tmp_path))
    assert found.clock_mhz == (3500.0, 1200.0)
    assert found.throttle_events == 7
    assert found.temperature_c == {"x86_pkg_temp": 61.5, "k10temp Tctl": 55.25}
    assert warnings == (
        "The CPU throttled 7 times meanwhile: cool it, or lower its load, and measure again.",
    )


def test_energy_counters_give_watts_also_where_they_start_again(tmp_path: Path) -> None:
    zone = "sys/class/powercap/intel-rapl:0"
    _write(
        tmp_path,
        {
            f"{zone}/name": "package-0",
            f"{zone}/max_energy_range_uj": 10_000_000,
            f"{zone}/energy_uj": 9_000_000,
            f"{zone}:0/name": "core",
            f"{zone}:0/energy_uj": 1,
        },
    )
    before = read(tmp_path, monotonic=lambda: 0.0, wall=lambda: 0.0)
    _write(tmp_path, {f"{zone}/energy_uj": 5_000_000})
    found, warnings = between(before, read(tmp_path, monotonic=lambda: 2.0, wall=lambda: 2.0))
    assert found.energy_j == {"package-0": pytest.approx(6.0)}
    assert found.power_w == {"package-0": pytest.approx(3.0)}
    assert warnings == found.notes == ()


def test_energy_counters_for_root_alone_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, {"sys/class/powercap/intel-rapl:0/energy_uj": 5})
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found, warnings = between(read(tmp_path), read(tmp_path))
    assert warnings == ()
    assert found.power_w == {}
    assert found.notes == (
        "The CPU's energy counters (RAPL) may only be read by root: "
        "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj",
    )


def test_power_rails_of_a_jetson(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon1"
    _write(
        tmp_path,
        {
            f"{chip}/name": "ina3221",
            f"{chip}/in1_label": "VDD_IN",
            f"{chip}/in1_input": 5000,
            f"{chip}/curr1_input": 1200,
            f"{chip}/in2_input": 5000,
            f"{chip}/curr2_input": 400,
            "sys/class/thermal/thermal_zone1/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": 47000,
        },
    )
    found, _ = between(read(tmp_path), read(tmp_path))
    assert found.power_w == {"VDD_IN": 6.0, "ina3221 rail 2": 2.0}
    assert found.temperature_c == {"cpu-thermal": 47.0}


def test_an_nvidia_gpu_tells_by_its_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho '550.54, 71, 69.31, 0x0000000000000024'\necho '550.54, 40, [N/A], 0x0000000000000001'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found, [warning] = between(read(tmp_path), read(tmp_path), EngineName.CUDA)
    assert found.temperature_c == {"gpu 0": 71.0, "gpu 1": 40.0}
    assert found.power_w == {"gpu 0": 69.31}
    assert found.versions["nvidia driver"] == "550.54"
    assert warning.startswith("The GPU runs below its clock (reasons 0x24 of NVML: heat or power)")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert read(tmp_path).driver == ""


def test_time_that_the_hypervisor_took_and_swapping_are_said(tmp_path: Path) -> None:
    _write(tmp_path, {"proc/stat": "cpu 100 0 50 800 0 0 0 50 0 0", "proc/vmstat": "pswpin 4\npswpout 6"})
    before = read(tmp_path)
    _write(tmp_path, {"proc/stat": "cpu 180 0 60 900 0 0 0 60 0 0", "proc/vmstat": "pswpin 5\npswpout 9"})
    found, warnings = between(before, read(tmp_path))
    assert found.steal == pytest.approx(10 / 200)
    assert warnings == (
        "The hypervisor took 5.0% of the CPU's time for other machines: figures are too high by that and "
        "scatter; compare interleaved.",
        "The machine swapped 4 pages meanwhile: free memory and measure again.",
    )


def test_a_clock_that_jumps_is_said(calm: Reading) -> None:
    def later(monotonic: float, wall: float) -> tuple[str, ...]:
        return between(calm, dataclasses.replace(calm, monotonic_s=monotonic, wall_s=wall))[1]

    assert later(160.0, 5060.04) == ()
    [forward] = later(160.0, 5180.0)
    assert forward.startswith(
        "The wall clock moved +120 s against the monotonic clock meanwhile: it was set, or"
    )
    [backward] = later(160.0, 4000.0)
    assert "-1.06e+03 s" in backward
    [broken] = later(99.0, 5060.0)
    assert broken == "The monotonic clock ran backwards: none of these figures can be trusted."


def test_throttling_in_the_middle_shows_in_the_samples() -> None:
    samples = np.random.default_rng(0).normal(4.0, 0.05, 200)
    assert shifted(samples) == ()
    samples[120:] *= 1.5
    assert shifted(samples) == (
        "The level of the 200 samples moved at sample 120 from 4.01 to 5.98 ms (+49%): the machine throttled, or "
        "another program ran. Measure again, or compare interleaved with: edgetl gate NEW --against OLD",
    )


def test_a_machine_that_is_unfit_is_told_why(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "proc/loadavg": "96.5 3 2 1/100 4",
            f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave",
            "sys/class/power_supply/BAT0/type": "Battery",
            "sys/class/power_supply/BAT0/status": "Discharging",
            "proc/meminfo": "MemTotal: 8000000 kB\nSwapTotal: 4000000 kB\nSwapFree: 1952000 kB",
        },
    )
    assert _unfit(tmp_path) == (
        f"The load average is 96.5 on {os.cpu_count()} cores: let the machine come to rest first.",
        "The CPU's governor is powersave, so its clock moves with the load: "
        "sudo cpupower frequency-set -g performance",
        "The machine runs on battery, which lowers clocks: plug it in.",
        "2000 MiB are swapped out: memory is short, and page faults may be timed.",
    )
    _write(
        tmp_path,
        {
            "proc/loadavg": "0.1 3 2 1/100 4",
            f"{CPU}/cpu0/cpufreq/scaling_governor": "performance",
            "sys/class/power_supply/BAT0/status": "Charging",
            "proc/meminfo": "MemTotal: 8000000 kB\nSwapTotal: 4000000 kB\nSwapFree: 3900000 kB",
        },
    )
    assert _unfit(tmp_path) == ()


def test_busy_processes_are_named(tmp_path: Path) -> None:
    names = ("train) R", "idle", "ffmpeg", "a", "b")
    for pid, name in enumerate(names, start=4_000_001):
        _write(tmp_path, {f"proc/{pid}/stat": _stat(pid, name, 100)})
    whole = conditions._WATCH_S * os.sysconf("SC_CLK_TCK")

    def work(seconds: float) -> None:
        for pid, share in ((4_000_001, 1.0), (4_000_003, 0.5), (4_000_004, 0.4), (4_000_005, 0.3)):
            name = names[pid - 4_000_001]
            _write(tmp_path, {f"proc/{pid}/stat": _stat(pid, name, 100 + round(share * whole))})

    assert unfit(tmp_path, sleep=work) == (
        "Other programs are busy: train) R (4000001, 100% of a core), ffmpeg (4000003, 50% of a core), "
        "a (4000004, 40% of a core) and 1 more. Stop them, or pin this one to cores of its own (--pin).",
    )


def test_a_real_neighbour_s_ticks_are_counted() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            for _ in range(500):
                ticks = {pid: spent for (pid, _), spent in sensors.ticks_by_process(Path("/")).items()}
                if ticks.get(neighbour.pid, 0) >= 5:
                    break
                time.sleep(0.02)
        finally:
            neighbour.kill()
    assert ticks[neighbour.pid] >= 5
    assert os.getpid() not in ticks


def test_versions_are_those_of_the_engine_that_ran() -> None:
    assert set(versions(EngineName.OPENVINO)) <= {"numpy", "openvino"}
    assert "nvidia driver" not in versions(EngineName.CPU)
    assert sensors.number(Path("/nowhere")) is None


def test_what_other_programs_took_meanwhile_is_told(tmp_path: Path) -> None:
    hz = os.sysconf("SC_CLK_TCK")

    def at(second: float, busy: int, own: int, other: int, children: int = 0) -> Reading:
        _write(
            tmp_path,
            {
                "proc/stat": f"cpu {busy} 0 0 {round(2 * second * hz) - busy} 0 0 0 0 0 0",
                "proc/self/stat": _stat(os.getpid(), "python", own, children),
                "proc/4242/stat": _stat(4242, "a (build)", other),
            },
        )
        return read(tmp_path, monotonic=lambda: second, wall=lambda: second)

    begun = at(100.0, 0, 0, 0)
    found, warnings = between(begun, at(110.0, 14 * hz, 5 * hz, 8 * hz))
    assert found.others == pytest.approx(0.9)
    [said] = warnings
    assert said.startswith(
        "Other programs kept 0.9 cores busy meanwhile, most of all a (build) (4242, 80% of a core): these figures"
    )
    found, warnings = between(begun, at(110.0, 6 * hz, 5 * hz, hz // 10))
    assert (found.others, warnings) == (pytest.approx(0.1), ())
    # A process of ours that has ended, such as that which times the variants, is no other program.
    assert between(begun, at(110.0, 6 * hz, hz, 0, 4 * hz))[0].others == pytest.approx(0.1)
    assert between(begun, at(100.3, hz, 0, 0))[0].others is None  # ticks are too coarse for so short a time
