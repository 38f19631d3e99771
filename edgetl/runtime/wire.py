"""ONNX files on a device, without the `onnx` package: what a graph holds, one more output for it, and a longer end.

A file is a Protocol Buffers message (https://protobuf.dev/programming-guides/encoding/), whose fields are numbered in
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Two of its properties are all that is needed here. A message can
be walked field by field without its schema. And messages that are written one after the other are merged when they are
read: so a graph gets an output from a few bytes behind the file, and a bundle needs no second copy of its model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ModelError

_GRAPH, _PROPERTY = 7, 14  # of a model
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # of a graph
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FLOAT, _INT, _INT8, _INT64 = 1, 2, 3, 7  # types of a tensor's elements and of an attribute's value
_BFLOAT16 = 16
_DTYPES: Mapping[int, tuple[str, int]] = {
    _FLOAT: ("<f4", 4),
    2: ("u1", 5),
    3: ("i1", 5),
    6: ("<i4", 5),
    7: ("<i8", 7),
    10: ("<f2", 5),
    11: ("<f8", 10),
    _BFLOAT16: ("<u2", 5),
}
"""A type of elements: as numpy reads raw bytes, and the field that holds them where there are no raw bytes."""

Value: TypeAlias = "int | memoryview"


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operator with its tensors' names; `attributes` has integers, lists of integers and tensors' messages."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What a file computes.

    Attributes:
        makers: a tensor's name to the node that makes it.
        outputs: names of the graph's outputs, in order.
    """

    makers: Mapping[str, Node]
    outputs: tuple[str, ...]
    constants: Mapping[str, memoryview]

    def constant(self, name: str) -> NDArray[Any] | None:
        """A constant tensor's values, float32 where the file holds bfloat16; None where it is not constant.

        Raises:
            ModelError: its numbers are of a type that is not known here, or stand in another file.
        """
        if name in self.constants:
            return _tensor(self.constants[name], name)
        maker = self.makers.get(name)
        if maker is not None and maker.kind == "Constant" and "value" in maker.attributes:
            return _tensor(maker.attributes["value"], name)
        return None


def read_graph(model: bytes) -> Graph:
    """A file's graph; the tensors stay where they are.

    Raises:
        ModelError: it is no ONNX file.
    """
    makers: dict[str, Node] = {}
    constants: dict[str, memoryview] = {}
    outputs: list[str] = []
    try:
        for part in parts(memoryview(model), _GRAPH):
            for number, value in fields(part):
                if number == _NODE:
                    node = _node(_bytes(value))
                    makers.update(dict.fromkeys(node.outputs, node))
                elif number == _INITIALIZER:
                    constants[_name(_bytes(value), 8)] = _bytes(value)
                elif number == _OUTPUT:
                    outputs.append(_name(_bytes(value), 1))
    except (ValueError, IndexError) as error:
        raise ModelError(f"The model is no ONNX file that can be read: {error}.") from error
    return Graph(makers=makers, outputs=tuple(outputs), constants=constants)


def with_outputs(model: bytes, shown: Mapping[str, str], *, axes: int = 4) -> bytes:
    """The file with further outputs, behind its own: float32 copies of tensors inside it.

    Args:
        model: an ONNX file's bytes.
        shown: the new outputs' names, and the tensor that each shows. A Cast makes them float32 where the graph
            computes in half precision; where it does not, it copies them.
        axes: of each of these tensors; their lengths are left to the engine.
    """
    graph, shape = b"", _field(2, _field(1, b"") * axes)
    for name, tensor in shown.items():
        to = _field(1, b"to") + _number(3, _FLOAT) + _number(20, _INT)
        node = _field(1, tensor.encode()) + _field(2, name.encode()) + _field(4, b"Cast") + _field(5, to)
        value = _field(1, name.encode()) + _field(2, _field(1, _number(1, _FLOAT) + shape))
        graph += _field(_NODE, node) + _field(_OUTPUT, value)
    return model + _field(_GRAPH, graph)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A node to be written; `attributes` are integers."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, int] = field(default_factory=dict)


def lengthened(
    model: bytes,
    output: str,
    inner: str,
    operators: Sequence[Operator],
    constants: Mapping[str, NDArray[Any]],
    width: int,
) -> bytes:
    """The file with further operators between the node that made an output and that output.

    Args:
        model: an ONNX file's bytes.
        output: the graph's output (N, C).
        inner: what the tensor of that name is called from then on.
        operators: in order; the last makes `output`.
        constants: their constants by name, float32 or int64.
        width: of `output` afterwards.

    Raises:
        ModelError: the file cannot be read.
    """
    changed = _rewritten(model, {output: inner}, output, width, drop="")
    graph = b"".join(_field(_NODE, _operator(one)) for one in operators)
    graph += b"".join(_field(_INITIALIZER, _constant(name, values)) for name, values in constants.items())
    return changed + _field(_GRAPH, graph)


def shortened(model: bytes, output: str, inner: str, prefix: str, width: int) -> bytes:
    """The file as it was before `lengthened`, whose operators and constants have names that begin with `prefix`.

    Raises:
        ModelError: the file cannot be read.
    """
    return _rewritten(model, {inner: output}, output, width, drop=prefix)


def written(
    operators: Sequence[Operator],
    constants: Mapping[str, NDArray[Any]],
    images: NDArray[Any],
    name: str,
    output: tuple[str, tuple[int, ...]],
) -> bytes:
    """A whole small model: a chain of operators of ONNX's opset 17.

    Args:
        operators: in order.
        constants: their constants by name: float32, int8 or int64.
        images: what goes in has this shape and dtype: float32 or uint8.
        name: of the input.
        output: name and shape of what comes out, float32.
    """
    kind = next(number for number, (dtype, _) in _DTYPES.items() if np.dtype(dtype) == images.dtype)
    graph = b"".join(_field(_NODE, _operator(one)) for one in operators) + _field(2, b"graph")
    graph += b"".join(_field(_INITIALIZER, _constant(key, values)) for key, values in constants.items())
    graph += _field(_INPUT, _value(name, kind, images.shape)) + _field(
        _OUTPUT, _value(output[0], _FLOAT, output[1])
    )
    return _number(1, 8) + _field(8, _field(1, b"") + _number(2, 17)) + _field(_GRAPH, graph)


def _value(name: str, kind: int, shape: Sequence[int]) -> bytes:
    """The message of an input or output."""
    axes = b"".join(_field(1, _number(1, length)) for length in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, kind) + _field(2, axes)))


def with_property(model: bytes, key: str, value: str) -> bytes:
    """The file with another value of one of its properties; as it is where it has none of that name."""
    found = bytearray()
    for number, content, raw in _raw_fields(memoryview(model)):
        own = number == _PROPERTY and _name(_bytes(content), 1) == key
        found += _field(_PROPERTY, _field(1, key.encode()) + _field(2, value.encode())) if own else raw
    return bytes(found)


def _rewritten(model: bytes, names: Mapping[str, str], output: str, width: int, *, drop: str) -> bytes:
    """The file with tensors renamed, and the length of an output's second axis set.

    Nodes and constants whose own name begins with `drop` are left out; so is a graph of nothing else.
    """

    def graph_of(part: memoryview) -> bytes:
        kept = bytearray()
        for number, value, raw in _raw_fields(part):
            if number == _NODE:
                node = _bytes(value)
                if not (drop and _name(node, 3).startswith(drop)):
                    kept += _field(_NODE, _renamed(node, names))
            elif number == _INITIALIZER:
                if not (drop and _name(_bytes(value), 8).startswith(drop)):
                    kept += raw
            elif number == _OUTPUT and _name(_bytes(value), 1) == output:
                kept += _field(_OUTPUT, _widened(_bytes(value), width))
            else:
                kept += raw
        return bytes(kept)

    found = bytearray()
    try:
        for number, value, raw in _raw_fields(memoryview(model)):
            if number != _GRAPH:
                found += raw
            elif graph := graph_of(_bytes(value)):
                found += _field(_GRAPH, graph)
    except (ValueError, IndexError) as error:
        raise ModelError(f"The model is no ONNX file that can be read: {error}.") from error
    return bytes(found)


def _renamed(node: memoryview, names: Mapping[str, str]) -> bytes:
    """A node's message with the tensors that it takes and makes renamed."""
    kept = bytearray()
    for number, value, raw in _raw_fields(node):
        known = number in (1, 2) and not isinstance(value, int) and names.get(_text(value))
        kept += _field(number, known.encode()) if known else raw
    return bytes(kept)


def _widened(output: memoryview, width: int) -> bytes:
    """An output's message with another length of its second axis."""

    def inside(message: memoryview, path: tuple[int, ...]) -> bytes:
        kept, seen = bytearray(), 0
        for number, value, raw in _raw_fields(message):
            if number != path[0]:
                kept += raw
            elif len(path) > 1:
                kept += _field(number, inside(_bytes(value), path[1:]))
            else:
                seen += 1
                kept += _field(number, _number(1, width)) if seen == 2 else raw
        return bytes(kept)

    return inside(output, (2, 1, 2, 1))  # type, of a tensor, its shape, the shape's axes


def _operator(one: Operator) -> bytes:
    content = b"".join(_field(1, name.encode()) for name in one.inputs)
    content += _field(2, one.output.encode()) + _field(3, one.name.encode())
    content += _field(4, one.kind.encode())
    for name, value in one.attributes.items():
        content += _field(5, _field(1, name.encode()) + _number(3, value) + _number(20, _INT))
    return content


def _constant(name: str, values: NDArray[Any]) -> bytes:
    kind, dtype = {"int64": (_INT64, "<i8"), "int8": (_INT8, "i1")}.get(values.dtype.name, (_FLOAT, "<f4"))
    dims = b"".join(_number(1, length) for length in values.shape)
    raw = np.ascontiguousarray(values, dtype=dtype).tobytes()
    return dims + _number(2, kind) + _field(8, name.encode()) + _field(9, raw)


# --- reading --------------------------------------------------------------------------------------------------


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """A message's fields: number, and an integer or the bytes."""
    return ((number, value) for number, value, _ in _raw_fields(message))


def _raw_fields(message: memoryview) -> Iterator[tuple[int, Value, memoryview]]:
    """As `fields`, with the bytes of each whole field."""
    at, end = 0, len(message)
    while at < end:
        start = at
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value, message[start:at]
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field is of the unknown wire type {kind}")
        if at + length > end:
            raise ValueError("it ends inside a field")
        yield key >> 3, message[at : at + length], message[start : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, least first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a field holds a number where bytes are expected")
    return value


def parts(message: memoryview, number: int) -> list[memoryview]:
    """The bytes of each field of this number."""
    return [_bytes(value) for found, value in fields(message) if found == number]


def _name(message: memoryview, number: int) -> str:
    return next((_text(value) for value in parts(message, number)), "")


def _text(value: memoryview) -> str:
    return bytes(value).decode()


def _node(message: memoryview) -> Node:
    inputs, outputs, attributes, kind = list[str](), list[str](), dict[str, Any](), ""
    for number, value in fields(message):
        if number == 1:
            inputs.append(_text(_bytes(value)))
        elif number == 2:
            outputs.append(_text(_bytes(value)))
        elif number == 4:
            kind = _text(_bytes(value))
        elif number == 5:
            attributes.update(_attribute(_bytes(value)))
    return Node(kind=kind, inputs=tuple(inputs), outputs=tuple(outputs), attributes=attributes)


def _attribute(message: memoryview) -> dict[str, Any]:
    name, found = "", cast("float | Value | None", None)
    integers: list[int] = []
    for number, value in fields(message):
        if number == 1:
            name = _text(_bytes(value))
        elif number == 2:
            found = float(np.frombuffer(_bytes(value), "<f4")[0])
        elif number == 3 and isinstance(value, int):
            found = _signed(value)
        elif number == 5:
            found = value
        elif number == 8:
            integers += _integers(value)
    return {name: integers or found}


def _integers(value: Value) -> list[int]:
    """A repeated integer's field: one number, or many packed ones."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        one, at = _varint(value, at)
        found.append(_signed(one))
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _tensor(message: memoryview, name: str) -> NDArray[Any]:
    dims, kind, raw = list[int](), 0, None
    typed: dict[int, list[Value]] = {}
    for number, value in fields(message):
        if number == 1:
            dims += _integers(value)
        elif number == 2:
            kind = value if isinstance(value, int) else 0
        elif number == 9:
            raw = _bytes(value)
        elif number in (4, 5, 7, 10):
            typed.setdefault(number, []).append(value)
        elif number == 14 and value:
            raise ModelError(f"The tensor {name} stands in another file.")
    if kind not in _DTYPES:
        raise ModelError(f"The tensor {name} holds numbers of ONNX's type {kind}, which are not read here.")
    dtype, place = _DTYPES[kind]
    if raw is not None:
        values = np.frombuffer(raw, dtype)
    elif place in (4, 10):
        values = np.frombuffer(b"".join(bytes(_bytes(part)) for part in typed.get(place, [])), dtype)
    else:
        whole = [number for part in typed.get(place, []) for number in _integers(part)]
        values = np.array(whole, np.int64).astype(dtype if kind not in (10, _BFLOAT16) else "<u2")
        values = values.view(dtype)
    if kind == _BFLOAT16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(dims)


# --- writing --------------------------------------------------------------------------------------------------


def _field(number: int, content: bytes) -> bytes:
    return _coded(number << 3 | _BYTES) + _coded(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _coded(number << 3 | _VARINT) + _coded(value)


def _coded(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
