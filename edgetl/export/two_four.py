"""Whether an ONNX graph's weights have 2:4 sparsity, as TensorRT looks for it: along the input channels."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.export.graphs import COMPUTE

_OF, _KEPT = 4, 2


def two_four_layers(model: onnx.ModelProto) -> int:
    """How many convolutions and matrix products have two zeros among every four weights along the input channels.

    Weights are read through Cast and DequantizeLinear, so files in half precision and INT8 can be asked too. An INT8
    weight counts as zero where it is its zero point.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    found = 0
    for node in model.graph.node:
        if node.op_type in COMPUTE and _attribute(node, "group", 1) == 1:
            zeros = _zeros(node.input[1], constants, makers)
            if zeros is not None and _has_pattern(_inputs_second(zeros, node)):
                found += 1
    return found


def _zeros(
    name: str, constants: dict[str, onnx.TensorProto], makers: dict[str, onnx.NodeProto]
) -> NDArray[np.bool_] | None:
    """Where a weight is zero; None where it is no constant."""
    if name in constants:
        return np.asarray(numpy_helper.to_array(constants[name]) == 0)
    node = makers.get(name)
    if node is None or node.op_type not in ("Cast", "DequantizeLinear"):
        return None
    if node.op_type == "Cast" or node.input[0] not in constants:
        return _zeros(node.input[0], constants, makers)
    values = numpy_helper.to_array(constants[node.input[0]])
    if len(node.input) < 3 or not node.input[2] or node.input[2] not in constants:
        return np.asarray(values == 0)
    point = numpy_helper.to_array(constants[node.input[2]])
    if point.size > 1:
        shape = [1] * values.ndim
        shape[int(_attribute(node, "axis", 1))] = -1
        point = point.reshape(shape)
    return np.asarray(values == point)


def _inputs_second(zeros: NDArray[np.bool_], node: onnx.NodeProto) -> NDArray[np.bool_]:
    """Weights as (outputs, inputs, ...)."""
    transposed = node.op_type == "Gemm" and _attribute(node, "transB", 0) == 1
    if node.op_type == "Conv" or transposed or zeros.ndim < 2:
        return zeros
    return np.moveaxis(zeros, -1, -2) if node.op_type in ("MatMul", "Gemm") else np.moveaxis(zeros, 0, 1)


def _has_pattern(zeros: NDArray[np.bool_]) -> bool:
    if zeros.ndim < 2 or zeros.shape[1] % _OF:
        return False
    quads = zeros.reshape(zeros.shape[0], -1, _OF, *zeros.shape[2:])
    return bool((quads.sum(axis=2) >= _OF - _KEPT).all())


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
