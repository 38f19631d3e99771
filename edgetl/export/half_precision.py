"""Arithmetic in half precision, for engines that take precision from the graph; what would overflow stays in float32.

The conversion itself is ONNX Runtime's. Two things are added. Real images show which layers overflow: float16 ends
at 65504, and a layer that comes within a quarter of it, for the images seen, keeps float32. And between two layers
that keep float32 no value passes through float16, as the plain conversion would have it.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.export.graphs import DECODE, copy_of, drop_unread, extremes, set_nodes, sort_nodes
from edgetl.quiet import quietly

FLOAT32_LAYERS_KEY = "edgetl.float32_layers"
"""Metadata: a JSON list of the nodes that stay in float32 on purpose."""
HEADROOM = 4.0
"""A layer stays in float32 where the largest value that was seen, times this, does not fit into float16."""
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class HalfModel:
    """A model in half precision, with float32 input and output, and the names of the nodes that stay in float32."""

    model: onnx.ModelProto
    float32_layers: tuple[str, ...]


def to_half(model: onnx.ModelProto, images: NDArray[Any]) -> HalfModel:
    """Convert a float32 model.

    Args:
        model: input and output float32; they stay so.
        images: real, preprocessed images as the model takes them, to see what overflows; a few are enough.

    Raises:
        ModelError: an activation is NaN or infinite in float32 already, or the model cannot be converted.
        MissingDependencyError: onnxruntime is absent.
    """
    named = _named(model)
    # a pixel's place in a large picture needs more digits than float16 has
    decoding = [node.name for node in named.graph.node if node.name.startswith(DECODE)]
    kept = [*_would_overflow(named, images), *decoding]
    try:
        with quietly():
            from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that become 0, one warning each
            half = convert_float_to_float16(
                copy_of(named),
                keep_io_types=True,
                op_block_list=DEFAULT_OP_BLOCK_LIST,
                node_block_list=list(kept),
            )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelError(f"The model cannot be converted to half precision: {error}") from error
    _join_casts(half)
    drop_unread(half.graph)
    sort_nodes(half.graph)
    metadata = {p.key: p.value for p in named.metadata_props} | {FLOAT32_LAYERS_KEY: json.dumps(kept)}
    helper.set_model_props(half, metadata)
    del half.graph.value_info[:]
    onnx.checker.check_model(half, full_check=True)
    return HalfModel(half, tuple(kept))


def as_on_a_gpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that rounds to half precision, on a CPU too, wherever the graph says so.

    A CPU without half-precision kernels computes in float32 and leaves out the casts in between, so that nothing
    overflows there. An Identity behind each such operator keeps them; run it unoptimised.
    """
    copy = copy_of(model)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    nodes = []
    for node in copy.graph.node:
        nodes.append(node)
        for position, name in enumerate(node.output):
            if types.get(name) == TensorProto.FLOAT16:
                node.output[position] = f"{name}/unrounded"
                nodes.append(helper.make_node("Identity", [node.output[position]], [name], f"{name}/round"))
    set_nodes(copy.graph, nodes)
    return copy


def is_half(model: onnx.ModelProto) -> bool:
    """Whether the graph computes in half precision: a convolution or matrix product takes it."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    halves = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    return any(
        node.op_type in ("Conv", "Gemm", "MatMul") and node.input[0] in halves for node in model.graph.node
    )


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name of its own."""
    copy, seen = copy_of(model), set()
    for index, node in enumerate(copy.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}_{index}"
        seen.add(node.name)
    return copy


def _would_overflow(model: onnx.ModelProto, images: NDArray[Any]) -> list[str]:
    seen = extremes(model, images)
    if broken := [name for name, value in seen.items() if not np.isfinite(value)]:
        raise ModelError(
            f"The activation {broken[0]!r} is NaN or infinite in float32 already; look at the weights."
        )
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and (values := numpy_helper.to_array(tensor)).size:
            # A weight is known: it needs no headroom.
            seen[tensor.name] = float(np.abs(values).max()) / HEADROOM
    return [
        node.name
        for node in model.graph.node
        if any(seen.get(name, 0.0) * HEADROOM > _LARGEST for name in (*node.input, *node.output))
    ]


def _join_casts(model: onnx.ModelProto) -> None:
    """Let a reader of float32 take a float32 tensor itself, not its copy that went through float16."""
    graph, inferred = model.graph, onnx.shape_inference.infer_shapes(model).graph
    makers = {name: node for node in graph.node for name in node.output}
    singles = {
        value.name
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    } | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}

    def cast_to(name: str, kind: int) -> str | None:
        node = makers.get(name)
        if node is None or node.op_type != "Cast" or node.attribute[0].i != kind:
            return None
        return str(node.input[0])

    def unrounded(name: str) -> str | None:
        half = cast_to(name, TensorProto.FLOAT)
        source = cast_to(half, TensorProto.FLOAT16) if half else None
        return source if source in singles else None

    for node in graph.node:
        for position, name in enumerate(node.input):
            if whole := unrounded(name):
                node.input[position] = whole
    for value in graph.output:
        if (whole := unrounded(value.name)) and whole in makers:
            _rename(graph, whole, value.name)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor the name of a graph's output, whose own maker goes."""
    set_nodes(graph, [node for node in graph.node if new not in node.output])
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new
