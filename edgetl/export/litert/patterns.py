"""Chains of ONNX operators that are one operator elsewhere."""

from __future__ import annotations

from math import isclose, sqrt

import onnx
from onnx import helper, numpy_helper

from edgetl.export.graphs import copy_of, drop_unread, set_nodes


def with_gelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with Gelu in place of x / sqrt(2) -> Erf -> + 1 -> * x -> * 0.5, as exported below opset 20.

    The factors may stand in any order. What else reads a part of the chain keeps it.
    """
    copy = copy_of(model)
    graph = copy.graph
    chains = _Chains(graph)
    nodes = list(graph.node)
    for at, node in enumerate(nodes):
        if node.op_type == "Mul" and (source := chains.gelu_of(node)) is not None:
            nodes[at] = helper.make_node("Gelu", [source], list(node.output), node.name, approximate="none")
    set_nodes(graph, nodes)
    drop_unread(graph)
    return copy


class _Chains:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.makers = {name: node for node in graph.node for name in node.output}
        self.numbers = {
            tensor.name: float(numpy_helper.to_array(tensor).reshape(()))
            for tensor in graph.initializer
            if tensor.data_type == onnx.TensorProto.FLOAT
            and not [length for length in tensor.dims if length != 1]
        }

    def gelu_of(self, node: onnx.NodeProto) -> str | None:
        """What the product is the Gelu of."""
        factors = self._factors(node.output[0])
        numbers = [factor for factor in factors if isinstance(factor, float)]
        tensors = [factor for factor in factors if isinstance(factor, str)]
        if len(numbers) != 1 or not isclose(numbers[0], 0.5, rel_tol=1e-5) or len(tensors) != 2:
            return None
        for source, other in (tensors, reversed(tensors)):
            if self._is_one_and_erf_of(other, source):
                return source
        return None

    def _factors(self, name: str, depth: int = 2) -> list[str | float]:
        """What is multiplied, over at most so many products."""
        if name in self.numbers:
            return [self.numbers[name]]
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "Mul" or not depth:
            return [name]
        return [factor for each in maker.input for factor in self._factors(each, depth - 1)]

    def _is_one_and_erf_of(self, name: str, source: str) -> bool:
        add = self.makers.get(name)
        if add is None or add.op_type != "Add":
            return False
        for erf, one in (add.input, reversed(add.input)):
            maker = self.makers.get(erf)
            if maker is not None and maker.op_type == "Erf" and self.numbers.get(one) == 1.0:
                return self._is_scaled(maker.input[0], source)
        return False

    def _is_scaled(self, name: str, source: str) -> bool:
        maker = self.makers.get(name)
        if maker is None or source not in maker.input:
            return False
        other = [self.numbers.get(each) for each in maker.input if each != source]
        if len(other) != 1 or other[0] is None:
            return False
        root = sqrt(2.0)
        return (maker.op_type == "Div" and isclose(other[0], root, rel_tol=1e-5)) or (
            maker.op_type == "Mul" and isclose(other[0], 1 / root, rel_tol=1e-5)
        )
