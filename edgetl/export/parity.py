"""Does the exported graph say what the network says? Both see the same real images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.errors import MissingDependencyError, ModelError
from edgetl.packages import missing
from edgetl.quiet import quietly

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far two sets of logits are apart.

    Attributes:
        images: how many were compared.
        max_difference: largest absolute difference of a logit, divided by the largest absolute logit.
        same: share of images with the same best class, in 0..1.
    """

    images: int
    max_difference: float
    same: float


def compare(reference: Array, logits: Array) -> Parity:
    """Compare logits, both (N, C).

    Raises:
        ModelError: the shapes differ, there are no images, or a logit is not finite.
    """
    if reference.shape != logits.shape or reference.ndim != 2 or not len(reference):
        raise ModelError(f"Logits of shapes {reference.shape} and {logits.shape} cannot be compared.")
    if not (np.isfinite(reference).all() and np.isfinite(logits).all()):
        raise ModelError("The network gives logits that are NaN or infinite; its weights are not usable.")
    largest = max(float(np.abs(reference).max()), float(np.finfo(np.float32).tiny))
    return Parity(
        images=len(reference),
        max_difference=float(np.abs(reference - logits).max()) / largest,
        same=float((reference.argmax(1) == logits.argmax(1)).mean()),
    )


def check(model: nn.Module, onnx: bytes, batches: Iterable[Array], *, max_difference: float) -> Parity:
    """Run the network and its export on the same images and hold them to `max_difference`.

    The batches should not all be of one size, so that a batch baked into the graph is found.

    Args:
        model: in evaluation mode, on the CPU.
        onnx: the model file's content.
        batches: each (n, 3, S, S) float32.
        max_difference: largest allowed logit difference, relative to the largest logit.

    Raises:
        ModelError: they differ by more, with the figures; or the graph does not run.
        MissingDependencyError: onnxruntime is absent.
    """
    run = _runner(onnx)
    expected, got, seen = [], [], []
    for images in batches:
        seen.append(images)
        with torch.inference_mode():
            expected.append(np.asarray(model(torch.from_numpy(images)).float().numpy(), np.float32))
        try:
            got.append(run(images))
        except Exception as error:
            raise ModelError(f"The exported graph fails on {len(images)} images: {error}") from error
    if not expected:
        raise ModelError("There are no images to compare the export with the network on.")
    parity = compare(np.concatenate(expected), np.concatenate(got))
    if parity.max_difference > max_difference:
        raise ModelError(
            f"The exported graph differs from the network: {parity.max_difference:.3g} of the largest logit"
            f" on {parity.images} images, allowed {max_difference:.3g} (export.max_difference); the best"
            f" class agrees on {parity.same:.1%}{_first_layer(model, onnx, seen, max_difference)}."
        )
    return parity


def _first_layer(model: nn.Module, content: bytes, batches: list[Array], limit: float) -> str:
    import onnx

    from edgetl.export.network_divergence import first_diverging_module

    found = first_diverging_module(model, onnx.load_from_string(content), batches[-1][:4], limit=limit)
    return f"; they part first in the layer {found.layer} ({found.operator})" if found else ""


class _Runner:
    def __init__(self, onnx: bytes) -> None:
        try:
            with quietly():
                import onnxruntime as ort
        except ImportError as error:
            raise missing("onnxruntime") from error
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def __call__(self, images: Array) -> Array:
        (logits,) = self.session.run(None, {self.input: images})
        return np.asarray(logits, np.float32)


def _runner(onnx: bytes) -> _Runner:
    try:
        return _Runner(onnx)
    except MissingDependencyError:
        raise
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load the exported graph: {error}") from error
