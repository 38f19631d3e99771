"""Does the exported graph say what the network says? Both see the same real images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.errors import MissingDependencyError, ModelError
from edgetl.export.graphs import import_onnxruntime
from edgetl.tasks.base import Detection, Outputs, Task, joined, widths

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far two sets of outputs are apart.

    Attributes:
        images: how many were compared.
        max_difference: largest absolute difference within an output, divided by that output's largest absolute value.
        same: share of images with the same answer, in 0..1.
    """

    images: int
    max_difference: float
    same: float


def compare(task: Task, reference: Outputs, found: Outputs) -> Parity:
    """Compare a task's outputs.

    Raises:
        ModelError: an output is missing, the shapes differ, there are no images, or a value is not finite.
    """
    differences, images = [], 0
    for name in (spec.name for spec in task.outputs):
        if name not in found:
            raise ModelError(f"The exported graph has no output {name!r}; it has {', '.join(found)}.")
        want, have = reference[name], found[name]
        if want.shape != have.shape or not len(want):
            raise ModelError(f"{name} of shapes {want.shape} and {have.shape} cannot be compared.")
        if not (np.isfinite(want).all() and np.isfinite(have).all()):
            raise ModelError(
                f"The network gives {name} that are NaN or infinite; its weights are not usable."
            )
        largest = max(float(np.abs(want).max()), float(np.finfo(np.float32).tiny))
        differences.append(float(np.abs(want - have).max()) / largest)
        images = len(want)
    same = task.right(task.decide(reference), task.decide(found))
    return Parity(images=images, max_difference=max(differences), same=float(same.mean()))


def check(
    model: nn.Module, onnx: bytes, batches: Iterable[Array], *, task: Task, max_difference: float
) -> Parity:
    """Run the network and its export on the same images and hold them to `max_difference`.

    The batches should not all be of one size, so that a batch baked into the graph is found.

    Args:
        model: in evaluation mode, on the CPU.
        onnx: the model file's content.
        batches: each (n, 3, S, S) float32.
        task: what they answer.
        max_difference: largest allowed difference of an output, relative to its largest value.

    Raises:
        ModelError: they differ by more, with the figures; or the graph does not run.
        MissingDependencyError: onnxruntime is absent.
    """
    run = _runner(onnx)
    expected, got, seen = [], [], []
    for images in batches:
        seen.append(images)
        with torch.inference_mode():
            expected.append(named_outputs(model(torch.from_numpy(images)).float(), task, images.shape[-1]))
        try:
            got.append(run(images))
        except Exception as error:
            raise ModelError(f"The exported graph fails on {len(images)} images: {error}") from error
    if not expected:
        raise ModelError("There are no images to compare the export with the network on.")
    parity = compare(task, joined(expected), joined(got))
    if parity.max_difference > max_difference:
        raise ModelError(
            f"The exported graph differs from the network: {parity.max_difference:.3g} of an output's largest value"
            f" on {parity.images} images, allowed {max_difference:.3g} (export.max_difference); the"
            f" answer agrees on {parity.same:.1%}{_first_layer(model, onnx, seen, max_difference)}."
        )
    return parity


def named_outputs(outputs: torch.Tensor, task: Task, size: int) -> dict[str, Array]:
    """A network's outputs as the task's, for images of side `size`."""
    if isinstance(task.spec, Detection):
        from edgetl.models.detector import decode

        parts: Iterable[torch.Tensor] = decode(outputs, size)
    else:
        parts = torch.split(outputs, list(widths(task).values()), dim=1)
    return {spec.name: part.numpy() for spec, part in zip(task.outputs, parts, strict=True)}


def _first_layer(model: nn.Module, content: bytes, batches: list[Array], limit: float) -> str:
    import onnx

    from edgetl.export.network_divergence import first_diverging_module

    found = first_diverging_module(model, onnx.load_from_string(content), batches[-1][:4], limit=limit)
    return f"; they part first in the layer {found.layer} ({found.operator})" if found else ""


class _Runner:
    def __init__(self, onnx: bytes) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

        self.outputs = [tensor.name for tensor in self.session.get_outputs()]

    def __call__(self, images: Array) -> Outputs:
        return dict(zip(self.outputs, self.session.run(self.outputs, {self.input: images}), strict=True))


def _runner(onnx: bytes) -> _Runner:
    try:
        return _Runner(onnx)
    except MissingDependencyError:
        raise
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load the exported graph: {error}") from error
