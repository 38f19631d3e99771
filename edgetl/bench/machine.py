"""What this machine is, so that figures of different machines are never mixed up."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path

from edgetl.bench.sensors import text
from edgetl.process import usable_cores
from edgetl.processor import kind
from edgetl.records.measured import Machine


def describe(root: Path = Path("/")) -> Machine:
    """This machine. What cannot be found out is empty or 0; nothing is raised.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    return Machine(
        cpu=_cpu(root),
        cores=usable_cores(),
        memory_bytes=_memory(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        gpu=_gpu(),
        governor=text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        processor=kind(),
    )


def _cpu(root: Path) -> str:
    board = text(root / "proc/device-tree/model").rstrip("\0")
    names = _cpuinfo_names(text(root / "proc/cpuinfo"))
    if platform.system() == "Darwin":
        names.append(_output("sysctl", "-n", "machdep.cpu.brand_string"))
    name = next((n for n in names if n), "") or platform.processor() or platform.machine()
    return f"{board} ({name})" if board else name


def _cpuinfo_names(text: str) -> list[str]:
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name", "")
    if name and "cpu family" in fields:
        # Clouds hide the exact name, e.g. `Intel(R) Xeon(R) Processor`; family and model still identify it.
        name += f" (family {fields['cpu family']} model {fields.get('model', '?')})"
    names = [name, fields.get("Model", ""), fields.get("Hardware", "")]
    if "CPU part" in fields:
        # Arm kernels give codes instead of a name.
        names.append(f"Arm implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}")
    return names


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


@functools.cache
def _gpu() -> str:
    """Names of NVIDIA's GPUs; asked once, since the tool takes up to a second."""
    if shutil.which("nvidia-smi") is None:
        return ""
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    return ", ".join(name.strip() for name in names if name.strip())


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
