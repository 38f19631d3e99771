"""Means, sums and norms over axes, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from edgetl.export.litert.graph import attributes, label
from edgetl.export.litert.layout import Order, without
from edgetl.export.litert.parts import Grid, refusal
from edgetl.export.litert.values import Operand
from edgetl.export.litert.writer import Writer


def reduce(
    writer: Writer,
    kind: str,
    name: str,
    source: Operand,
    axes: list[int],
    *,
    keep: bool,
    grid: Grid | None = None,
) -> Operand:
    """The reduction of a tensor over some of ONNX's axes, which stay with length 1 where `keep`."""
    places = writer.numbers(f"{name}_axes", sorted(source.order.index(axis) for axis in axes))
    shape, order = list(source.shape), source.order
    for axis in axes:
        shape[axis] = 1
    if not keep:
        shape = [length for axis, length in enumerate(shape) if axis not in axes]
        order = without(order, axes)
    return writer.step(
        kind,
        [source.tensor, places],
        name,
        shape,
        order,
        "ReducerOptions",
        grid=grid,
        version=1 if grid is None else 2,
        keepDims=keep,
    )


def global_average_pooling(writer: Writer, node: onnx.NodeProto) -> None:
    """GlobalAveragePool: the mean of height and width, on integers where it stands between integers."""
    source, grid = writer.read(node), writer.grid_after(node.output[0])
    if source.grid is None or grid is None:
        source, grid = writer.real(source), None
    axes = list(range(2, len(source.shape)))
    writer.values[node.output[0]] = reduce(writer, "MEAN", node.output[0], source, axes, keep=True, grid=grid)


def reduction(kind: str) -> Callable[[Writer, onnx.NodeProto], None]:
    """The writer of ReduceMean and its like."""

    def write(writer: Writer, node: onnx.NodeProto) -> None:
        source, axes, keep = _over(writer, node)
        writer.values[node.output[0]] = reduce(writer, kind, node.output[0], source, axes, keep=keep)

    return write


def norm(writer: Writer, node: onnx.NodeProto) -> None:
    """ReduceL2: the root of the sum of squares."""
    source, axes, keep = _over(writer, node)
    name = node.output[0]
    squares = writer.step(
        "SQUARE", [source.tensor], f"{name}_squares", source.shape, source.order, "SquareOptions"
    )
    total = reduce(writer, "SUM", f"{name}_sum", squares, axes, keep=keep)
    writer.values[name] = writer.step("SQRT", [total.tensor], name, total.shape, total.order)


def _over(writer: Writer, node: onnx.NodeProto) -> tuple[Operand, list[int], bool]:
    source, options = writer.real(writer.read(node)), attributes(node)
    rank = len(source.shape)
    if len(node.input) > 1 and node.input[1]:
        axes = writer.fixed(node, 1, "axes").reshape(-1).tolist()
    else:
        axes = list(options.get("axes", range(rank)))
    return source, [int(axis) % rank for axis in axes], bool(options.get("keepdims", 1))


def softmax(writer: Writer, node: onnx.NodeProto) -> None:
    """Softmax over one axis, which is stored last."""
    source = writer.real(writer.read(node))
    axis = attributes(node).get("axis", -1) % len(source.shape)
    if source.order[-1] != axis:
        source = writer.ordered(source, _last(source.order, axis))
    writer.values[node.output[0]] = writer.step(
        "SOFTMAX", [source.tensor], node.output[0], source.shape, source.order, "SoftmaxOptions", beta=1.0
    )


def _last(order: Order, axis: int) -> Order:
    return (*(each for each in order if each != axis), axis)


def layer_norm(writer: Writer, node: onnx.NodeProto) -> None:
    """LayerNormalization, of means, squares and a reciprocal root, as there is no operator for it."""
    source, options = writer.real(writer.read(node)), attributes(node)
    rank, name = len(source.shape), node.output[0]
    if len(node.output) > 1 and any(node.output[1:]):
        raise refusal(node.op_type, label(node), "its mean and deviation are read too.")
    axes = list(range(options.get("axis", -1) % rank, rank))

    def step(kind: str, inputs: list[int], like: Operand, table: str = "") -> Operand:
        return writer.step(kind, inputs, name, like.shape, like.order, table)

    def constant(number: int) -> int:
        values = writer.fixed(node, number, "scale or bias").astype(np.float32)
        return writer.put(
            node.input[number],
            values.reshape((1,) * (rank - values.ndim) + values.shape).transpose(source.order),
        )

    mean = reduce(writer, "MEAN", f"{name}_mean", source, axes, keep=True)
    centred = step("SUB", [source.tensor, mean.tensor], source, "SubOptions")
    squares = step("SQUARE", [centred.tensor], source, "SquareOptions")
    variance = reduce(writer, "MEAN", f"{name}_variance", squares, axes, keep=True)
    least = writer.put(f"{name}_epsilon", np.array([options.get("epsilon", 1e-5)], np.float32))
    lifted = step("ADD", [variance.tensor, least], variance, "AddOptions")
    inverse = step("RSQRT", [lifted.tensor], variance)
    normal = step("MUL", [centred.tensor, inverse.tensor], source, "MulOptions")
    result = step("MUL", [normal.tensor, constant(1)], source, "MulOptions")
    if len(node.input) > 2 and node.input[2]:
        result = step("ADD", [result.tensor, constant(2)], source, "AddOptions")
    writer.values[name] = result
