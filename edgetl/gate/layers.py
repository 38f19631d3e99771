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
        graphs = list(_graphs(next(_parts(model, 7))))
        nodes = [_node(content) for graph in graphs for content in _parts(graph, 1)]
        weights = dict(_weight(content) for graph in graphs for content in _parts(graph, 5))
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


def _graphs(graph: bytes) -> Iterator[bytes]:
    """A graph, and those of its branches: a cascade's larger model stands in one."""
    yield graph
    for node in _parts(graph, 1):
        for attribute in _parts(node, 5):
            for branch in _parts(attribute, 6):
                yield from _graphs(branch)


def _node(content: bytes) -> _Node:
    def texts(field: int) -> tuple[str, ...]:
        return tuple(part.decode() for part in _parts(content, field))

    return _Node(name="".join(texts(3)), operator="".join(texts(4)), inputs=texts(1), outputs=texts(2))


def _weight(content: bytes) -> tuple[str, int]:
    kind = next((value for field, value in _fields(content) if field == 2 and isinstance(value, int)), 0)
    return next(_parts(content, 8), b"").decode(), kind


def _parts(content: bytes, wanted: int) -> Iterator[bytes]:
    return (value for field, value in _fields(content) if field == wanted and isinstance(value, bytes))


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a message in order: numbers, and bytes of texts and messages inside. Groups do not occur."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        match key & 7:
            case 0:
                number, at = _varint(content, at)
                yield key >> 3, number
            case 1 | 5 as kind:
                at += 8 if kind == 1 else 4
            case 2:
                length, at = _varint(content, at)
                if at + length > len(content):
                    raise ValueError("a field is longer than what is left")
                yield key >> 3, content[at : at + length]
                at += length
            case _:
                raise ValueError("an unknown kind of field")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
