"""Float ONNX models to quantize: exported once a session, or written by hand."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgetl.export.onnx import to_onnx
from edgetl.quantize.score import outputs
from edgetl.tasks.base import Classification
from tests.export.networks import LABELS, SIZE, SPEC, tiny

Array = NDArray[np.float32]


@functools.cache
def exported() -> onnx.ModelProto:
    """The tiny network: 6 convolutions and a Gemm."""
    return to_onnx(tiny(), task=Classification(labels=LABELS), spec=SPEC, opset=18)


def images(count: int, *, seed: int = 0, size: int = SIZE) -> Array:
    """(count, 3, size, size) float32."""
    return np.random.default_rng(seed).normal(size=(count, 3, size, size)).astype(np.float32)


def logits(model: onnx.ModelProto | Path, batches: Iterable[Array], *, target: str = "any") -> Array:
    """The one output as the target would give it."""
    (found,) = outputs(model, batches, target=target).values()
    return found


def graph(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Any],
    *,
    channels: int = 3,
    output: Sequence[int | str] = ("batch", 4, 8, 8),
    opset: int = 18,
) -> onnx.ModelProto:
    """A model from `images` (batch, channels, 8, 8) to `logits`."""
    made = helper.make_graph(
        list(nodes),
        "hand",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", channels, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, list(output))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def weights(*shape: int, seed: int = 0) -> Array:
    """Random weights."""
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def ending_at(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """The model with one of its inner tensors, float32 (batch, C, H, W), as its output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(
        helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["batch", "c", "h", "w"])
    )
    return copy
