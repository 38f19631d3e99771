"""The GPU at hand and its driver, as far as an engine depends on them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_QUERY = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
_JETSON_MODEL, _JETSON_RELEASE = Path("/proc/device-tree/model"), Path("/etc/nv_tegra_release")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU: its name, its compute capability (`89`; empty where unknown) and its driver's version."""

    name: str
    compute_capability: str
    driver: str


def find_gpu() -> Gpu | None:
    """The first GPU of this machine; None where there is none, and on older Jetsons without nvidia-smi."""
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=10, check=True)
        name, capability, driver = (part.strip() for part in done.stdout.splitlines()[0].split(","))
        return Gpu(name=name, compute_capability=capability.replace(".", ""), driver=driver)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return _jetson()


def _jetson() -> Gpu | None:
    try:
        name = _JETSON_MODEL.read_text(encoding="utf-8").strip("\x00\n ")
        first = _JETSON_RELEASE.read_text(encoding="utf-8").partition("\n")[0]
        release = ",".join(first.split(",")[:2]).strip("# ")
    except (OSError, UnicodeDecodeError):
        return None
    return Gpu(name=name, compute_capability="", driver=release)
