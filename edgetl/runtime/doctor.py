"""What this machine can run, and what to install for more."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata, resources
from importlib.util import find_spec
from pathlib import Path

from edgetl.packages import GPU_ENGINE, HOST, PIP_NAMES, canonical, pip_install
from edgetl.quiet import quietly
from edgetl.runtime.engines.table import ENGINES
from edgetl.runtime.targets import EngineName

DEVICE = ("edgetl", "numpy", "pillow", "typer", "rich")
"""What every device needs besides an engine."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_SYSTEM = re.compile(r"""(platform_system|sys_platform|os_name)\s*==\s*["']([^"']+)["']""")
_TRIED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One capability. `detail` is its version or what is wrong; `remedy` is empty where nothing is to be done."""

    name: str
    available: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Package:
    """An installed package and the size of its files."""

    name: str
    version: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An installed package of another version than the one that edgetl was tried with."""

    name: str
    installed: str
    tried: str


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """The machine in words and its capabilities.

    `install` is what the device side needs of what is installed, by size; `differences` the installed packages whose
    versions are not those of `edgetl/constraints.txt`, by name.
    """

    machine: str
    parts: tuple[Part, ...]
    install: tuple[Package, ...] = ()
    differences: tuple[Difference, ...] = ()


def examine() -> Checkup:
    """Look for engines, the host side and accelerators, without running a model."""
    processor = platform.processor() or platform.machine()
    return Checkup(
        machine=f"{processor}, {platform.platform()}, Python {platform.python_version()}",
        parts=(
            _check(
                "ONNX Runtime", _onnxruntime, f"{pip_install('onnxruntime')}, or {GPU_ENGINE} for NVIDIA GPUs"
            ),
            _check("OpenVINO", _version_of("openvino"), pip_install("openvino")),
            _check("LiteRT", _version_of("ai_edge_litert"), pip_install("ai_edge_litert")),
            _check("videos and cameras (OpenCV)", _opencv, pip_install("cv2")),
            _check("signatures", _version_of("cryptography"), pip_install("cryptography")),
            _check("serving", _version_of("uvicorn"), pip_install("starlette", "uvicorn", "httptools")),
            _check("training (torch)", _torch, pip_install(*HOST)),
            _check(
                "CUDA GPU",
                _gpu,
                "train and compile on a machine with an NVIDIA GPU and driver; the CPU works too",
            ),
            _check(
                "TensorRT-RTX builder",
                _version_of("tensorrt_rtx"),
                pip_install("tensorrt_rtx"),
            ),
            _check("TensorRT builder", _version_of("tensorrt"), pip_install("tensorrt")),
        ),
        install=_device_install(),
        differences=differences(),
    )


def constraints() -> dict[str, str]:
    """The versions that edgetl was tried with, by package: what `edgetl/constraints.txt` holds."""
    lines = (resources.files("edgetl") / "constraints.txt").read_text(encoding="utf-8").split()
    pairs = [_TRIED.fullmatch(line) for line in lines]
    return {canonical(pair[1]): pair[2] for pair in pairs if pair}


def differences() -> tuple[Difference, ...]:
    """Installed packages that edgetl uses here, of other versions than those of `edgetl/constraints.txt`, by name."""
    extras = [_NAME.match(text)[0] for text in metadata.requires("edgetl") or [] if "extra ==" in text]  # type: ignore[index]
    used = reached(*DEVICE, *extras)
    return tuple(
        Difference(name=name, installed=used[name].version, tried=tried)
        for name, tried in sorted(constraints().items())
        if name in used and used[name].version != tried
    )


def _check(name: str, look: Callable[[], str], remedy: str) -> Part:
    try:
        return Part(name=name, available=True, detail=look())
    except Exception as error:  # a broken install may raise anything
        return Part(name=name, available=False, detail=f"{error}".split("\n")[0], remedy=remedy)


def _onnxruntime() -> str:
    with quietly():
        engine = import_module("onnxruntime")
    return f"{engine.__version__}; built with {', '.join(engine.get_available_providers())}"


def _torch() -> str:
    if find_spec("torch") is None:
        raise ModuleNotFoundError("torch is not installed")
    return ", ".join(f"{p} {metadata.version(p)}" for p in ("torch", "torchvision", "timm"))


def _opencv() -> str:
    if find_spec("cv2") is None:
        raise ModuleNotFoundError("cv2 is not installed")
    return str(import_module("cv2").__version__)


def _device_install() -> tuple[Package, ...]:
    """The device side's packages and its engine as they are installed here, the largest first."""
    found = []
    for name, distribution in reached(*DEVICE, *ENGINES[EngineName.CPU].packages).items():
        files = distribution.files or []
        size = sum(path.stat().st_size for path in map(_located, files) if path.is_file())
        found.append(Package(name=name, version=distribution.version, size_bytes=size))
    return tuple(sorted(found, key=lambda package: (-package.size_bytes, package.name)))


def reached(*names: str) -> dict[str, metadata.Distribution]:
    """What is installed of these packages and of all that they need, by name, without what extras bring."""
    found: dict[str, metadata.Distribution] = {}
    wanted = list(names)
    while wanted:
        name = canonical(wanted.pop())
        distribution = _installed(name)
        if name in found or distribution is None:
            continue
        found[name] = distribution
        wanted += [_NAME.match(text)[0] for text in distribution.requires or [] if _needed_here(text)]  # type: ignore[index]
    return found


def _needed_here(requirement: str) -> bool:
    """Whether a requirement holds without extras and on this system, as far as its marker is about nothing else."""
    marker = requirement.partition(";")[2]
    if "extra ==" in marker or " or " in marker:
        return "extra ==" not in marker
    here = {"platform_system": platform.system(), "sys_platform": sys.platform, "os_name": os.name}
    return all(here[name] == value for name, value in _SYSTEM.findall(marker))


def _located(file: metadata.PackagePath) -> Path:
    return Path(str(file.locate()))


def _installed(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _version_of(module: str) -> Callable[[], str]:
    def look() -> str:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"{module} is not installed")
        return metadata.version(PIP_NAMES[module])

    return look


def _gpu() -> str:
    import subprocess

    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        raise RuntimeError("nvidia-smi finds no GPU here") from None
    return "; ".join(done.stdout.strip().splitlines())
