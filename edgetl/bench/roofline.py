"""How far a model is from what the machine can do: its multiply-accumulates and bytes against measured peaks.

After Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures"
(2009). The peaks are not a data sheet's: a matrix product in the engine that runs the model, and a copy of memory.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.bench.profile import NodeShapes, profile, shapes_of
from edgetl.bench.timer import time_calls
from edgetl.errors import ConfigError
from edgetl.progress import SILENT, Progress
from edgetl.records.bench import LayerReach, LayerTime, Peaks, Profile, Roofline
from edgetl.runtime.engines.onnxruntime import Device, OnnxBackend
from edgetl.runtime.targets import EngineName
from edgetl.runtime.wire import Operator, written

_SIDES = (256, 512, 1024)
"""Of the matrices: small ones stay in a cache, large ones feed many threads; the fastest counts."""
_PRODUCT_CALLS = 10
_COPY_BYTES, _COPIES = 64 << 20, 10
"""Each side of the copy is larger than most last-level caches, or a good part of one."""
_CALLS, _SETTLE = 30, 5

FLOAT, INT8 = "float", "int8"
_BYTES: Mapping[str, int] = {
    "float": 4,
    "float16": 2,
    "bfloat16": 2,
    "double": 8,
    "int32": 4,
    "int64": 8,
    "uint32": 4,
    "uint64": 8,
    "int16": 2,
    "uint16": 2,
}
"""Of an element by ONNX Runtime's name; 1 for the others."""
_CONVOLUTIONS: Mapping[str, int] = {
    "Conv": 1,
    "FusedConv": 1,
    "NhwcConv": 1,
    "NhwcFusedConv": 1,
    "ConvInteger": 1,
    "QLinearConv": 3,
}
"""Which of an operator's inputs holds the kernel (O, I, ...)."""
_PRODUCTS = frozenset(
    {
        "MatMul",
        "Gemm",
        "FusedMatMul",
        "FusedGemm",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QLinearMatMul",
        "QGemm",
    }
)
_INT8_INSIDE = "DynamicQuantizeMatMul"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one call of a node asks for.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products; 0 for all else.
        bytes: inputs, weights and outputs, each once.
        precision: what it multiplies in: `float` or `int8`; empty where it multiplies no matrices.
    """

    macs: int
    bytes: int
    precision: str


def check(target: EngineName) -> None:
    """Raises ConfigError where `target` is not ONNX Runtime on the CPU, whose peaks are all that is measured."""
    if target in (EngineName.AUTO, EngineName.CPU):
        return
    raise ConfigError(
        f"--roofline measures the peaks of ONNX Runtime on the CPU, and {target} is another engine: leave it out, or"
        " add --target cpu."
    )


def measure(
    model: bytes, images: NDArray[Any], *, threads: int, progress: Progress = SILENT
) -> tuple[Roofline, Profile]:
    """The machine's peaks, and what share of them each layer and the whole model reach; also the times by layer.

    Args:
        model: the ONNX file.
        images: a batch as the model takes it.
        threads: threads of the engine, of the products and of the copy.
        progress: shows the products that are measured.
    """
    found = peaks(threads, progress)
    with OnnxBackend(model, threads=threads) as backend:
        latency = statistics.median(
            time_calls(lambda: backend.run(images), warmup=_SETTLE, runs=_CALLS, progress=progress)
        )
    times = profile(model, images, device=Device.CPU, threads=threads)
    work = {node.name: work_of(node) for node in shapes_of(model, images)}
    asked = [work_of(node) for node in shapes_of(model, images, blocks=False)]
    return set_against(found, times.layers, work, asked, latency_ms=latency, threads=threads), times


def set_against(
    found: Peaks,
    layers: Iterable[LayerTime],
    work: Mapping[str, Work],
    asked: Sequence[Work],
    *,
    latency_ms: float,
    threads: int,
) -> Roofline:
    """Each layer's work over its time, and the model's over `latency_ms`, as shares of the peaks.

    Args:
        found: the peaks.
        layers: times by layer.
        work: of each layer as the engine lays it out.
        asked: the model's work as the model has it, which is what counts for the whole.
        latency_ms: of a call.
        threads: that all of these had.
    """
    reached = []
    for layer in layers:
        own = work[layer.name]
        seconds = layer.median_ms / 1e3
        reached.append(
            LayerReach(
                name=layer.name,
                operator=layer.operator,
                precision=own.precision,
                median_ms=layer.median_ms,
                macs=own.macs,
                bytes=own.bytes,
                of_peak=_least_s(found, own) / seconds if own.macs and seconds else None,
                of_copy=own.bytes / found.copy_bytes / seconds if seconds else None,
            )
        )
    least_ms = 1e3 * sum(_least_s(found, each) for each in asked)
    moved = sum(layer.bytes for layer in reached)
    return Roofline(
        threads=threads,
        peaks=found,
        latency_ms=latency_ms,
        float_macs=sum(each.macs for each in asked if each.precision == FLOAT),
        int8_macs=sum(each.macs for each in asked if each.precision == INT8),
        bytes=moved,
        least_ms=least_ms,
        of_peak=least_ms / latency_ms,
        of_copy=1e3 * moved / found.copy_bytes / latency_ms,
        layers=tuple(reached),
    )


def peaks(threads: int, progress: Progress = SILENT) -> Peaks:
    """The fastest products in float and in INT8, by the engine's own profiler, and the fastest copy of memory.

    The fastest call counts and not the median: what else runs on the machine can only slow one down.
    """
    best = {FLOAT: 0.0, INT8: 0.0}
    with progress.task("peaks of this machine", 2 * len(_SIDES) + 1) as task:
        for side in _SIDES:
            for precision in best:
                best[precision] = max(best[precision], _product(side, precision, threads))
                task.advance(1)
        copied = _copy(threads)
        task.advance(1)
    return Peaks(float_macs=best[FLOAT], int8_macs=best[INT8], copy_bytes=copied)


def _product(side: int, precision: str, threads: int) -> float:
    """Multiply-accumulates a second of a product of two square matrices."""
    model, images = product(side, precision)
    times = profile(model, images, device=Device.CPU, threads=threads, calls=_PRODUCT_CALLS, settle=2)
    fastest = min(layer.least_ms for layer in times.layers if layer.operator in _PRODUCTS)
    return 1e3 * side**3 / max(fastest, 1e-3)


def product(side: int, precision: str) -> tuple[bytes, NDArray[Any]]:
    """A model that multiplies its input by a constant, and that input: (1, 1, side, side) float32, or uint8 by int8."""
    generator = np.random.default_rng(0)
    shape = (1, 1, side, side)
    right: NDArray[Any]
    left: NDArray[Any]
    chain: tuple[Operator, ...]
    if precision == FLOAT:
        right = generator.standard_normal((side, side), dtype=np.float32)
        left = generator.standard_normal(shape, dtype=np.float32)
        chain = (Operator(name="product", kind="MatMul", inputs=("left", "right"), output="product"),)
    else:
        right = generator.integers(-127, 128, (side, side), dtype=np.int8)
        left = generator.integers(0, 256, shape, dtype=np.uint8)
        chain = (
            Operator(name="product", kind="MatMulInteger", inputs=("left", "right"), output="sums"),
            # The engine's outputs are float here; the profile tells this node's time from the product's.
            Operator(name="float", kind="Cast", inputs=("sums",), output="product", attributes={"to": 1}),
        )
    return written(chain, {"right": right}, left, "left", ("product", shape)), left


def _copy(threads: int) -> float:
    """Bytes read and written a second by a copy from one array to another, each thread its own part."""
    source, target = np.ones(_COPY_BYTES, np.uint8), np.empty(_COPY_BYTES, np.uint8)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            if threads == 1:
                np.copyto(target, source)
            else:
                list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))

        fastest = min(time_calls(copy, warmup=2, runs=_COPIES))
    return 2e3 * _COPY_BYTES / fastest


def work_of(node: NodeShapes) -> Work:
    """What a node asks for, from its tensors' shapes: convolutions and matrix products are counted in
    multiply-accumulates, and nothing else is."""
    tensors = (*node.inputs, *node.outputs)
    moved = sum(_BYTES.get(kind, 1) * math.prod(shape) for each in tensors for kind, shape in each.items())
    macs = _macs(node)
    if not macs:
        return Work(macs=0, bytes=moved, precision="")
    integers = node.operator == _INT8_INSIDE or next(iter(node.inputs[0])) in ("uint8", "int8")
    return Work(macs=macs, bytes=moved, precision=INT8 if integers else FLOAT)


def _macs(node: NodeShapes) -> int:
    made = math.prod(_shape(node.outputs[0])) if node.outputs else 0
    if node.operator in _CONVOLUTIONS:
        return made * math.prod(_shape(node.inputs[_CONVOLUTIONS[node.operator]])[1:])
    if node.operator == "ConvTranspose":
        return math.prod(_shape(node.inputs[0])) * math.prod(_shape(node.inputs[1])[1:])
    if node.operator not in _PRODUCTS:
        return 0
    left, found = _shape(node.inputs[0]), _shape(node.outputs[0])
    # A product that transposes its left side sums over the last axis but one.
    transposed = len(left) > 1 and len(found) > 1 and left[-2] != found[-2]
    return made * (left[-2] if transposed else left[-1])


def _least_s(found: Peaks, asked: Work) -> float:
    return asked.macs / (found.int8_macs if asked.precision == INT8 else found.float_macs)


def _shape(tensor: Mapping[str, Sequence[int]]) -> Sequence[int]:
    return next(iter(tensor.values()))
