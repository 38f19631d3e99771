"""The first layer of a torch network whose ONNX form computes something else: the exporter's own faults.

The tracing exporter writes down what one image made the network do. A branch that depends on the image, or a number
that was computed from it, is frozen, and the graph is right for that image alone.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.export.divergence import relative_error
from edgetl.export.graphs import Probe, float_results
from edgetl.models.fusing import fused
from edgetl.records.parity import Divergence


def first_diverging_module(
    model: nn.Module, exported: onnx.ModelProto, images: NDArray[np.float32], *, limit: float
) -> Divergence | None:
    """Compare modules with the nodes that were traced from them, by the scopes in the nodes' names.

    Convolutions are left out, since batch norms are folded into them; what follows them is compared.

    Args:
        model: in evaluation mode, on the CPU.
        exported: its export by the tracing exporter.
        images: (N, 3, S, S) on which the two differ.
        limit: the relative error of a module's output that is still fine.

    Returns:
        The first module above `limit`; None where none is, or names do not match.
    """
    model = fused(model, images.shape[-1])
    last = _last_results(exported)
    scopes = {name: scope for name, scope in _scopes(model).items() if scope in last}
    if not scopes:
        return None
    probe = Probe(exported, sorted({last[scope] for scope in scopes.values()}))
    traced = dict(zip(probe.tensors, probe.run(images), strict=True))
    worst = 0.0
    for name, output in _outputs(model, images, scopes):
        tensor = last[scopes[name]]
        if output.shape != traced[tensor].shape:
            continue
        error = relative_error(output, traced[tensor])
        if not error <= limit:
            kind = type(dict(model.named_modules())[name]).__name__
            finite = bool(np.isfinite(traced[tensor]).all())
            return Divergence(
                layer=name,
                operator=kind,
                tensor=tensor,
                error=error,
                error_before=worst,
                abrupt=True,
                finite=finite,
            )
        worst = max(worst, error)
    return None


def _scopes(model: nn.Module) -> dict[str, str]:
    """Module names to the scopes that the tracing exporter writes: `/blocks/blocks.0/conv` for `blocks.0.conv`."""
    found: dict[str, str] = {}

    def visit(module: nn.Module, name: str, scope: str, label: str) -> None:
        for child_name, child in module.named_children():
            own = f"{label}.{child_name}" if child_name.isdigit() and label else child_name
            full = f"{name}.{child_name}" if name else child_name
            if not isinstance(child, nn.Conv2d):
                found[full] = f"{scope}/{own}"
            visit(child, full, f"{scope}/{own}", own)

    visit(model, "", "", "")
    return found


def _last_results(exported: onnx.ModelProto) -> dict[str, str]:
    """For every scope, the float tensor that its last node makes."""
    floats, found = float_results(exported), {}
    for node in exported.graph.node:
        parts = node.name.split("/")[1:-1]
        for depth in range(1, len(parts) + 1):
            if node.output[0] in floats:
                found["/" + "/".join(parts[:depth])] = node.output[0]
    return found


def _outputs(
    model: nn.Module, images: NDArray[np.float32], names: dict[str, str]
) -> list[tuple[str, NDArray[np.float32]]]:
    """The modules' outputs, in the order in which they are done; of one that is called twice, the last."""
    outputs: dict[str, NDArray[np.float32]] = {}
    handles = []
    for name, module in model.named_modules():
        if name in names:

            def keep(_module: nn.Module, _inputs: object, output: object, name: str = name) -> None:
                if isinstance(output, torch.Tensor) and output.is_floating_point():
                    outputs.pop(name, None)
                    outputs[name] = output.detach().float().numpy().copy()

            handles.append(module.register_forward_hook(keep))
    try:
        with torch.inference_mode():
            model(torch.from_numpy(images))
    finally:
        for handle in handles:
            handle.remove()
    return list(outputs.items())
