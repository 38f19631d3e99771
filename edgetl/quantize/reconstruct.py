"""Bias correction and AdaRound: layer by layer, the quantized network is drawn back to the float one.

Both networks run side by side over some calibration images. At every layer the quantized one has met the errors
of all layers before, so what is corrected is what will be met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from edgetl.progress import SILENT, Progress
from edgetl.quantize.affine import Affine, Integers, for_weights
from edgetl.quantize.graph import Graph, attributes
from edgetl.quantize.plan import QuantizationPlan, Weighted
from edgetl.quantize.replay import Stream, apply, constants_of
from edgetl.quantize.targets import ACTIVATIONS, GATES, TargetRules

Array = NDArray[np.float32]

_STEPS, _BATCH, _RATE = 200, 256, 3e-2
_POSITIONS, _MOST_VALUES = 8192, 1 << 25
_STRETCH = (-0.1, 1.1)
_BETA = (20.0, 2.0)
_FREE_SHARE = 0.2
_REGULARITY = 0.05


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """What was found.

    Attributes:
        biases: node position -> (O,) float32, a bias in place of its own.
        weights: node position -> weights that stand on their grid.
        grids: node position -> the grid's parameters.
    """

    biases: dict[int, Array] = field(default_factory=dict)
    weights: dict[int, Array] = field(default_factory=dict)
    grids: dict[int, Affine] = field(default_factory=dict)


@torch.no_grad()
def reconstruct(
    graph: Graph,
    plan: QuantizationPlan,
    rules: TargetRules,
    activations: Mapping[str, Affine],
    images: Sequence[Array],
    *,
    rounding: bool,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Corrections:
    """Correct biases, and with `rounding` choose for each weight whether it is rounded up or down.

    Bias correction: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
    section 4.2, in its empirical form: each output channel's mean is moved back to the float network's.

    Rounding: Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization" (AdaRound), with
    asymmetric reconstruction of each layer's output before its activation.

    Args:
        graph: the float graph.
        plan, rules, activations: its quantization.
        images: batches (n, 3, S, S) float32; both networks' activations of all of them are held in memory.
        rounding: choose the rounding, too.
        seed: of the positions that AdaRound looks at.
        progress: where to report.

    Raises:
        ModelError: an operator is not known to the replay.
    """
    constants = constants_of(graph)
    pairs = [
        (
            Stream(graph, _tensor(batch), constants=constants),
            Stream(graph, _tensor(batch), plan=plan, activations=activations, constants=constants),
        )
        for batch in images
    ]
    weighted = {w.node: w for w in plan.weighted}
    found = Corrections()
    generator = torch.Generator().manual_seed(seed)
    with progress.task("round weights" if rounding else "correct biases", len(weighted)) as task:
        for at in range(len(graph.nodes)):
            if at in weighted:
                _correct(pairs, weighted[at], rules, found, rounding, generator)
                task.advance()
            else:
                for pair in pairs:
                    for stream in pair:
                        stream.step(at)
    return found


def corrected(graph: Graph, found: Corrections) -> onnx.ModelProto:
    """The float model with the corrections in place of its own weights and biases; nodes keep their positions."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph.model)
    for values, number, kind in ((found.weights, 1, "weight"), (found.biases, 2, "bias")):
        for at, value in values.items():
            node, name = copy.graph.node[at], f"{graph.label(at)}.corrected_{kind}"
            copy.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
            if len(node.input) == number:
                node.input.append(name)
            else:
                node.input[number] = name
    return copy


def _tensor(batch: Array) -> Tensor:
    return torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)


def _correct(
    pairs: Sequence[tuple[Stream, Stream]],
    layer: Weighted,
    rules: TargetRules,
    found: Corrections,
    rounding: bool,
    generator: torch.Generator,
) -> None:
    at, graph = layer.node, pairs[0][0].graph
    node = graph.nodes[at]
    weights, bias = pairs[0][0].inputs(at)[1], graph.constant(layer.bias) if layer.bias else None
    assert weights is not None
    affine = for_weights(weights.numpy(), rules.weights, layer.axis)
    targets = [apply(node, own.inputs(at))[0] for own, _ in pairs]
    if rounding and node.op_type == "Conv":
        integers = _rounded(pairs, targets, layer, weights, bias, affine, generator)
        found.weights[at] = affine.dequantize(integers)
        found.grids[at] = affine
    else:
        integers = affine.quantize(weights.numpy())
    nearest = torch.from_numpy(affine.dequantize(integers))
    own_bias = torch.from_numpy(np.array(bias)) if bias is not None else None
    for _, other in pairs:
        other.weights[at] = (nearest, own_bias)
    results = [apply(node, other.inputs(at))[0] for _, other in pairs]
    correctable = node.op_type != "MatMul" and (bias is None or bias.ndim == 1)
    shift = torch.zeros(())
    if correctable:
        shift = _helpful(_mean(targets) - _mean(results), targets, results, pairs[0][1], at)
        found.biases[at] = (shift if own_bias is None else own_bias + shift).numpy()
    for (own, other), target, result in zip(pairs, targets, results, strict=True):
        own.take(at, [target])
        shape = (1, -1, 1, 1) if node.op_type == "Conv" else (1, -1)
        other.take(at, [result + shift.reshape(shape) if correctable else result])


def _helpful(
    shift: Tensor, targets: Sequence[Tensor], results: Sequence[Tensor], stream: Stream, at: int
) -> Tensor:
    """The shift where it lessens the error behind the activation, within the range that is passed on, else 0.

    What the next quantizer clips counts for nothing: a few values beyond a tight range would else move all others.
    """
    graph = stream.graph
    reader = graph.only_consumer(graph.nodes[at].output[0])
    follows = reader is not None and graph.nodes[reader].op_type in (*ACTIVATIONS, *GATES)

    passed = graph.nodes[reader if reader is not None and follows else at].output[0]
    lowest, highest = stream.span(passed)

    def behind(values: Tensor) -> Tensor:
        if reader is not None and follows:
            others = [
                torch.from_numpy(np.array(graph.constant(n))) for n in graph.nodes[reader].input[1:] if n
            ]
            values = apply(graph.nodes[reader], [values, *others])[0]
        return values.clamp(lowest, highest)

    shape = (1, -1, 1, 1) if targets[0].ndim == 4 else (1, -1)
    before, after = torch.zeros_like(shift), torch.zeros_like(shift)
    for target, result in zip(targets, results, strict=True):
        wanted = behind(target)
        before += (behind(result) - wanted).square().transpose(0, 1).flatten(1).sum(1)
        after += (behind(result + shift.reshape(shape)) - wanted).square().transpose(0, 1).flatten(1).sum(1)
    return torch.where(after < before, shift, 0.0)


def _mean(outputs: Sequence[Tensor]) -> Tensor:
    """(O,) means over images and places; channels stand on axis 1, or last for matrices of more than two axes."""
    moved = [o.flatten(2).mean(2) if o.ndim == 4 else o.reshape(-1, o.shape[-1]) for o in outputs]
    return torch.cat(moved).mean(0)


def _rounded(
    pairs: Sequence[tuple[Stream, Stream]],
    targets: Sequence[Tensor],
    layer: Weighted,
    weights: Tensor,
    bias: Array | None,
    affine: Affine,
    generator: torch.Generator,
) -> Integers:
    """AdaRound's integers for a convolution, or the nearest where they serve better on places it has not seen."""
    options = attributes(pairs[0][0].graph.nodes[layer.node])
    groups = options.get("group", 1)
    inner = weights[0].numel()
    places = min(_POSITIONS, _MOST_VALUES // (groups * inner))
    share = -(-places // len(pairs))
    seen = [
        _sampled(stream.inputs(layer.node)[0], target, weights, options, share, generator)
        for (_, stream), target in zip(pairs, targets, strict=True)
    ]
    x, y = (torch.cat(parts, dim=2) for parts in zip(*seen, strict=True))
    if bias is not None:
        y = y - torch.from_numpy(np.array(bias)).reshape(groups, -1, 1)
    # What a bias can give back is not the rounding's work.
    x, y = x - x.mean(2, keepdim=True), y - y.mean(2, keepdim=True)
    scale = torch.from_numpy(np.atleast_1d(affine.scale)).reshape(groups, -1, 1)
    exact = weights.reshape(groups, -1, inner) / scale
    low, high = affine.grid.lowest, affine.grid.highest
    nearest = exact.round().clamp(low, high)
    held = x.shape[2] // 5
    chosen = _descend(exact, x[..., held:], y[..., held:] / scale, low, high, generator)
    worse = _error(chosen, x[..., :held], y[..., :held], scale) > _error(
        nearest, x[..., :held], y[..., :held], scale
    )
    best = torch.where(worse[..., None], nearest, chosen)
    integers: Integers = best.reshape(weights.shape).to(torch.int8).numpy()
    return integers


def _error(integers: Tensor, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """(G, O) mean squared errors of the outputs."""
    return ((integers * scale) @ x - y).square().mean(2)


def _sampled(
    x: Tensor | None,
    target: Tensor,
    weights: Tensor,
    options: dict[str, object],
    share: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Inputs (G, K, P) and outputs (G, O / G, P) of P places of the convolution, drawn over a batch."""
    assert x is not None
    groups = int(options.get("group", 1))  # type: ignore[call-overload]
    pads = [int(p) for p in options.get("pads", [0, 0, 0, 0])]  # type: ignore[attr-defined]
    padded = F.pad(x, [pads[1], pads[3], pads[0], pads[2]])
    kernel = (weights.shape[2], weights.shape[3])
    strides = [int(s) for s in options.get("strides", [1, 1])]  # type: ignore[attr-defined]
    dilations = [int(d) for d in options.get("dilations", [1, 1])]  # type: ignore[attr-defined]
    reach = [(kernel[i] - 1) * dilations[i] + 1 for i in range(2)]
    columns, rows = [], []
    each = max(1, -(-share // len(x)))
    for image, wanted in zip(padded, target, strict=True):
        # A view of all patches, (C, H, W, kernel, kernel), of which only the drawn ones are copied.
        patches = image.unfold(1, reach[0], strides[0]).unfold(2, reach[1], strides[1])
        patches = patches[..., :: dilations[0], :: dilations[1]]
        height, width = patches.shape[1:3]
        picked = torch.randperm(height * width, generator=generator)[:each]
        drawn = patches[:, picked // width, picked % width].permute(0, 2, 3, 1)
        columns.append(drawn.reshape(groups, -1, len(picked)))
        rows.append(wanted.flatten(1)[:, picked].reshape(groups, -1, len(picked)))
    return torch.cat(columns, dim=2), torch.cat(rows, dim=2)


def _descend(exact: Tensor, x: Tensor, y: Tensor, low: int, high: int, generator: torch.Generator) -> Tensor:
    """Minimise the layer's error over the rounding h(V) in [0, 1], which a regulariser drives to 0 or 1.

    The gradient is written out: the error is quadratic, and Adam (Kingma & Ba 2015) needs nothing else.
    """
    floor = exact.floor()
    rest = (exact - floor).clamp(0.01, 0.99)
    stretch = _STRETCH[1] - _STRETCH[0]
    v = -torch.log(stretch / (rest - _STRETCH[0]) - 1.0)
    first, second = torch.zeros_like(v), torch.zeros_like(v)
    count = exact.shape[2]
    # In units of what rounding to nearest costs each output, so that one regularity serves all layers.
    unit = ((exact.round() - exact) @ x).square().mean(2, keepdim=True).clamp_min(1e-12)
    # For small layers the two products below hold all places; larger ones see some places per step.
    whole = count <= _BATCH * 2
    gram, cross = (x @ x.transpose(1, 2), y @ x.transpose(1, 2)) if whole else (x, y)
    for step in range(_STEPS):
        sigmoid = torch.sigmoid(v)
        soft = (sigmoid * stretch + _STRETCH[0]).clamp(0.0, 1.0)
        if not whole:
            picked = torch.randint(x.shape[2], (min(_BATCH, x.shape[2]),), generator=generator)
            some = x[..., picked]
            slope = (
                ((floor + soft).clamp(low, high) @ some - y[..., picked]) @ some.transpose(1, 2) / len(picked)
            )
        else:
            slope = ((floor + soft).clamp(low, high) @ gram - cross) / x.shape[2]
        gradient = 2.0 * count * slope / unit
        way = (step / _STEPS - _FREE_SHARE) / (1.0 - _FREE_SHARE)
        if way > 0.0:
            beta = _BETA[1] + 0.5 * (_BETA[0] - _BETA[1]) * (1.0 + np.cos(way * np.pi))
            centred = 2.0 * soft - 1.0
            gradient = (
                gradient - _REGULARITY * count * 2.0 * beta * centred.abs() ** (beta - 1.0) * centred.sign()
            )
        gradient = gradient * sigmoid * (1.0 - sigmoid) * stretch
        first.mul_(0.9).add_(gradient, alpha=0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        bias1, bias2 = 1.0 - 0.9 ** (step + 1), 1.0 - 0.999 ** (step + 1)
        v -= _RATE * (first / bias1) / ((second / bias2).sqrt() + 1e-8)
    rounded = (floor + (torch.sigmoid(v) * stretch + _STRETCH[0] >= 0.5)).clamp(low, high)
    # zeros stand on the grid already, and may be 2:4 sparsity
    return rounded.where(exact != 0.0, 0.0)
