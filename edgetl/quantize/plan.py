"""What will be quantized, decided from the graph and the target's rules before a single image is seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from edgetl.quantize.graph import Graph, attributes
from edgetl.quantize.targets import ACTIVATIONS, WEIGHTED, TargetRules


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """An operator with constant weights.

    Attributes:
        node: its position.
        axis: the weights' axis of output channels.
        bias: the name of its constant bias, where it has one.
    """

    node: int
    axis: int
    bias: str | None


@dataclass(frozen=True, kw_only=True)
class QuantizationPlan:
    """Decisions, by node position and tensor name.

    Attributes:
        weighted: operators with weights that run in INT8.
        integer: positions of the other operators that run in INT8.
        gates: those of them that `qdq` writes as integer additions and products.
        absorbed: positions of Relu and Clip nodes that saturation replaces.
        ranges: quantized tensor -> the tensor whose observed range it has (mostly itself).
        known: tensor -> its range, where the operator fixes it and nothing need be observed.
        reads: (node, input number) that read the dequantized tensor.
        left_in_float: `node (operator): reason` for what costs time in float.
    """

    weighted: tuple[Weighted, ...]
    integer: frozenset[int]
    gates: frozenset[int]
    absorbed: frozenset[int]
    ranges: dict[str, str]
    known: dict[str, tuple[float, float]]
    reads: frozenset[tuple[int, int]]
    left_in_float: tuple[str, ...]

    @property
    def observed(self) -> tuple[str, ...]:
        """The tensors whose ranges must be calibrated."""
        return tuple(dict.fromkeys(name for name in self.ranges.values() if name not in self.known))


def make_plan(graph: Graph, rules: TargetRules, *, keep: frozenset[str] = frozenset()) -> QuantizationPlan:
    """Decide what is quantized.

    Args:
        graph: the float graph.
        rules: of the target.
        keep: names of nodes to leave in float.
    """
    planner = _Planner(graph, rules, keep)
    for at in range(len(graph.nodes)):
        planner.visit(at)
    return planner.finish()


class _Planner:
    def __init__(self, graph: Graph, rules: TargetRules, keep: frozenset[str]) -> None:
        self.graph, self.rules, self.keep = graph, rules, keep
        self.weighted: dict[int, Weighted] = {}
        self.integer: set[int] = set()
        self.gates: set[int] = set()
        self.absorbed: set[int] = set()
        self.ranges: dict[str, str] = {}
        self.known: dict[str, tuple[float, float]] = {}
        self.native: set[str] = set()  # tensors that come out of an operator as integers
        self.reads: set[tuple[int, int]] = set()
        self.left: list[str] = []
        self.decoding = graph.decoding()

    def visit(self, at: int) -> None:
        node = self.graph.nodes[at]
        if not any(self.graph.is_float(name) for name in node.output) or node.op_type == "Constant":
            return
        if at in self.decoding:
            return  # a grid of 256 steps is no place for boxes
        if self.graph.label(at) in self.keep:
            self._leave(at, "kept in float by name")
        elif node.op_type in WEIGHTED:
            self._visit_weighted(at)
        elif node.op_type in self.rules.integer_operators:
            self._visit_integer(at)
        elif node.op_type in self.rules.gates and self._from_integers(at) and self._stays_inside(at):
            self._visit_gate(at)
        elif node.op_type in self.rules.transparent_operators and is_move(node):
            if node.input[0] not in self.native:
                return
            self._hand_on(at)
        elif node.op_type == "Add" and not self.rules.integer_outputs:
            self._visit_shortcut(at)
        elif node.op_type in ACTIVATIONS and self._is_absorbed(at):
            self._absorb(at)
        elif node.op_type not in self.rules.fused_operators or not is_move(node):
            self._leave(at, f"no INT8 form on {self.rules.target}")

    def finish(self) -> QuantizationPlan:
        for name in self.native:
            self.reads |= set(self.graph.consumers.get(name, []))
        ranges = {name: self._source(name) for name in self.ranges}
        return QuantizationPlan(
            weighted=tuple(self.weighted.values()),
            integer=frozenset(self.integer),
            gates=frozenset(self.gates),
            absorbed=frozenset(self.absorbed),
            ranges=ranges,
            known=self.known,
            reads=frozenset(self.reads),
            left_in_float=tuple(self.left),
        )

    def _visit_weighted(self, at: int) -> None:
        found = _weighted(self.graph, self.rules, at)
        if isinstance(found, str):
            self._leave(at, found)
            return
        node = self.graph.nodes[at]
        self.weighted[at] = found
        self.ranges.setdefault(node.input[0], node.input[0])
        self.reads.add((at, 0))
        # A matrix product's float output costs nothing more, and the next reader quantizes it if it wants to.
        if node.op_type == "Conv":
            self._emit(at)

    def _visit_integer(self, at: int) -> None:
        if any(self.graph.is_constant(name) for name in self.graph.nodes[at].input):
            self._leave(at, "an input is constant")
        elif not self._from_integers(at):
            self._leave(at, "an input is in float")
        else:
            self.integer.add(at)
            self._emit(at)
            node = self.graph.nodes[at]
            if (fixed := self.rules.fixed_ranges.get(node.op_type)) and node.output[0] in self.ranges:
                self.known[node.output[0]] = fixed

    def _visit_gate(self, at: int) -> None:
        node = self.graph.nodes[at]
        self.integer.add(at)
        self.gates.add(at)
        self._emit(at)
        if node.op_type == "HardSigmoid":
            self.known[node.output[0]] = (0.0, 1.0)

    def _visit_shortcut(self, at: int) -> None:
        """Quantize a residual addition's shortcut, and leave the last convolution's side to be fused."""
        inputs = list(self.graph.nodes[at].input)
        makers = [self.graph.producer.get(name, -1) for name in inputs]
        main = max(range(len(inputs)), key=lambda i: makers[i])
        if makers[main] not in self.weighted or self.graph.only_consumer(inputs[main]) != at:
            return
        for number, name in enumerate(inputs):
            if number != main and not self.graph.is_constant(name):
                self.ranges.setdefault(name, name)
                self.reads.add((at, number))

    def _hand_on(self, at: int) -> None:
        node = self.graph.nodes[at]
        if self._stays_inside(at):
            self.integer.add(at)
            self.native.add(node.output[0])
            self.ranges[node.output[0]] = node.input[0]

    def _is_absorbed(self, at: int) -> bool:
        name = self.graph.nodes[at].input[0]
        if not self.rules.absorb_activations or name not in self.native:
            return False
        maker = self.graph.producer[name]
        # Only an operator whose result has a range of its own can take over the activation's.
        own_range = maker in self.weighted or maker in self.integer - self.gates
        return (
            own_range
            and self.ranges[name] == name
            and self.graph.only_consumer(name) == at
            and self._stays_inside(at)
            and _starts_at_zero(self.graph, at)
        )

    def _absorb(self, at: int) -> None:
        node = self.graph.nodes[at]
        self.absorbed.add(at)
        self.native.remove(node.input[0])
        del self.ranges[node.input[0]]
        self.native.add(node.output[0])
        self.ranges[node.output[0]] = node.output[0]

    def _emit(self, at: int) -> None:
        """The operator's result is quantized, unless it leaves the graph."""
        name = self.graph.nodes[at].output[0]
        if self.rules.integer_outputs and name not in self.graph.outputs:
            self.native.add(name)
            self.ranges.setdefault(name, name)

    def _from_integers(self, at: int) -> bool:
        names = [n for n in self.graph.nodes[at].input if n and self.graph.is_float(n)]
        return bool(names) and all(name in self.native for name in names)

    def _stays_inside(self, at: int) -> bool:
        return self.graph.nodes[at].output[0] not in self.graph.outputs

    def _source(self, name: str) -> str:
        while self.ranges[name] != name:
            name = self.ranges[name]
        return name

    def _leave(self, at: int, reason: str) -> None:
        self.left.append(f"{self.graph.label(at)} ({self.graph.nodes[at].op_type}): {reason}")


def is_move(node: onnx.NodeProto) -> bool:
    """Whether the operator, where it is one that moves values, makes no new ones: a Resize does unless it repeats."""
    if node.op_type != "Resize":
        return True
    return bool(attributes(node).get("mode", b"nearest") == b"nearest")


def _weighted(graph: Graph, rules: TargetRules, at: int) -> Weighted | str:
    """The operator's weights, or why it stays in float."""
    node, options = graph.nodes[at], attributes(graph.nodes[at])
    weights = graph.constant(node.input[1])
    if weights is None:
        return "its second factor is no constant"
    if weights.dtype != np.float32 or not weights.size:
        return f"its weights are {weights.dtype} of shape {weights.shape}"
    if graph.is_constant(node.input[0]):
        return "its first factor is constant"
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if bias is not None and graph.constant(bias) is None:
        return "its bias is no constant"
    match node.op_type:
        case "Conv":
            return Weighted(node=at, axis=0, bias=bias)
        case "Gemm":
            plain = options.get("alpha", 1.0) == options.get("beta", 1.0) == 1.0 and not options.get("transA")
            values = graph.constant(bias) if bias is not None else None
            flat = values is None or values.ndim == 1
            if not plain or not flat:
                return "its alpha, beta, transA or bias is not the usual one"
            return Weighted(node=at, axis=0 if options.get("transB") else 1, bias=bias)
        case _:
            if weights.ndim != 2:
                return f"its weights have {weights.ndim} dimensions"
            return Weighted(node=at, axis=1, bias=None)


def _starts_at_zero(graph: Graph, at: int) -> bool:
    """Whether the activation's lower limit is 0, where every grid without headroom starts too."""
    node = graph.nodes[at]
    if node.op_type == "Relu":
        return True
    limit = graph.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    return limit is not None and float(limit) == 0.0
