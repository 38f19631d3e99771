"""What this machine can run, and what to install for more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec


@dataclass(frozen=True, kw_only=True)
class Part:
    """One capability. `detail` is its version or what is wrong; `remedy` is empty where nothing is to be done."""

    name: str
    available: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """The machine in words and its capabilities."""

    machine: str
    parts: tuple[Part, ...]


def examine() -> Checkup:
    """Look for engines, the host side and accelerators, without running a model."""
    import platform

    processor = platform.processor() or platform.machine()
    return Checkup(
        machine=f"{processor}, {platform.platform()}, Python {platform.python_version()}",
        parts=(
            _check(
                "ONNX Runtime", _onnxruntime, "pip install 'edgetl[cpu]', or 'edgetl[gpu]' for NVIDIA GPUs"
            ),
            _check("training (torch)", _torch, "pip install 'edgetl[train,cpu]'"),
            _check(
                "CUDA GPU",
                _gpu,
                "train and compile on a machine with an NVIDIA GPU and driver; the CPU works too",
            ),
            _check(
                "TensorRT-RTX builder",
                _version_of("tensorrt_rtx", "tensorrt-rtx"),
                "pip install 'edgetl[rtx]'",
            ),
            _check("TensorRT builder", _version_of("tensorrt", "tensorrt"), "pip install 'edgetl[tensorrt]'"),
        ),
    )


def _check(name: str, look: Callable[[], str], remedy: str) -> Part:
    try:
        return Part(name=name, available=True, detail=look())
    except Exception as error:  # a broken install may raise anything
        return Part(name=name, available=False, detail=f"{error}".split("\n")[0], remedy=remedy)


def _onnxruntime() -> str:
    engine = import_module("onnxruntime")
    return f"{engine.__version__}; built with {', '.join(engine.get_available_providers())}"


def _torch() -> str:
    if find_spec("torch") is None:
        raise ModuleNotFoundError("torch is not installed")
    return ", ".join(f"{p} {metadata.version(p)}" for p in ("torch", "torchvision", "timm"))


def _version_of(module: str, package: str) -> Callable[[], str]:
    def look() -> str:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"{module} is not installed")
        return metadata.version(package)

    return look


def _gpu() -> str:
    import subprocess

    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        raise RuntimeError("nvidia-smi finds no GPU here") from None
    return "; ".join(done.stdout.strip().splitlines())
