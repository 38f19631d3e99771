"""The float graph run by torch, node by node, with or without the planned quantization.

Recovery and sensitivity need what an engine does not give: gradients, and two runs side by side whose weights
change on the way. Quantization is simulated in float32, with torch's fake-quantize operators, whose gradient is
the straight-through one (Bengio et al. 2013).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetl.errors import ModelError
from edgetl.models.memory import contiguous, needs_contiguous
from edgetl.quantize.affine import Affine, Grid, for_weights
from edgetl.quantize.graph import Graph, attributes
from edgetl.quantize.plan import QuantizationPlan, is_move
from edgetl.quantize.targets import TargetRules

Values = list[Tensor | None]
Options = dict[str, Any]


class Stream:
    """One run through the graph. Call `step` for each node in order; tensors are dropped after their last reader.

    Attributes:
        values: tensor name -> value, of what is alive.
        weights: node position -> (weights, bias) that it uses in place of its own.
    """

    def __init__(
        self,
        graph: Graph,
        images: Tensor,
        *,
        plan: QuantizationPlan | None = None,
        activations: Mapping[str, Affine] | None = None,
        constants: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Start a run.

        Args:
            graph: the float graph.
            images: (N, 3, S, S) float32.
            plan: what is quantized; None runs in float.
            activations: parameters of the plan's tensors.
            constants: `constants_of(graph)`, where several streams share them.
        """
        self.graph, self.plan, self.activations = graph, plan, activations or {}
        self.constants = constants_of(graph) if constants is None else constants
        self.values: dict[str, Tensor] = {graph.inputs[0]: images}
        self.weights: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._dequantized: dict[str, Tensor] = {}
        self._last = {name: max(at for at, _ in readers) for name, readers in graph.consumers.items()}

    def inputs(self, at: int) -> Values:
        """What the node reads, dequantized where the plan says so, with its replaced weights."""
        found: Values = [
            self._read(at, number, name) if name else None
            for number, name in enumerate(self.graph.nodes[at].input)
        ]
        if at in self.weights:
            weights, bias = self.weights[at]
            found = [found[0], weights, *([bias] if bias is not None else [])]
        return found

    def step(self, at: int) -> None:
        """Run one node."""
        self.take(at, apply(self.graph.nodes[at], self.inputs(at)))

    def take(self, at: int, results: list[Tensor]) -> None:
        """Go past a node whose results are at hand."""
        node = self.graph.nodes[at]
        self.values.update(zip(node.output, results, strict=False))
        for name in node.input:
            if self._last.get(name) == at and name not in self.graph.results:
                self.values.pop(name, None)
                self._dequantized.pop(name, None)

    def span(self, name: str) -> tuple[float, float]:
        """The range that a tensor is quantized to; infinite where it is not."""
        if self.plan is None or name not in self.plan.ranges:
            return -math.inf, math.inf
        affine = self.activations[self.plan.ranges[name]]
        scale, zero = float(affine.scale), int(affine.zero_point)
        return (affine.grid.lowest - zero) * scale, (affine.grid.highest - zero) * scale

    def forget(self) -> None:
        """Drop what was dequantized, where `values` are another stream's that go on changing."""
        self._dequantized.clear()

    def run(self) -> Tensor:
        """Run all nodes; the results (N, D), those of several tensors side by side; of a detector its maps."""
        for at in range(len(self.graph.nodes)):
            self.step(at)
        return self.result()

    def result(self) -> Tensor:
        """The results (N, D) once all nodes have run."""
        found = [self.values[name] for name in self.graph.results]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _read(self, at: int, number: int, name: str) -> Tensor:
        if name in self.constants:
            return self.constants[name]
        if self.plan is None or (at, number) not in self.plan.reads or name not in self.plan.ranges:
            return self.values[name]
        if name not in self._dequantized:
            affine = self.activations[self.plan.ranges[name]]
            self._dequantized[name] = rounded(self.values[name], affine)
        return self._dequantized[name]


class Network(nn.Module):
    """The quantized graph as a module whose weights and biases learn; (N, 3, S, S) float32 to (N, C).

    Attributes:
        tuned: node position -> (name of its weights, name of its bias or None), of what learns.
    """

    def __init__(
        self, graph: Graph, plan: QuantizationPlan, rules: TargetRules, activations: Mapping[str, Affine]
    ) -> None:
        super().__init__()
        self.graph, self.plan, self.rules, self.activations = graph, plan, rules, activations
        self.axes = {w.node: w.axis for w in plan.weighted}
        self.tuned = {w.node: (graph.nodes[w.node].input[1], w.bias) for w in plan.weighted}
        learning = {name for pair in self.tuned.values() for name in pair if name}
        constants = constants_of(graph)
        self.names = {name: f"p{number}" for number, name in enumerate(sorted(learning))}
        for name, key in self.names.items():
            self.register_parameter(key, nn.Parameter(constants[name].clone()))
        self.fixed = {name: f"c{number}" for number, name in enumerate(sorted(set(constants) - learning))}
        for name, key in self.fixed.items():
            self.register_buffer(key, constants[name], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the simulated integer network."""
        constants = {name: getattr(self, key) for name, key in self.fixed.items()}
        stream = Stream(self.graph, images, plan=self.plan, activations=self.activations, constants=constants)
        for at, (weights, bias) in self.tuned.items():
            stream.weights[at] = (
                rounded_weights(self.value(weights), self.rules.weights, self.axes[at]),
                self.value(bias) if bias else None,
            )
        stream.constants = {**constants, **{n: self.value(n) for n in self.names}}
        return stream.run()

    def value(self, name: str) -> Tensor:
        """The parameter that holds the graph's constant `name`."""
        found: Tensor = getattr(self, self.names[name])
        return found

    def learned(self) -> dict[str, np.ndarray[Any, Any]]:
        """Constant name -> value, of all that learned."""
        return {name: self.value(name).detach().cpu().contiguous().numpy() for name in self.names}


def constants_of(graph: Graph) -> dict[str, Tensor]:
    """The graph's constants as tensors."""
    names = {name for node in graph.nodes for name in node.input if name and graph.is_constant(name)}
    found = {}
    for name in names:
        value = graph.constant(name)
        if value is not None:
            found[name] = torch.from_numpy(np.array(value))
    return found


def rounded(values: Tensor, affine: Affine) -> Tensor:
    """Quantize-dequantize an activation; the gradient passes inside the range."""
    grid = affine.grid
    return torch.fake_quantize_per_tensor_affine(
        values, float(affine.scale), int(affine.zero_point), grid.lowest, grid.highest
    )


def rounded_weights(weights: Tensor, grid: Grid, axis: int) -> Tensor:
    """Quantize-dequantize weights with the scales that `for_weights` would give them now."""
    affine = for_weights(weights.detach().cpu().numpy(), grid, axis)
    scale = torch.from_numpy(np.atleast_1d(affine.scale)).to(weights.device)
    zero = torch.zeros(scale.shape, dtype=torch.int32, device=weights.device)
    return torch.fake_quantize_per_channel_affine(weights, scale, zero, axis, grid.lowest, grid.highest)


def unsupported(graph: Graph) -> tuple[str, ...]:
    """Operators of the graph that are not known here."""
    known = {*_OPERATORS, "Constant"}
    found = {node.op_type for node in graph.nodes if node.op_type not in known or not is_move(node)}
    return tuple(sorted(found))


def apply(node: onnx.NodeProto, values: Values) -> list[Tensor]:
    """Run one node on tensors.

    Raises:
        ModelError: the operator is not known here.
    """
    if node.op_type == "Constant":
        return []
    operator = _OPERATORS.get(node.op_type)
    if operator is None:
        raise ModelError(
            f"{node.name or node.output[0]} is a {node.op_type}, which recovery cannot run; use"
            " quantize.recovery = 'none' or 'equalise'."
        )
    result = operator(values, attributes(node))
    return list(result) if isinstance(result, list | tuple) else [result]


# --- operators ------------------------------------------------------------------------------------------


def _of(values: Values, number: int) -> Tensor:
    value = values[number]
    assert value is not None
    return value


def _optional(values: Values, number: int) -> Tensor | None:
    return values[number] if len(values) > number else None


def _ints(values: Values, number: int) -> list[int]:
    return [int(v) for v in _of(values, number).reshape(-1).tolist()]


def _axes(values: Values, options: Options, number: int = 1) -> list[int] | None:
    """Axes as an attribute or as an input, whichever the opset has."""
    if "axes" in options:
        return list(options["axes"])
    return _ints(values, number) if _optional(values, number) is not None else None


def _padded(x: Tensor, options: Options, value: float = 0.0) -> Tensor:
    pads = list(options.get("pads", []))
    if not any(pads):
        return x
    half = len(pads) // 2
    order = [edge for axis in reversed(range(half)) for edge in (pads[axis], pads[axis + half])]
    return F.pad(x, order, value=value)


def _conv(values: Values, options: Options) -> Tensor:
    x, weights = _of(values, 0), _of(values, 1)
    common = {
        "stride": tuple(options.get("strides", [1, 1])),
        "dilation": tuple(options.get("dilations", [1, 1])),
        "groups": options.get("group", 1),
    }
    if needs_contiguous(weights.shape[1], weights.shape[2:], common["stride"]):
        x, weights = contiguous(x), contiguous(weights)
    pads = list(options.get("pads", [0, 0, 0, 0]))
    if pads[:2] == pads[2:]:
        return F.conv2d(x, weights, _optional(values, 2), padding=tuple(pads[:2]), **common)
    return F.conv2d(_padded(x, options), weights, _optional(values, 2), **common)


def _gemm(values: Values, options: Options) -> Tensor:
    a, b = _of(values, 0), _of(values, 1)
    product = (a.T if options.get("transA") else a) @ (b.T if options.get("transB") else b)
    product = product * float(options.get("alpha", 1.0))
    bias = _optional(values, 2)
    return product if bias is None else product + float(options.get("beta", 1.0)) * bias


def _pool(x: Tensor, options: Options, *, largest: bool) -> Tensor:
    kernel, strides = list(options["kernel_shape"]), list(options.get("strides", [1, 1]))
    ceil = bool(options.get("ceil_mode", 0))
    pads = list(options.get("pads", [0, 0, 0, 0]))
    if largest:
        return F.max_pool2d(_padded(x, options, -torch.inf), kernel, strides, ceil_mode=ceil)
    counted = bool(options.get("count_include_pad", 0))
    if pads[:2] == pads[2:]:
        return F.avg_pool2d(x, kernel, strides, pads[:2], ceil_mode=ceil, count_include_pad=counted)
    if not counted:
        raise ModelError("Recovery cannot run average pooling with uneven padding that is not counted.")
    return F.avg_pool2d(_padded(x, options), kernel, strides, ceil_mode=ceil)


def _reshape(values: Values, options: Options) -> Tensor:
    x, shape = _of(values, 0), _ints(values, 1)
    return x.reshape(
        [x.shape[i] if s == 0 and not options.get("allowzero") else s for i, s in enumerate(shape)]
    )


def _resize(values: Values, options: Options) -> Tensor:
    x = _of(values, 0)
    scales = _optional(values, 2)
    if scales is not None and scales.numel():
        size = [int(side * scale) for side, scale in zip(x.shape, scales.tolist(), strict=True)]
    else:
        size = _ints(values, 3)
    asked = (options.get("coordinate_transformation_mode"), options.get("nearest_mode"))
    if asked != (b"asymmetric", b"floor") or size[:2] != list(x.shape[:2]):
        raise ModelError("Recovery can run a Resize of height and width that repeats values, and no other.")
    return F.interpolate(x, size[2:], mode="nearest")


def _clip(values: Values, options: Options) -> Tensor:
    low, high = _optional(values, 1), _optional(values, 2)
    lowest = None if low is None else float(low)
    return _of(values, 0).clamp(lowest, None if high is None else float(high))


def _slice(values: Values, options: Options) -> Tensor:
    x = _of(values, 0)
    starts, ends = _ints(values, 1), _ints(values, 2)
    axes = _ints(values, 3) if _optional(values, 3) is not None else list(range(len(starts)))
    steps = _ints(values, 4) if _optional(values, 4) is not None else [1] * len(starts)
    if min(steps) < 1:
        raise ModelError("Recovery cannot run a Slice with a negative step.")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        rows = torch.arange(x.shape[axis], device=x.device)[start:end:step]
        x = x.index_select(axis, rows)
    return x


def _split(values: Values, options: Options) -> list[Tensor]:
    x, axis = _of(values, 0), options.get("axis", 0)
    if _optional(values, 1) is not None:
        return list(torch.split(x, _ints(values, 1), axis))
    sizes = options.get("split") or -(-x.shape[axis] // options["num_outputs"])
    return list(torch.split(x, list(sizes) if isinstance(sizes, list | tuple) else sizes, axis))


def _gather(values: Values, options: Options) -> Tensor:
    x, rows, axis = _of(values, 0), _of(values, 1).long(), options.get("axis", 0)
    rows = torch.where(rows < 0, rows + x.shape[axis], rows)
    picked = x.index_select(axis, rows.reshape(-1).to(x.device))
    axis %= x.ndim
    return picked.reshape((*x.shape[:axis], *rows.shape, *x.shape[axis + 1 :]))


def _mean(values: Values, options: Options) -> Tensor:
    x = _of(values, 0)
    axes = _axes(values, options) or list(range(x.ndim))
    return x.mean(axes, keepdim=bool(options.get("keepdims", 1)))


def _layer_norm(values: Values, options: Options) -> Tensor:
    x, axis = _of(values, 0), options.get("axis", -1) % _of(values, 0).ndim
    return F.layer_norm(
        x, tuple(x.shape[axis:]), _of(values, 1), _optional(values, 2), options.get("epsilon", 1e-5)
    )


def _squeeze(values: Values, options: Options) -> Tensor:
    axes = _axes(values, options)
    return _of(values, 0).squeeze(tuple(axes) if axes is not None else ())


def _unsqueeze(values: Values, options: Options) -> Tensor:
    x, axes = _of(values, 0), _axes(values, options) or []
    for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


def _expand(values: Values, options: Options) -> Tensor:
    x = _of(values, 0)
    shape = _ints(values, 1)
    return x * torch.ones(shape, dtype=x.dtype, device=x.device)  # both ways, as ONNX broadcasts


def _pad(values: Values, options: Options) -> Tensor:
    if options.get("mode", b"constant") not in (b"constant", "constant"):
        raise ModelError("Recovery cannot run a Pad that reflects or repeats.")
    filler = _optional(values, 2)
    return _padded(_of(values, 0), {"pads": _ints(values, 1)}, float(filler) if filler is not None else 0.0)


_TYPES = {
    1: torch.float32,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
}

Operator = Callable[[Values, Options], Tensor | list[Tensor]]
_OPERATORS: dict[str, Operator] = {
    "Add": lambda v, o: _of(v, 0) + _of(v, 1),
    "AveragePool": lambda v, o: _pool(_of(v, 0), o, largest=False),
    "Cast": lambda v, o: _of(v, 0).to(_TYPES[o["to"]]),
    "Clip": _clip,
    "Concat": lambda v, o: torch.cat([x for x in v if x is not None], o["axis"]),
    "Conv": _conv,
    "Div": lambda v, o: _of(v, 0) / _of(v, 1) if _of(v, 0).is_floating_point() else _of(v, 0) // _of(v, 1),
    "Dropout": lambda v, o: _of(v, 0),
    "Equal": lambda v, o: _of(v, 0) == _of(v, 1),
    "Exp": lambda v, o: torch.exp(_of(v, 0)),
    "Erf": lambda v, o: torch.erf(_of(v, 0)),
    "Expand": _expand,
    "Flatten": lambda v, o: (
        _of(v, 0).flatten(o.get("axis", 1)) if o.get("axis", 1) else _of(v, 0)[None].flatten(1)
    ),
    "Gather": _gather,
    "Gelu": lambda v, o: F.gelu(_of(v, 0), approximate="tanh" if o.get("approximate") == b"tanh" else "none"),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda v, o: _of(v, 0).mean((2, 3), keepdim=True),
    "HardSigmoid": lambda v, o: (o.get("alpha", 0.2) * _of(v, 0) + o.get("beta", 0.5)).clamp(0.0, 1.0),
    "HardSwish": lambda v, o: F.hardswish(_of(v, 0)),
    "Identity": lambda v, o: _of(v, 0),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda v, o: F.leaky_relu(_of(v, 0), o.get("alpha", 0.01)),
    "MatMul": lambda v, o: _of(v, 0) @ _of(v, 1),
    "MaxPool": lambda v, o: _pool(_of(v, 0), o, largest=True),
    "Min": lambda v, o: torch.minimum(_of(v, 0), _of(v, 1)),
    "Mul": lambda v, o: _of(v, 0) * _of(v, 1),
    "Pad": _pad,
    "Pow": lambda v, o: _of(v, 0) ** _of(v, 1),
    "ReduceMean": _mean,
    "Relu": lambda v, o: F.relu(_of(v, 0)),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda v, o: torch.tensor(_of(v, 0).shape)[o.get("start", 0) : o.get("end")],
    "Sigmoid": lambda v, o: torch.sigmoid(_of(v, 0)),
    "Slice": _slice,
    "Softmax": lambda v, o: torch.softmax(_of(v, 0), o.get("axis", -1)),
    "Split": _split,
    "Sqrt": lambda v, o: torch.sqrt(_of(v, 0)),
    "Squeeze": _squeeze,
    "Sub": lambda v, o: _of(v, 0) - _of(v, 1),
    "Tanh": lambda v, o: torch.tanh(_of(v, 0)),
    "Transpose": lambda v, o: _of(v, 0).permute(o["perm"]) if "perm" in o else _of(v, 0).T,
    "Unsqueeze": _unsqueeze,
    "Where": lambda v, o: torch.where(_of(v, 0), _of(v, 1), _of(v, 2)),
}
