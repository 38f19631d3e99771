"""Matrix products."""

from __future__ import annotations

import numpy as np
import onnx

from edgetl.export.litert.graph import attributes, label
from edgetl.export.litert.layout import Order, plain
from edgetl.export.litert.parts import Grid, refusal
from edgetl.export.litert.values import Constant, Operand
from edgetl.export.litert.windows import bias_of, stored_as_int8
from edgetl.export.litert.writer import Writer


def gemm(writer: Writer, node: onnx.NodeProto) -> None:
    """Gemm with constant weights: FULLY_CONNECTED."""
    options = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0} | attributes(node)
    weights, bias = writer.constant(node, 1), writer.constant(node, 2)
    if options["alpha"] != 1.0 or options["beta"] != 1.0 or options["transA"]:
        raise refusal(node.op_type, label(node), "its alpha, beta or transA is not the usual one.")
    if weights is None:
        raise refusal(node.op_type, label(node), "its weights are no constant.")
    filters = weights.values.shape[0 if options["transB"] else 1]
    if len(node.input) > 2 and (bias is None or bias.values.shape != (filters,)):
        raise refusal(node.op_type, label(node), "its bias is no constant, or not one number a channel.")
    _fully_connected(writer, node, weights, filters, turned=not options["transB"])


def matmul(writer: Writer, node: onnx.NodeProto) -> None:
    """MatMul: FULLY_CONNECTED with constant weights, else BATCH_MATMUL."""
    weights = writer.constant(node, 1)
    if weights is not None and weights.values.ndim == 2 and isinstance(writer.values[node.input[0]], Operand):
        _fully_connected(writer, node, weights, weights.values.shape[1], turned=True)
        return
    sides = [writer.real(writer.read(node, number)) for number in (0, 1)]
    if any(len(side.shape) < 2 for side in sides):
        raise refusal(node.op_type, label(node), "a factor is a vector.")
    flipped = [side.order == _flipped(len(side.shape)) for side in sides]
    left, right = (
        side if turned else writer.ordered(side, plain(len(side.shape)))
        for side, turned in zip(sides, flipped, strict=True)
    )
    shape = writer.shape(node.output[0])
    writer.values[node.output[0]] = writer.step(
        "BATCH_MATMUL",
        [left.tensor, right.tensor],
        node.output[0],
        shape,
        plain(len(shape)),
        "BatchMatMulOptions",
        adjX=flipped[0],
        adjY=flipped[1],
    )


def _flipped(rank: int) -> Order:
    """The order of a matrix that is stored column by column."""
    return (*range(rank - 2), rank - 1, rank - 2)


def _fully_connected(
    writer: Writer, node: onnx.NodeProto, weights: Constant, filters: int, *, turned: bool
) -> None:
    """A product with weights (filters, width); `turned` where ONNX has them the other way."""
    source, shape = writer.read(node), writer.shape(node.output[0])
    grid = _integer_grid(writer, node, source, weights)
    source = source if grid is not None else writer.real(source)
    last = len(source.shape) - 1
    if source.order[-1] != last:
        source = writer.ordered(source, plain(len(source.shape)))
    own = label(node)
    stored = (writer.integers if grid is not None else writer.weights)(
        f"{own}.weight", weights, lambda values: values.T if turned else values, axis=0
    )
    inputs = [source.tensor, stored]
    if grid is not None or node.op_type == "Gemm":
        inputs.append(bias_of(writer, node, filters, source, weights if grid is not None else None))
    more = {} if last == 1 else {"keepNumDims": True}
    version = 4 if grid is not None else 1
    writer.values[node.output[0]] = writer.step(
        "FULLY_CONNECTED",
        inputs,
        node.output[0],
        shape,
        source.order,
        "FullyConnectedOptions",
        grid=grid,
        version=max(version, 5) if more else version,
        **more,
    )


def _integer_grid(writer: Writer, node: onnx.NodeProto, source: Operand, weights: Constant) -> Grid | None:
    if source.grid is None or not stored_as_int8(weights):
        return None
    bias = writer.constant(node, 2)
    if bias is not None and (bias.integers is None or bias.integers.values.dtype != np.int32):
        return None
    return writer.grid_after(node.output[0])
