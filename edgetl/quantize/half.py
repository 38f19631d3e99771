"""FP16 for GPU targets: half-precision tensors throughout, float32 where a value would overflow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import onnx

from edgetl.errors import ModelError
from edgetl.quantize.graph import Graph, attributes

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
    from onnxruntime.transformers.onnx_model import OnnxModel

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
        _join(half.graph)
        OnnxModel.graph_topological_sort(half.graph, is_deterministic=True)  # its casts stand at the end
        onnx.checker.check_model(half, full_check=True)
    except Exception as error:
        raise ModelError(f"The model cannot be converted to FP16: {_first_line(error)}") from error
    return half, tuple(kept.values())


def _join(graph: onnx.GraphProto) -> None:
    """Between two nodes in float32 the converter narrows and widens again; read what was before the narrowing."""
    to = {n.output[0]: (attributes(n)["to"], n.input[0]) for n in graph.node if n.op_type == "Cast"}
    narrowed = {name: source for name, (kind, source) in to.items() if kind == onnx.TensorProto.FLOAT16}
    widened = {
        name: narrowed[source]
        for name, (kind, source) in to.items()
        if kind == onnx.TensorProto.FLOAT and source in narrowed
    }
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = widened.get(name, name)
    while True:
        read = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
        dead = [node for node in graph.node if node.op_type == "Cast" and node.output[0] not in read]
        if not dead:
            return
        for node in dead:
            graph.node.remove(node)


def _extent(graph: Graph, name: str, extents: Mapping[str, float]) -> float:
    constant = graph.constant(name) if name else None
    if constant is not None:
        real = constant.dtype == np.float32 and constant.size > 0
        finite = np.abs(constant[np.isfinite(constant)]) if real else np.zeros(0)
        return float(finite.max(initial=0.0))
    return extents.get(name, 0.0)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
