"""Operators that treat every value by itself: sums and products, and activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import onnx

from edgetl.export.litert.graph import attributes, label
from edgetl.export.litert.layout import CHANNELS_LAST, Order, plain
from edgetl.export.litert.parts import Grid, Operator, refusal
from edgetl.export.litert.values import Constant, Integers, Operand
from edgetl.export.litert.writer import Writer

RELU, RELU_N1_TO_1, RELU6 = 1, 2, 3
"""The schema's numbers of activations that other operators take along."""
_FUSED: Mapping[tuple[float, float], int] = {
    (0.0, np.inf): RELU,
    (-1.0, 1.0): RELU_N1_TO_1,
    (0.0, 6.0): RELU6,
}
_CLAMPS: Mapping[tuple[float, float], str] = {
    (0.0, np.inf): "RELU",
    (-1.0, 1.0): "RELU_N1_TO_1",
    (0.0, 6.0): "RELU6",
    (0.0, 1.0): "RELU_0_TO_1",
}
_TAKES_ALONG = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "DIV")
_SIGMOID_GRID = Grid(scale=np.array([1 / 256], np.float32), zero_point=-128)
"""The grid that LOGISTIC puts its result on, whatever the input's."""
_GATE_GRID = Grid(scale=np.array([1 / 255], np.float32), zero_point=-128)
"""From 0 to 1, both exact."""
_TABLES = {
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "POW": "PowOptions",
}
_FLOAT32, _UINT8 = 0, 3
"""The schema's numbers of types."""
_ON_INTEGERS = ("ADD", "SUB", "MUL")


def binary(kind: str) -> Callable[[Writer, onnx.NodeProto], None]:
    """The writer of an operator of two inputs that are broadcast."""

    def write(writer: Writer, node: onnx.NodeProto) -> None:
        if kind == "ADD" and _is_bias(writer, node):
            return
        sides = [writer.values[name] for name in node.input]
        if kind == "MUL" and (constant := _scaled_constant(sides)) is not None:
            writer.values[node.output[0]] = constant
            return
        grid = writer.grid_after(node.output[0]) if kind in _ON_INTEGERS else None
        if not all(isinstance(side, Operand) and side.grid is not None for side in sides):
            grid = None
        shape = writer.shape(node.output[0])
        order = _common_order(sides, len(shape))
        inputs = [
            _broadcast(writer, name, side, len(shape), order, integers=grid is not None)
            for name, side in zip(node.input, sides, strict=True)
        ]
        writer.values[node.output[0]] = writer.step(
            kind,
            inputs,
            node.output[0],
            shape,
            order,
            _TABLES[kind],
            grid=grid,
            version=1 if grid is None else 2,
        )

    return write


def _common_order(sides: list[Operand | Constant], rank: int) -> Order:
    """The order of the largest operand, so that the others, which are small, are moved."""
    full = [side for side in sides if isinstance(side, Operand) and len(side.shape) == rank]
    if not full:
        return plain(rank)
    return max(full, key=lambda side: prod(side.shape)).order


def _broadcast(
    writer: Writer, name: str, side: Operand | Constant, rank: int, order: Order, *, integers: bool
) -> int:
    """A side as a tensor of the rank in the order."""
    if isinstance(side, Constant):
        missing = (1,) * (rank - side.values.ndim)
        return writer.weights(
            name, side, lambda values: values.reshape(missing + values.shape).transpose(order)
        )
    if not integers:
        side = writer.real(side)
    if len(side.shape) < rank:
        added = rank - len(side.shape)
        wider = (*range(added), *(axis + added for axis in side.order))
        side = writer.stored_as(side, (1,) * added + side.shape, wider)
    return writer.ordered(side, order).tensor


def _is_bias(writer: Writer, node: onnx.NodeProto) -> bool:
    """Whether a sum is the bias of the matrix product before it, which then takes it."""
    for product, other in (node.input, reversed(node.input)):
        constant, found = writer.values[other], writer.values[product]
        if isinstance(found, Constant) or not isinstance(constant, Constant) or found.grid is not None:
            continue
        maker = writer.maker(found)
        if maker is None or maker.kind != "FULLY_CONNECTED" or len(maker.inputs) != 2:
            continue
        if writer.graph.only_consumer(product) is not node or constant.values.shape != found.shape[-1:]:
            continue
        maker.inputs = (*maker.inputs, writer.put(other, constant.values.astype(np.float32)))
        writer.values[node.output[0]] = found
        return True
    return False


def relu(writer: Writer, node: onnx.NodeProto) -> None:
    """Relu."""
    _clamp(writer, node, 0.0, np.inf)


def clip(writer: Writer, node: onnx.NodeProto) -> None:
    """Clip, whose limits are constant."""
    limits = []
    for number, (name, open_end) in enumerate((("minimum", -np.inf), ("maximum", np.inf)), start=1):
        given = number < len(node.input) and node.input[number]
        limits.append(float(writer.fixed(node, number, name).reshape(())) if given else open_end)
    _clamp(writer, node, *limits)


def _clamp(writer: Writer, node: onnx.NodeProto, low: float, high: float) -> None:
    source = writer.read(node)
    fused = _FUSED.get((low, high))
    if fused is not None and (maker := _taker(writer, node, source)) is not None:
        maker.options["fusedActivationFunction"] = fused
        writer.rename(source, node.output[0])
        writer.values[node.output[0]] = source
        return
    kind = _CLAMPS.get((low, high))
    grid = writer.grid_after(node.output[0])
    if kind is not None:
        integers = source.grid is not None and grid is not None and kind in ("RELU", "RELU6")
        source = source if integers else writer.real(source)
        unary(writer, node, kind, source, grid=grid if integers else None)
        return
    result = writer.real(source)
    for kind, limit in (("MAXIMUM", low), ("MINIMUM", high)):
        if np.isfinite(limit):
            value = writer.put(f"{label(node)}.limit", np.array([limit], np.float32))
            result = writer.step(
                kind,
                [result.tensor, value],
                node.output[0],
                result.shape,
                result.order,
                "MaximumMinimumOptions",
            )
    writer.values[node.output[0]] = result


def _taker(writer: Writer, node: onnx.NodeProto, source: Operand) -> Operator | None:
    """The operator before an activation, where it can take that along."""
    maker = writer.maker(source)
    if maker is None or maker.kind not in _TAKES_ALONG or source.grid is not None:
        return None
    if writer.graph.only_consumer(node.input[0]) is not node or "fusedActivationFunction" in maker.options:
        return None
    return maker


def unary(
    writer: Writer,
    node: onnx.NodeProto,
    kind: str,
    source: Operand,
    table: str = "",
    *,
    grid: Grid | None = None,
    **options: Any,
) -> Operand:
    """Add an operator of one input; its result is the node's."""
    result = writer.step(
        kind,
        [source.tensor],
        node.output[0],
        source.shape,
        source.order,
        table,
        grid=grid,
        version=1 if grid is None else 2,
        **options,
    )
    writer.values[node.output[0]] = result
    return result


def function(kind: str, table: str = "") -> Callable[[Writer, onnx.NodeProto], None]:
    """The writer of a function of one input that is computed in float32."""

    def write(writer: Writer, node: onnx.NodeProto) -> None:
        unary(writer, node, kind, writer.real(writer.read(node)), table)

    return write


def sigmoid(writer: Writer, node: onnx.NodeProto) -> None:
    """Sigmoid, on integers where it stands between integers."""
    source = writer.read(node)
    if source.grid is not None and writer.grid_after(node.output[0]) is not None:
        unary(writer, node, "LOGISTIC", source, grid=_SIGMOID_GRID)
    else:
        unary(writer, node, "LOGISTIC", writer.real(source))


def hard_sigmoid(writer: Writer, node: onnx.NodeProto) -> None:
    """HardSigmoid, clip(alpha x + beta, 0, 1).

    On integers it is a depthwise convolution with one weight a channel, whose result saturates at 0 and 1. In float32
    with PyTorch's alpha of 1/6 it is relu6(x + 3) / 6.
    """
    options = {"alpha": 0.2, "beta": 0.5} | attributes(node)
    alpha, beta = float(options["alpha"]), float(options["beta"])
    source, grid = writer.read(node), writer.grid_after(node.output[0])
    if source.grid is not None and grid is not None and _saturates(grid) and len(source.shape) == 4:
        source = writer.ordered(source, CHANNELS_LAST)
        writer.values[node.output[0]] = _scaled_gate(writer, node, source, grid, alpha, beta)
        return
    source = writer.real(source)
    own = label(node)
    sixth = np.isclose(alpha, 1 / 6, rtol=1e-6)
    shift = writer.put(f"{own}.beta", np.array([beta / alpha], np.float32))
    scale = writer.put(f"{own}.alpha", np.array([alpha], np.float32))
    form = (node.output[0], source.shape, source.order)
    shifted = writer.step(
        "ADD", [source.tensor, shift], *form, "AddOptions", fusedActivationFunction=RELU6 if sixth else 0
    )
    result = writer.step("MUL", [shifted.tensor, scale], *form, "MulOptions")
    if not sixth:
        result = writer.step("RELU_0_TO_1", [result.tensor], *form)
    writer.values[node.output[0]] = result


def _saturates(grid: Grid) -> bool:
    """Whether the grid ends at 0 and not above 1."""
    return grid.low == 0.0 and 255 * float(grid.scale[0]) <= 1.0 + 1e-6


def _scaled_gate(
    writer: Writer, node: onnx.NodeProto, source: Operand, grid: Grid, alpha: float, beta: float
) -> Operand:
    assert source.grid is not None
    own, channels = label(node), source.shape[1]
    weight = Grid(scale=np.full(channels, alpha / 127, np.float32), zero_point=0, axis=3)
    products = source.grid.scale * weight.scale
    bias = np.rint(np.full(channels, beta) / products).astype(np.int32)
    inputs = [
        source.tensor,
        writer.put(f"{own}.alpha", np.full((1, 1, 1, channels), 127, np.int8), weight),
        writer.put(f"{own}.beta", bias, Grid(scale=products.astype(np.float32), zero_point=0)),
    ]
    return writer.step(
        "DEPTHWISE_CONV_2D",
        inputs,
        node.output[0],
        source.shape,
        CHANNELS_LAST,
        "DepthwiseConv2DOptions",
        grid=grid,
        version=3,
        padding=1,
        strideH=1,
        strideW=1,
        depthMultiplier=1,
    )


def hard_swish(writer: Writer, node: onnx.NodeProto) -> None:
    """HardSwish, on integers where it stands between integers.

    Of images it is then x times its hard sigmoid, which costs half a step and stays with the fast kernels: XNNPACK has
    none for HARD_SWISH on integers, and each way out of it and back is dear.
    """
    source, grid = writer.read(node), writer.grid_after(node.output[0])
    if source.grid is not None and grid is not None and len(source.shape) == 4:
        source = writer.ordered(source, CHANNELS_LAST)
        gate = _scaled_gate(writer, node, source, _GATE_GRID, 1 / 6, 0.5)
        inputs, form = [source.tensor, gate.tensor], (node.output[0], source.shape, CHANNELS_LAST)
        writer.values[node.output[0]] = writer.step("MUL", inputs, *form, "MulOptions", grid=grid, version=2)
        return
    if source.grid is None or grid is None:
        source, grid = writer.real(source), None
    result = writer.step(
        "HARD_SWISH",
        [source.tensor],
        node.output[0],
        source.shape,
        source.order,
        "HardSwishOptions",
        grid=grid,
    )
    writer.values[node.output[0]] = result


def gelu(writer: Writer, node: onnx.NodeProto) -> None:
    """Gelu, exact or by the hyperbolic tangent."""
    approximate = attributes(node).get("approximate", b"none") == b"tanh"
    source = writer.real(writer.read(node))
    unary(writer, node, "GELU", source, "GeluOptions", approximate=approximate)


def leaky_relu(writer: Writer, node: onnx.NodeProto) -> None:
    """LeakyRelu."""
    alpha = float(attributes(node).get("alpha", 0.01))
    unary(writer, node, "LEAKY_RELU", writer.real(writer.read(node)), "LeakyReluOptions", alpha=alpha)


def power(writer: Writer, node: onnx.NodeProto) -> None:
    """Pow; squares and roots have operators of their own."""
    constant = writer.constant(node, 1)
    exponent = float(constant.values.reshape(())) if constant and constant.values.size == 1 else None
    if exponent == 2.0:
        unary(writer, node, "SQUARE", writer.real(writer.read(node)), "SquareOptions")
    elif exponent == 0.5:
        unary(writer, node, "SQRT", writer.real(writer.read(node)))
    else:
        binary("POW")(writer, node)


def batch_norm(writer: Writer, node: onnx.NodeProto) -> None:
    """BatchNormalization that no convolution took: a product and a sum a channel."""
    source = writer.real(writer.read(node))
    scale, shift, mean, variance = (
        writer.fixed(node, number, "statistics").astype(np.float64) for number in range(1, 5)
    )
    factor = scale / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    own, rank = label(node), len(source.shape)

    def channels(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
        shape = (1, -1, *(1,) * (rank - 2))
        return values.astype(np.float32).reshape(shape).transpose(source.order)

    form = (node.output[0], source.shape, source.order)
    scaled = writer.step(
        "MUL", [source.tensor, writer.put(f"{own}.scale", channels(factor))], *form, "MulOptions"
    )
    writer.values[node.output[0]] = writer.step(
        "ADD",
        [scaled.tensor, writer.put(f"{own}.shift", channels(shift - mean * factor))],
        *form,
        "AddOptions",
    )


def cast(writer: Writer, node: onnx.NodeProto) -> None:
    """Cast: of constants in half precision a matter of storage, of pictures of bytes an operator."""
    value = writer.values[node.input[0]]
    wanted = attributes(node)["to"]
    if isinstance(value, Constant):
        writer.values[node.output[0]] = _cast_constant(value)
        return
    have = writer.network.tensors[value.tensor].dtype
    if wanted != onnx.TensorProto.FLOAT or have not in ("uint8", "float32", "int8"):
        raise refusal(
            node.op_type, label(node), f"it makes type {wanted} of {have}, and only floats are made."
        )
    if have == "uint8":
        unary(writer, node, "CAST", value, "CastOptions", inDataType=_UINT8, outDataType=_FLOAT32)
    else:
        writer.values[node.output[0]] = value


def _cast_constant(constant: Constant) -> Constant:
    values = constant.values
    real = values.astype(np.float32)
    if values.dtype != np.int8:
        return Constant(values=real, half=values.dtype == np.float16)
    one = np.ones((), np.float32)
    return Constant(values=real, integers=Integers(values=values, scale=one, zero_point=0, axis=0))


def _scaled_constant(sides: list[Operand | Constant]) -> Constant | None:
    """Weights that are stored as integers times a scale a channel, where a product is that."""
    for stored, scale in (sides, reversed(sides)):
        if not (isinstance(stored, Constant) and isinstance(scale, Constant)) or stored.integers is None:
            continue
        long = [axis for axis, length in enumerate(scale.values.shape) if length > 1]
        if scale.values.ndim != stored.values.ndim or len(long) > 1:
            return None
        factors = scale.values.astype(np.float32)
        axis = long[0] if long else 0
        integers = dataclasses.replace(stored.integers, scale=factors.reshape(-1), axis=axis)
        return Constant(values=stored.values * factors, integers=integers)
    return None
