"""Compile ONNX to a TensorRT engine: one path for TensorRT (10 and 11) and TensorRT-RTX.

Both have the same Python API, so the module is a parameter of `builder.compile_engine`. Networks are strongly typed:
precision comes from the ONNX alone (half-precision tensors, Q/DQ nodes), and TF32 is off, so that float32 means
float32. TensorRT-RTX compiles for named GPUs on a machine that has none; TensorRT compiles for the GPU at hand.

Where the two differ:

| | tensorrt | tensorrt_rtx |
|---|---|---|
| compiles for | the GPU of this machine | the compute capabilities that are named |
| timing cache | one per device | none (a no-op there) |
| version and hardware compatibility | flags of the builder | refused: its engines run where their GPU is named |
| DLA | on a Jetson that has one | refused |
| `STRONGLY_TYPED` flag | needed by 10, gone or ignored in 11 | needed |

The way: `options` says what is asked; `process` starts a `worker`, which cannot take its parent down; the worker
looks into the `cache`, else lets the `builder` compile; `precision` proves what came out.

That an engine compiles says neither that it runs nor that it is faster: measure it on its GPU.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgetl.export.tensorrt.options import BuildOptions, EnginePrecision, EngineTarget, HardwareCompatibility

if TYPE_CHECKING:
    from edgetl.export.tensorrt.builder import BuiltEngine, compile_engine, load_module
    from edgetl.export.tensorrt.process import build_engine

__all__ = [
    "BuildOptions",
    "BuiltEngine",
    "EnginePrecision",
    "EngineTarget",
    "HardwareCompatibility",
    "build_engine",
    "compile_engine",
    "load_module",
]
_HOMES = {
    "BuiltEngine": "builder",
    "compile_engine": "builder",
    "load_module": "builder",
    "build_engine": "process",
}


def __getattr__(name: str) -> Any:
    """Resolve what builds on first use (PEP 562): the command line needs the options alone."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgetl.export.tensorrt' has no attribute {name!r}")
    return getattr(import_module(f"edgetl.export.tensorrt.{_HOMES[name]}"), name)
