"""Write a plan into the graph: QuantizeLinear and DequantizeLinear pairs, integer weights, integer biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.quantize.affine import Affine, for_weights, from_range
from edgetl.quantize.graph import Graph, attributes
from edgetl.quantize.plan import QuantizationPlan, Weighted
from edgetl.quantize.targets import TargetRules

_INT32_ROOM = 2.0**30
"""Biases stay this small on their grid, so that the accumulator keeps as much room for the products."""


def insert(
    graph: Graph,
    plan: QuantizationPlan,
    rules: TargetRules,
    activations: Mapping[str, Affine],
    *,
    grids: Mapping[int, Affine] | None = None,
) -> onnx.ModelProto:
    """The quantized model; weights are stored as int8, so the file is about a quarter of the float one.

    Args:
        graph: the float graph; it is not changed.
        plan: what is quantized.
        rules: the target's.
        activations: parameters of every tensor in `plan.observed` and `plan.known`.
        grids: node position -> parameters of its weights, for weights that stand on their grid already; the others'
            cover their weights.

    Raises:
        ModelError: a weight is not finite.
    """
    return _Writer(graph, plan, rules, activations, grids or {}).write()


@dataclass
class _Writer:
    graph: Graph
    plan: QuantizationPlan
    rules: TargetRules
    activations: Mapping[str, Affine]
    grids: Mapping[int, Affine]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def write(self) -> onnx.ModelProto:
        weighted = {w.node: w for w in self.plan.weighted}
        for name in self.graph.inputs:
            self._quantize(name)
        for at, original in enumerate(self.graph.nodes):
            if at in self.plan.absorbed:
                self._quantize(original.output[0])
                continue
            node = onnx.NodeProto()
            node.CopyFrom(original)
            for number in range(len(node.input)):
                if (at, number) in self.plan.reads and original.input[number] in self.plan.ranges:
                    node.input[number] = f"{original.input[number]}_dequantized"
            if at in weighted:
                self._quantize_weights(node, weighted[at])
            if at in self.plan.gates:
                self._write_gate(at)
                self._quantize(original.output[0])
                continue
            follower = self._absorbed_after(original.output[0])
            if follower is not None:
                node.output[0] = follower
            self.nodes.append(node)
            for name in original.output:
                self._quantize(name)
        return self._assemble()

    def _absorbed_after(self, name: str) -> str | None:
        at = self.graph.only_consumer(name)
        return self.graph.nodes[at].output[0] if at is not None and at in self.plan.absorbed else None

    def _quantize(self, name: str) -> None:
        """Emit the tensor's pair, where it is planned and read."""
        if name not in self.plan.ranges:
            return
        source = self.plan.ranges[name]
        self._pair(name, source, self.activations[source])

    def _pair(self, name: str, source: str, affine: Affine) -> str:
        """Emit QuantizeLinear and DequantizeLinear; tensors with one `source` share their constants."""
        scale = self._constant(f"{source}_scale", affine.scale)
        zero = self._constant(f"{source}_zero_point", affine.zero_point)
        integers = f"{name}_quantized"
        self.nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [integers], f"{name}_q"))
        return self._dequantize(name, integers, scale, zero)

    def _dequantize(
        self, name: str, integers: str, scale: str, zero: str | None, axis: int | None = None
    ) -> str:
        """Emit DequantizeLinear; without `zero` the zero point is 0."""
        output = f"{name}_dequantized"
        inputs = [integers, scale] if zero is None else [integers, scale, zero]
        options: dict[str, Any] = {} if axis is None else {"axis": axis}
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], f"{name}_dq", **options))
        return output

    def _quantize_weights(self, node: onnx.NodeProto, weighted: Weighted) -> None:
        name = node.input[1]
        source = self.activations[self.plan.ranges[self.graph.nodes[weighted.node].input[0]]]
        weights = self._value(name)
        bias = self._value(weighted.bias) if weighted.bias else None
        integer_bias = bias is not None and self.rules.int32_bias
        try:
            affine = self.grids.get(weighted.node) or for_weights(weights, self.rules.weights, weighted.axis)
            if integer_bias and bias is not None:
                affine = _with_room_for(bias, affine, float(source.scale))
        except ValueError as error:
            raise ModelError(f"{self.graph.label(weighted.node)} cannot be quantized: {error}.") from error
        label = self.graph.label(weighted.node)
        own = f"{label}.weight"
        integers = self._constant(f"{own}_quantized", affine.quantize(weights))
        scale = self._constant(f"{own}_scale", affine.scale)
        zero = self._constant(f"{own}_zero_point", affine.zero_point)
        node.input[1] = self._dequantize(own, integers, scale, zero, affine.axis)
        if integer_bias and bias is not None:
            node.input[2] = self._quantize_bias(f"{label}.bias", bias, float(source.scale) * affine.scale)

    def _quantize_bias(self, own: str, bias: NDArray[np.float32], scale: NDArray[np.float32]) -> str:
        scale = scale.astype(np.float32)
        integers = np.rint(bias.astype(np.float64) / scale).astype(np.int32)
        return self._dequantize(
            own,
            self._constant(f"{own}_quantized", integers),
            self._constant(f"{own}_scale", scale),
            None,  # as many zeros as channels would be a percent of a small network's file
            0,
        )

    def _write_gate(self, at: int) -> None:
        """HardSigmoid, clip(alpha x + beta, 0, 1), is an addition that saturates; HardSwish its product with x.

        The factor alpha costs nothing: x's integers are dequantized once more, with alpha times the scale.
        """
        node = self.graph.nodes[at]
        name, output = node.input[0], node.output[0]
        source = self.activations[self.plan.ranges[name]]
        options = (
            {"alpha": 1 / 6, "beta": 0.5} if node.op_type == "HardSwish" else {"alpha": 0.2, "beta": 0.5}
        )
        options |= attributes(node)
        scale = self._constant(
            f"{output}_alpha_scale", np.asarray(source.scale * options["alpha"], np.float32)
        )
        zero = f"{self.plan.ranges[name]}_zero_point"
        scaled = self._dequantize(f"{output}_alpha", f"{name}_quantized", scale, zero)
        shift = self._dequantize(
            f"{output}_beta",
            self._constant(f"{output}_beta_quantized", np.ones((), source.grid.dtype)),
            self._constant(f"{output}_beta_scale", np.asarray(options["beta"], np.float32)),
            self._constant(f"{output}_beta_zero_point", np.zeros((), source.grid.dtype)),
        )
        if node.op_type == "HardSigmoid":
            self.nodes.append(helper.make_node("Add", [scaled, shift], [output], node.name))
            return
        gate = f"{output}_gate"
        self.nodes.append(helper.make_node("Add", [scaled, shift], [gate], f"{node.name}_gate"))
        saturated = self._pair(gate, gate, from_range(0.0, 1.0, source.grid))
        self.nodes.append(
            helper.make_node("Mul", [f"{name}_dequantized", saturated], [output], f"{node.name}_product")
        )

    def _value(self, name: str) -> NDArray[np.float32]:
        value = self.graph.constant(name)
        assert value is not None, f"the planner took {name} for a constant"
        return value

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.setdefault(
            name, numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        )
        return name

    def _assemble(self) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        used = {name for node in self.nodes for name in node.input}
        kept = [t for t in self.graph.model.graph.initializer if t.name in used]
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(
            n for n in self.nodes if n.op_type != "DequantizeLinear" or n.output[0] in used
        )
        model.graph.initializer.extend(kept)
        model.graph.initializer.extend(self.constants.values())
        try:
            onnx.checker.check_model(model, full_check=True)
        except Exception as error:
            raise ModelError(f"The quantized graph is not valid ONNX: {error}") from error
        return model


def _with_room_for(bias: NDArray[np.float32], affine: Affine, source_scale: float) -> Affine:
    """Coarser weight scales where a channel's weights are so small that its bias would overflow int32."""
    if not np.isfinite(bias).all():
        raise ValueError("its bias holds NaN or infinity")
    needed = np.abs(bias.astype(np.float64)) / (_INT32_ROOM * source_scale)
    scale = np.maximum(affine.scale, needed).astype(np.float32)
    return Affine(grid=affine.grid, scale=scale, zero_point=affine.zero_point, axis=affine.axis)
