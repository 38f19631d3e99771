"""Has the package index wheels for the systems and Pythons that we name? Needs the network."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRIED = ROOT / "edgetl" / "constraints.txt"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# OpenVINO's wheels for Arm64 Linux need glibc 2.35, those of all others 2.28.
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux Arm64": "aarch64-manylinux_2_35",
    "macOS Arm64": "aarch64-apple-darwin",
    "Windows x86-64": "x86_64-pc-windows-msvc",
}
SETS = {
    "train,cpu": ("train", "cpu"),
    "cpu": ("cpu",),
    "make test": ("train", "cpu", "openvino", "video", "sound", "sign", "loadgen", "rtx", "dev"),
}
# Where its marker holds, tensorrt-rtx comes as source packages that do nothing but name wheels of the machine.
WITH_RTX = ("Linux x86-64", "Windows x86-64")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("uv") is None, reason="uv is not installed: pip install uv"),
]


def resolve(platform: str, python: str, extras: tuple[str, ...], constraints: Path | None) -> str:
    """An empty text where all wheels are there, else the end of what uv says."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--only-binary", ":all:"]
    for extra in extras:
        if extra != "rtx" or platform not in WITH_RTX:
            command += ["--extra", extra]
    if constraints is not None:
        command += ["--constraints", str(constraints)]
    command += ["--python-platform", PLATFORMS[platform], "--python-version", python, "pyproject.toml"]
    # The oldest macOS that torch has wheels for.
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[-300:]


@pytest.mark.parametrize("constraints", [TRIED, None], ids=["tried", "newest"])
def test_wheels_for_every_platform_and_python(constraints: Path | None) -> None:
    places = [(platform, extras, python) for platform in PLATFORMS for extras in SETS for python in PYTHONS]
    with ThreadPoolExecutor(4) as threads:
        reasons = list(threads.map(lambda p: resolve(p[0], p[2], SETS[p[1]], constraints), places))
    missing = {place: reason for place, reason in zip(places, reasons, strict=True) if reason}
    print(f"\n{'':28}" + "".join(f"{python:>8}" for python in PYTHONS))
    for platform in PLATFORMS:
        for extras in SETS:
            cells = ["-" if (platform, extras, python) in missing else "yes" for python in PYTHONS]
            print(f"{platform + ', ' + extras:<28}" + "".join(f"{cell:>8}" for cell in cells))
    assert not missing, missing
