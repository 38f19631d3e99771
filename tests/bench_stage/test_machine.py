from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl.bench import machine
from edgetl.bench.memory import peak_memory_bytes
from edgetl.records.codec import from_json, to_json
from edgetl.records.measured import Machine


def test_this_machine_is_described() -> None:
    found = machine.describe()
    assert found.cpu
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.memory_bytes > 2**27
    assert found.python.startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert found.cpu in found.fingerprint
    assert f"x{found.cores}" in found.fingerprint
    assert from_json(Machine, to_json(found)) == found
    assert machine.describe() == found


@pytest.mark.parametrize(
    ("cpuinfo", "board", "expected"),
    [
        (
            "processor : 0\ncpu family : 6\nmodel : 143\nmodel name : Intel(R) Xeon(R)\n\nprocessor : 1\n",
            "",
            "Intel(R) Xeon(R) (family 6 model 143)",
        ),
        ("Model : Raspberry Pi 4 Model B\n", "", "Raspberry Pi 4 Model B"),
        (
            "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd42\n",
            "NVIDIA Jetson AGX Orin\0",
            "NVIDIA Jetson AGX Orin (Arm implementer 0x41 part 0xd42)",
        ),
    ],
)
def test_the_cpu_is_named_on_x86_and_arm(tmp_path: Path, cpuinfo: str, board: str, expected: str) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    (tmp_path / "proc/device-tree/model").write_text(board)
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("powersave\n")
    found = machine.describe(tmp_path)
    assert found.cpu == expected
    assert found.governor == "powersave"


def test_a_machine_that_tells_nothing_is_described_all_the_same(tmp_path: Path) -> None:
    found = machine.describe(tmp_path)
    assert found.governor == ""
    assert isinstance(found.cpu, str)


def test_the_gpu_comes_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA A2'\necho 'NVIDIA T4'\n")
    tool.chmod(0o755)
    machine._gpu.cache_clear()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.describe().gpu == "NVIDIA A2, NVIDIA T4"
    assert machine.describe().fingerprint.endswith("NVIDIA A2, NVIDIA T4")
    tool.write_text("#!/bin/sh\necho 'driver mismatch' >&2; exit 9\n")
    machine._gpu.cache_clear()
    assert machine.describe().gpu == ""
    machine._gpu.cache_clear()


def test_peak_memory_is_of_this_process_and_not_of_its_parent() -> None:
    ballast = bytearray(200 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert peak_memory_bytes() > 200 * 2**20
    code = "from edgetl.bench.memory import peak_memory_bytes; print(peak_memory_bytes())"
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 2**22 < int(child.stdout) < 150 * 2**20
    del ballast
