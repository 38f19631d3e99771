"""What quantizing each layer costs, from one pass over a few images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from edgetl.quantize.affine import Affine, for_weights
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import QuantizationPlan
from edgetl.quantize.replay import Stream, apply, constants_of
from edgetl.quantize.targets import TargetRules
from edgetl.records.variants import LayerSensitivity

_DRAWS = 4
"""Random directions per image; each costs a backward pass."""


def sensitivity(
    graph: Graph,
    plan: QuantizationPlan,
    rules: TargetRules,
    activations: Mapping[str, Affine],
    images: Sequence[NDArray[np.float32]],
    *,
    seed: int = 0,
) -> tuple[LayerSensitivity, ...]:
    """Each weighted layer's own noise, and what of it reaches the logits, the worst layer first.

    A layer's noise e is its output with its input and weights quantized, less that in float, all before it in
    float. SQNR is the output's power over the noise's. The divergence is the power of J e over that of the logits,
    J the layer's Jacobian: E[(v^T J e)^2] over random signs v, as in Hutchinson's estimator (1990), which takes one
    backward pass for all layers at once. It is exact to first order in the noise.

    Args:
        graph, plan, rules, activations: the float graph and its quantization.
        images: batches (n, 3, S, S) float32.
        seed: of the directions.

    Raises:
        ModelError: an operator is not known to the replay.
    """
    constants, generator = constants_of(graph), torch.Generator().manual_seed(seed)
    signal, noise, reached = (dict.fromkeys((w.node for w in plan.weighted), 0.0) for _ in range(3))
    power, seen = 0.0, 0
    for batch in images:
        with torch.enable_grad():
            outputs, errors, logits = _forward(graph, plan, rules, activations, batch, constants)
            power += float(logits.detach().square().sum())
            seen += len(batch)
            for draw in range(_DRAWS):
                signs = torch.randint(0, 2, logits.shape, generator=generator).float() * 2.0 - 1.0
                gradients = torch.autograd.grad(
                    logits, list(outputs.values()), signs, retain_graph=draw + 1 < _DRAWS
                )
                for at, gradient in zip(outputs, gradients, strict=True):
                    each = (gradient * errors[at]).flatten(1).sum(1)
                    reached[at] += float(each.square().sum()) / _DRAWS
        for at, output in outputs.items():
            signal[at] += float(output.detach().square().sum())
            noise[at] += float(errors[at].square().sum())
    found = [
        LayerSensitivity(
            name=graph.label(at),
            operator=graph.nodes[at].op_type,
            sqnr_db=_decibels(signal[at], noise[at]),
            divergence=reached[at] / power if power else 0.0,
        )
        for at in signal
    ]
    return tuple(sorted(found, key=lambda layer: -layer.divergence)) if seen else ()


def _forward(
    graph: Graph,
    plan: QuantizationPlan,
    rules: TargetRules,
    activations: Mapping[str, Affine],
    batch: NDArray[np.float32],
    constants: Mapping[str, torch.Tensor],
) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor], torch.Tensor]:
    weighted = {w.node: w for w in plan.weighted}
    tensor = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
    stream = Stream(graph, tensor.requires_grad_(), constants=constants)
    other = Stream(graph, tensor, plan=plan, activations=activations, constants=constants)
    outputs, errors = {}, {}
    for at, node in enumerate(graph.nodes):
        if at not in weighted:
            stream.step(at)
            continue
        inputs = stream.inputs(at)
        output = apply(node, inputs)[0]
        with torch.no_grad():
            weights = inputs[1]
            assert weights is not None
            affine = for_weights(weights.numpy(), rules.weights, weighted[at].axis)
            other.values = stream.values
            rounded = torch.from_numpy(affine.dequantize(affine.quantize(weights.numpy())))
            errors[at] = apply(node, [other.inputs(at)[0], rounded, *inputs[2:]])[0] - output
            other.forget()
        outputs[at] = output
        stream.take(at, [output])
    return outputs, errors, stream.result()


def _decibels(signal: float, noise: float) -> float:
    """10 log10 of the ratio, held within 0 power and 200 dB."""
    return min(10.0 * math.log10(signal / noise), 200.0) if signal > 0.0 and noise > 0.0 else 200.0
