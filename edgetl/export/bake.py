"""Put what stands before and behind a network into its graph, for runtimes that know nothing of preprocessing.

Before: the model then takes pictures as a camera gives them, `images` (batch, S, S, 3) uint8 RGB, and normalises
inside. Behind: probabilities, or the K best classes, in place of logits. Works on any exported graph: float32,
half precision, INT8.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.export.graphs import copy_of, set_nodes
from edgetl.inputs.image import PreprocessSpec

PREFIX = "preprocess"
"""Names of baked nodes and constants start so."""


class Head(StrEnum):
    """What a model puts out.

    `logits` (batch, C) float32; `softmax`: `probabilities` (batch, C) float32; `top-k`: `scores` (batch, K) float32,
    best first, and `classes` (batch, K) int64.
    """

    LOGITS = "logits"
    SOFTMAX = "softmax"
    TOP_K = "top-k"


def bake_preprocess(model: onnx.ModelProto, spec: PreprocessSpec) -> onnx.ModelProto:
    """A copy that takes (batch, S, S, 3) uint8 RGB in place of (batch, 3, S, S) float32, which it makes itself.

    Pictures are of 8 bits: numbers of more become such before the model, by `spec.window`, as everywhere; the exported
    metadata has it. The arithmetic is `edgetl.inputs.spec.normalise`'s: one product and one sum per channel, in
    float32. The cast comes first, since TensorRT takes uint8 at a network's border only.

    Raises:
        ModelError: the model does not take (batch, 3, H, W) float32.
    """
    copy = copy_of(model)
    graph = copy.graph
    images = graph.input[0]
    kind = images.type.tensor_type
    dims = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
    if len(dims) != 4 or dims[1] != 3 or kind.elem_type != TensorProto.FLOAT:
        raise ModelError(
            f"{images.name} is {dims}, expected (batch, 3, H, W) float32 to bake preprocessing into."
        )
    batch, _, height, width = dims
    inner = f"{PREFIX}/normalised"
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == images.name:
                node.input[position] = inner
    means, stds = np.array(spec.mean, np.float64), np.array(spec.std, np.float64)
    constants = {"scale": 1.0 / (255.0 * stds), "shift": -means / stds}
    names = {name: f"{PREFIX}/{name}" for name in ("float", "planes", "scaled", *constants)}
    steps = [
        helper.make_node("Cast", [images.name], [names["float"]], f"{PREFIX}/Cast", to=TensorProto.FLOAT),
        helper.make_node(
            "Transpose", [names["float"]], [names["planes"]], f"{PREFIX}/Transpose", perm=[0, 3, 1, 2]
        ),
        helper.make_node("Mul", [names["planes"], names["scale"]], [names["scaled"]], f"{PREFIX}/Scale"),
        helper.make_node("Add", [names["scaled"], names["shift"]], [inner], f"{PREFIX}/Shift"),
    ]
    set_nodes(graph, [*steps, *graph.node])
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32).reshape(1, 3, 1, 1), names[name])
        for name, value in constants.items()
    )
    images.CopyFrom(helper.make_tensor_value_info(images.name, TensorProto.UINT8, [batch, height, width, 3]))
    return _checked(copy)


def bake_head(model: onnx.ModelProto, head: Head, *, top: int = 5) -> onnx.ModelProto:
    """A copy whose output is `head`'s; see `Head` for names and shapes.

    Args:
        model: puts out logits (batch, C).
        head: what it shall put out.
        top: K, for `Head.TOP_K`; at most C.

    Raises:
        ModelError: there are not so many classes.
    """
    copy = copy_of(model)
    graph = copy.graph
    logits = graph.output[0]
    batch, classes = (d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim)
    match head:
        case Head.LOGITS:
            return copy
        case Head.SOFTMAX:
            graph.node.append(_softmax(logits.name, "probabilities"))
            outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, classes])]
        case Head.TOP_K:
            if not 1 <= top <= classes:
                raise ModelError(f"top: got {top}, the model has {classes} classes.")
            graph.node.append(_softmax(logits.name, "head/probabilities"))
            graph.initializer.append(numpy_helper.from_array(np.array([top], np.int64), "head/k"))
            best = ["scores", "classes"]
            graph.node.append(helper.make_node("TopK", ["head/probabilities", "head/k"], best, "head/TopK"))
            kinds = (TensorProto.FLOAT, TensorProto.INT64)
            outputs = [
                helper.make_tensor_value_info(name, kind, [batch, top])
                for name, kind in zip(best, kinds, strict=True)
            ]
        case _:
            assert_never(head)
    del graph.output[:]
    graph.output.extend(outputs)
    return _checked(copy)


def _softmax(source: str, result: str) -> onnx.NodeProto:
    return helper.make_node("Softmax", [source], [result], "head/Softmax", axis=-1)


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    onnx.checker.check_model(model, full_check=True)
    return model
