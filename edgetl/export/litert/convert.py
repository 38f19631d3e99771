"""An exported ONNX model, float or quantized, as a .tflite file.

No TensorFlow, and no second calibration: integers stand on the scales that the quantizer wrote into the ONNX model.
What ONNX computes between a DequantizeLinear and a QuantizeLinear becomes one operator on integers; what it computes in
float stays in float. The file takes one image at a time, channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from edgetl.export.litert import moves, pointwise, products, reductions, windows
from edgetl.export.litert.flat import to_bytes
from edgetl.export.litert.graph import FixedGraph, label
from edgetl.export.litert.parts import Grid, Network, refusal
from edgetl.export.litert.values import Constant, Integers, Operand
from edgetl.export.litert.writer import Writer

Write = Callable[[Writer, onnx.NodeProto], None]


def to_tflite(model: onnx.ModelProto) -> bytes:
    """The bytes of a .tflite file that computes what the model does; equal models give equal bytes.

    Its input `images` is (1, S, S, 3) float32 where the model's is (N, 3, S, S), normalised as the model wants it, or
    (1, S, S, 3) uint8 where the model normalises itself. Its outputs are the model's for one image, float32, under
    their names in the signature `serving_default`. The model's metadata, labels and preprocessing as JSON among it, are
    entries of the file's metadata under their names.

    Raises:
        ModelError: an operator has no counterpart (it and its node are named), or a length other than the batch is
            open.
        MissingDependencyError: `ai-edge-litert` is not installed.
    """
    return to_bytes(to_network(model))


def to_network(model: onnx.ModelProto) -> Network:
    """What `to_tflite` writes. Raises as it does."""
    graph = FixedGraph(model)
    writer = Writer(graph)
    for node in graph.nodes:
        write = _WRITERS.get(node.op_type)
        if write is None or node.domain not in ("", "ai.onnx"):
            raise refusal(node.op_type, label(node), "LiteRT has no operator for it.")
        write(writer, node)
    writer.network.metadata.update(sorted((entry.key, entry.value) for entry in model.metadata_props))
    return writer.finish()


def _quantize(writer: Writer, node: onnx.NodeProto) -> None:
    value = writer.values[node.input[0]]
    if isinstance(value, Operand):
        writer.values[node.output[0]] = writer.regridded(value, writer.grid_of(node))
        return
    zero, scale = writer.fixed(node, 2, "zero point"), writer.fixed(node, 1, "scale")
    info = np.iinfo(zero.dtype)
    integers = np.clip(np.rint(value.values / scale) + zero, info.min, info.max)
    writer.values[node.output[0]] = Constant(values=integers.astype(zero.dtype))


def _dequantize(writer: Writer, node: onnx.NodeProto) -> None:
    value = writer.values[node.input[0]]
    if isinstance(value, Constant):
        writer.values[node.output[0]] = _stored(writer, node, value)
        return
    grid = writer.grid_of(node)
    if value.grid is None:
        raise refusal(node.op_type, label(node), "its input is not quantized.")
    if not value.grid.same(grid):
        value = _rescaled(writer, node, value, grid)
    writer.rename(value, node.output[0])
    writer.values[node.output[0]] = value


def _stored(writer: Writer, node: onnx.NodeProto, value: Constant) -> Constant:
    integers = value.values
    scale = writer.fixed(node, 1, "scale")
    zero = writer.fixed(node, 2, "zero point") if len(node.input) > 2 else np.zeros((), integers.dtype)
    axis = onnx.helper.get_node_attr_value(node, "axis") if node.attribute else 1
    if integers.dtype.kind not in "iu" or np.unique(zero).size > 1:
        raise refusal(node.op_type, label(node), "a constant's zero points differ.")
    start = int(zero.reshape(-1)[0]) if zero.size else 0
    along = scale.reshape([-1 if at == axis else 1 for at in range(integers.ndim)]) if scale.ndim else scale
    real = ((integers.astype(np.float32) - np.float32(start)) * along).astype(np.float32)
    return Constant(values=real, integers=Integers(values=integers, scale=scale, zero_point=start, axis=axis))


def _rescaled(writer: Writer, node: onnx.NodeProto, value: Operand, grid: Grid) -> Operand:
    """The same integers on another scale: a product with the scales' quotient, the only step there is for it."""
    assert value.grid is not None
    if value.grid.zero_point != grid.zero_point:
        raise refusal(node.op_type, label(node), "its zero point is not that of its integers.")
    quotient = Grid(scale=grid.scale / value.grid.scale / np.float32(127), zero_point=0)
    factor = writer.put(f"{label(node)}.quotient", np.array([127], np.int8), quotient)
    return writer.step(
        "MUL",
        [value.tensor, factor],
        node.output[0],
        value.shape,
        value.order,
        "MulOptions",
        grid=grid,
        version=2,
    )


_WRITERS: Mapping[str, Write] = {
    "Abs": pointwise.function("ABS", "AbsOptions"),
    "Add": pointwise.binary("ADD"),
    "AveragePool": windows.average_pooling,
    "BatchNormalization": pointwise.batch_norm,
    "Cast": pointwise.cast,
    "Clip": pointwise.clip,
    "Concat": moves.concat,
    "Conv": windows.convolution,
    "DequantizeLinear": _dequantize,
    "Div": pointwise.binary("DIV"),
    "Dropout": moves.identity,
    "Elu": pointwise.function("ELU"),
    "Exp": pointwise.function("EXP", "ExpOptions"),
    "Expand": moves.expand,
    "Flatten": moves.reshape,
    "Gather": moves.gather,
    "Gelu": pointwise.gelu,
    "Gemm": products.gemm,
    "GlobalAveragePool": reductions.global_average_pooling,
    "HardSigmoid": pointwise.hard_sigmoid,
    "HardSwish": pointwise.hard_swish,
    "Identity": moves.identity,
    "LayerNormalization": reductions.layer_norm,
    "LeakyRelu": pointwise.leaky_relu,
    "MatMul": products.matmul,
    "Max": pointwise.binary("MAXIMUM"),
    "MaxPool": windows.max_pooling,
    "Min": pointwise.binary("MINIMUM"),
    "Mul": pointwise.binary("MUL"),
    "Neg": pointwise.function("NEG", "NegOptions"),
    "Pad": moves.pad,
    "Pow": pointwise.power,
    "QuantizeLinear": _quantize,
    "ReduceL2": reductions.norm,
    "ReduceMax": reductions.reduction("REDUCE_MAX"),
    "ReduceMean": reductions.reduction("MEAN"),
    "ReduceMin": reductions.reduction("REDUCE_MIN"),
    "ReduceSum": reductions.reduction("SUM"),
    "Relu": pointwise.relu,
    "Reshape": moves.reshape,
    "Resize": moves.resize,
    "Sigmoid": pointwise.sigmoid,
    "Slice": moves.cut,
    "Softmax": reductions.softmax,
    "Split": moves.split,
    "Sqrt": pointwise.function("SQRT"),
    "Squeeze": moves.reshape,
    "Sub": pointwise.binary("SUB"),
    "Tanh": pointwise.function("TANH"),
    "Transpose": moves.transpose,
    "Unsqueeze": moves.reshape,
}
