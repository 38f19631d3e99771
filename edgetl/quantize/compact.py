"""Fewer bytes for a quantized file: short names for what nobody looks up, one tensor for equal constants.

Of a small network in INT8 a seventh of the file is names: each weight and each activation brings integers, scale, zero
point and what is dequantized from them, all named after their layer. Layers and activations keep their names, by which
reports, profiles and comparisons with the float model know them.
"""

from __future__ import annotations

from itertools import count

import onnx

from edgetl.export.graphs import copy_of, float_results

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes the same from fewer bytes.

    Constants, what is made only of constants, and integers get short names; equal constants become one. Nodes that
    work only on constants lose their names, and so do those that quantize and dequantize. A graph with graphs inside,
    which may read its tensors, stays as it is.
    """
    copy = copy_of(model)
    graph = copy.graph
    if any(part.type in _GRAPHS for node in graph.node for part in node.attribute):
        return copy
    moved = _merge(graph)
    varying = {value.name for value in graph.input}
    for node in graph.node:
        constant = varying.isdisjoint(node.input)
        if constant or node.op_type in _PAIR:
            node.name = ""
        if not constant:
            varying.update(node.output)
    kept = {value.name for value in (*graph.input, *graph.output)} | (varying & set(float_results(model)))
    free = (name for name in map("{:x}".format, count()) if name not in kept)
    tensors = [tensor.name for tensor in graph.initializer]
    tensors += [name for node in graph.node for name in node.output if name]
    short = {name: next(free) for name in tensors if name not in kept}
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    for node in graph.node:
        inputs = [moved.get(name, name) for name in node.input]
        outputs = list(node.output)
        del node.input[:], node.output[:]
        node.input.extend(short.get(name, name) for name in inputs)
        node.output.extend(short.get(name, name) for name in outputs)
    del graph.value_info[:]
    return copy


def _merge(graph: onnx.GraphProto) -> dict[str, str]:
    """Leave one of equal constants; the names of the others, and what they are now."""
    first: dict[bytes, str] = {}
    kept, moved = [], dict[str, str]()
    results = {value.name for value in graph.output}
    for tensor in graph.initializer:
        content = onnx.TensorProto()
        content.CopyFrom(tensor)
        content.ClearField("name")
        name = first.setdefault(content.SerializeToString(deterministic=True), tensor.name)
        if name == tensor.name or tensor.name in results:
            kept.append(tensor)
        else:
            moved[tensor.name] = name
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return moved
