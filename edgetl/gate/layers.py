"""What a model's layers compute in, read from its ONNX file without the ONNX library, which devices do not have.

Only what is needed is read of the protocol buffer: the graph's nodes with their names, and its weights' types. Field
numbers are those of onnx.proto: ModelProto.graph 7; GraphProto.node 1, initializer 5; NodeProto.input 1, output 2,
name 3, op_type 4, attribute 5; AttributeProto.g 6; TensorProto.data_type 2, name 8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from edgetl.errors import ModelError
from edgetl.runtime.wire import fields, parts

# Bits of TensorProto.DataType: FLOAT 1, UINT8 2, INT8 3, FLOAT16 10, BFLOAT16 16, FLOAT8* 17 to 20, UINT4/INT4 21/22.
_BITS = {1: 32, 2: 8, 3: 8, 10: 16, 11: 64, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4}
_LAYERS = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
_INTEGER_LAYERS = {"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger"}
_PREPARING = "preprocess/"
"""With this begin the names of nodes that prepare pictures, which are no layers."""
_PASSING = {"Transpose", "Reshape", "Identity", "Flatten", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True, kw_only=True)
class _Node:
    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def layer_bits(model: bytes) -> dict[str, int]:
    """Count the convolutions and matrix products of an ONNX model by the bits that they compute in.

    A layer is of 8 bits where an integer operator does it, or where both its operands come from `DequantizeLinear`, as
    engines fuse those; else of its weight's type. What an engine makes of it is not looked at.

    Returns:
        Bits as text to a number of layers, e.g. `{"8": 48, "32": 1}`.

    Raises:
        ModelError: it is not an ONNX model.
    """
    try:
        graphs = list(_graphs(next(iter(parts(memoryview(model), 7)))))
        nodes = [_node(content) for graph in graphs for content in parts(graph, 1)]
        weights = dict(_weight(content) for graph in graphs for content in parts(graph, 5))
    except (StopIteration, IndexError, ValueError) as error:
        raise ModelError("The model is not an ONNX file: its layers cannot be read.") from error
    made = {name: node for node in nodes for name in node.outputs}

    def bits(name: str) -> tuple[int, bool]:
        """Bits of an operand, 32 where unknown, and whether it was quantized."""
        node = made.get(name)
        if node is None:
            return _BITS.get(weights.get(name, 1), 32), False
        if node.operator == "DequantizeLinear":
            return _BITS.get(weights.get(node.inputs[0], 3), 8), True
        return bits(node.inputs[0]) if node.operator in _PASSING and node.inputs else (32, False)

    counted: Counter[str] = Counter()
    for node in nodes:
        if node.name.startswith(_PREPARING):
            continue
        if node.operator in _INTEGER_LAYERS:
            counted["8"] += 1
        elif node.operator in _LAYERS:
            (first, first_quantized), (second, second_quantized) = (bits(name) for name in node.inputs[:2])
            whole = first_quantized and second_quantized
            # A float layer's input is of its weight's type; its own is not written in the graph.
            width = max(first, second) if whole else 32 if second_quantized else second
            counted[str(width)] += 1
    return dict(sorted(counted.items(), key=lambda item: int(item[0])))


def _graphs(graph: memoryview) -> Iterator[memoryview]:
    """A graph, and those of its branches: a cascade's larger model stands in one."""
    yield graph
    for node in parts(graph, 1):
        for attribute in parts(node, 5):
            for branch in parts(attribute, 6):
                yield from _graphs(branch)


def _node(content: memoryview) -> _Node:
    def texts(field: int) -> tuple[str, ...]:
        return tuple(bytes(part).decode() for part in parts(content, field))

    return _Node(name="".join(texts(3)), operator="".join(texts(4)), inputs=texts(1), outputs=texts(2))


def _weight(content: memoryview) -> tuple[str, int]:
    kind = next((value for field, value in fields(content) if field == 2 and isinstance(value, int)), 0)
    return bytes(next(iter(parts(content, 8)), b"")).decode(), kind
