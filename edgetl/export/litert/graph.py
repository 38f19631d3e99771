"""An ONNX graph for a file of fixed sizes: one image at a time, every shape known, what is constant worked out."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgetl.errors import ModelError
from edgetl.export.graphs import copy_of, drop_unread, set_nodes
from edgetl.export.litert.patterns import with_gelu

_PAIR = ("DequantizeLinear", "QuantizeLinear")
"""On constants these say how weights are stored, so they stay."""
_ROUNDS = 8
"""Working out constants makes more shapes known, and these more constants."""


class FixedGraph:
    """A graph whose batch is 1.

    Attributes:
        model: the graph itself.
        nodes: in topological order.
        constants: values by name.
        shapes: of every tensor.
        consumers: tensor -> the nodes that read it, a node as often as it does.
        inputs, outputs: names of the graph's own tensors.

    Raises:
        ModelError: a length other than the batch is open, in the input or further on.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = with_gelu(_folded(_with_one_image(model)))
        graph = self.model.graph
        self.constants: dict[str, NDArray[Any]] = {
            t.name: numpy_helper.to_array(t) for t in graph.initializer
        }
        self.nodes = list(graph.node)
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]
        self.outputs = [value.name for value in graph.output]
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.consumers[name].append(node)
        self.shapes = _shapes(self.model) | {n: tuple(v.shape) for n, v in self.constants.items()}
        for node in self.nodes:
            for name in node.output:
                if name and name not in self.shapes:
                    raise ModelError(
                        f"The shape of {name} (node {label(node)}, {node.op_type}) is not known before the model runs,"
                        " and a .tflite file has fixed sizes. Run this model in ONNX Runtime."
                    )

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads the tensor; None where there are none, several, or it leaves the graph."""
        readers = self.consumers[name]
        return readers[0] if len(readers) == 1 and name not in self.outputs else None


def label(node: onnx.NodeProto) -> str:
    """How messages call a node: its name, or its first output where it has none."""
    return str(node.name or node.output[0])


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _with_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = copy_of(model)
    constant = {tensor.name for tensor in copy.graph.initializer}
    for value in copy.graph.input:
        if value.name in constant:
            continue
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_value = 1
        if free := [dim.dim_param or "a side" for dim in dims if not dim.dim_value]:
            raise ModelError(
                f"The model's {value.name} has an open {' and '.join(free)}, and a .tflite file has fixed sizes. Set"
                " export.dynamic_size = false and export it again."
            )
    # Their lengths follow from the input's.
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    del copy.graph.value_info[:]
    return copy


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    for _ in range(_ROUNDS):
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        if not _fold(model):
            break
    drop_unread(model.graph)
    return model


def _fold(model: onnx.ModelProto) -> bool:
    """Work out what is constant; whether there was anything."""
    graph = model.graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes, kept, results = _shapes(model), [], {value.name for value in graph.output}
    for node in graph.node:
        found = None
        if results.isdisjoint(node.output):
            found = _value(model, node, known, shapes)
        if found is None:
            kept.append(node)
            continue
        for name, value in zip(node.output, found, strict=True):
            known[name] = value
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    if len(kept) == len(graph.node):
        return False
    set_nodes(graph, kept)
    del graph.value_info[:]
    return True


def _value(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    known: dict[str, NDArray[Any]],
    shapes: dict[str, tuple[int, ...]],
) -> list[NDArray[Any]] | None:
    if node.op_type == "Shape" and node.input[0] in shapes:
        options = attributes(node)
        whole = shapes[node.input[0]]
        return [np.array(whole[options.get("start", 0) : options.get("end", len(whole))], np.int64)]
    if node.op_type in _PAIR or (node.op_type == "Cast" and _is_storage(node, known)):
        return None
    if not all(name in known for name in node.input if name):
        return None
    single = helper.make_model(
        helper.make_graph(
            [node],
            "constant",
            [],
            [onnx.ValueInfoProto(name=name) for name in node.output],
            [numpy_helper.from_array(np.asarray(known[name]), name) for name in node.input if name],
        ),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    return list(ReferenceEvaluator(single).run(None, {}))


def _is_storage(node: onnx.NodeProto, known: dict[str, NDArray[Any]]) -> bool:
    """Whether a Cast says how weights are stored: in half precision, or as integers that a scale follows."""
    value = known.get(node.input[0])
    return value is not None and value.dtype in (np.float16, np.int8)


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of which every length is known."""
    graph, found = model.graph, {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            found[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return found
