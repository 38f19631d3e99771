"""FP16 for GPU targets: half-precision tensors throughout, float32 where a value would overflow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import onnx

from edgetl.errors import ModelError
from edgetl.quantize.graph import Graph

LARGEST = float(np.finfo(np.float16).max)
_ROOM = 0.5
"""What may be met on the device but was not on the calibration images."""


def float_tensors(graph: Graph) -> tuple[str, ...]:
    """All float tensors that nodes make: what must be looked at before conversion."""
    return tuple(
        name
        for node in graph.nodes
        if node.op_type != "Constant"
        for name in node.output
        if name and graph.is_float(name)
    )


def to_half(graph: Graph, extents: Mapping[str, float]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Convert with `onnxruntime.transformers.float16`; input and output stay float32.

    Args:
        graph: the float graph.
        extents: tensor name -> its largest absolute value on the calibration images, of `float_tensors`.

    Returns:
        The model, and `node (operator): reason` for what stays in float32: nodes that read or make a value above
        half of float16's range (65504), or whose constants are.

    Raises:
        ModelError: it cannot be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    kept: dict[str, str] = {}
    named = onnx.ModelProto()
    named.CopyFrom(graph.model)
    for at, node in enumerate(graph.nodes):
        named.graph.node[at].name = graph.label(at)  # the converter goes by names
        largest = max((_extent(graph, name, extents) for name in (*node.input, *node.output)), default=0.0)
        if largest > _ROOM * LARGEST:
            kept[graph.label(at)] = f"{graph.label(at)} ({node.op_type}): values up to {largest:.3g}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tiny weights that become 0, listed one by one
            half = convert_float_to_float16(named, keep_io_types=True, node_block_list=list(kept))
        onnx.checker.check_model(half, full_check=True)
    except Exception as error:
        raise ModelError(f"The model cannot be converted to FP16: {_first_line(error)}") from error
    return half, tuple(kept.values())


def _extent(graph: Graph, name: str, extents: Mapping[str, float]) -> float:
    constant = graph.constant(name) if name else None
    if constant is not None:
        real = constant.dtype == np.float32 and constant.size > 0
        finite = np.abs(constant[np.isfinite(constant)]) if real else np.zeros(0)
        return float(finite.max(initial=0.0))
    return extents.get(name, 0.0)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
