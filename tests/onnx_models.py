"""Tiny ONNX classifiers for tests of the device side: convolution, ReLU, pooling, linear."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIZE = 32


def classifier(
    *,
    classes: int = 3,
    size: int = SIZE,
    batch: int | str = "batch",
    seed: int = 0,
    zero_point: int | None = None,
    names: tuple[str, str] = ("images", "logits"),
) -> bytes:
    """A model's bytes; with a zero point, its input and weights are quantized to INT8 by Q/DQ nodes."""
    generator = np.random.default_rng(seed)
    weights: dict[str, Any] = {
        "w": generator.normal(size=(8, 3, 3, 3)).astype(np.float32) * 0.2,
        "f": generator.normal(size=(8, classes)).astype(np.float32),
    }
    nodes: list[NodeProto] = []
    image, kernel = names[0], "w"
    if zero_point is not None:
        weights |= {"s": np.float32(0.02), "z": np.int8(zero_point), "ws": np.float32(0.01), "wz": np.int8(0)}
        nodes += [*_qdq(names[0], "s", "z"), *_qdq("w", "ws", "wz")]
        image, kernel = f"{names[0]}_dq", "w_dq"
    nodes += [
        helper.make_node("Conv", [image, kernel], ["c"], strides=[2, 2], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["v"]),
        helper.make_node("MatMul", ["v", "f"], [names[1]]),
    ]
    return _model(nodes, weights, names, (batch, 3, size, size), (batch, classes)).SerializeToString()


def colours(size: int, *, hidden: bool = False) -> bytes:
    """A model whose three logits are how much redder, greener and bluer than grey a picture is, on places of 4 x 4
    pixels; with `hidden`, a ReLU stands between pooling and logits."""
    weights: dict[str, Any] = {
        "w": np.kron(
            (1.5 * np.eye(3, dtype=np.float32) - 0.5)[:, :, None, None], np.ones((1, 1, 4, 4), np.float32)
        ),
        "f": 4 * np.eye(3, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["v"]),
        *([helper.make_node("Relu", ["v"], ["h"])] if hidden else []),
        helper.make_node("MatMul", ["h" if hidden else "v", "f"], ["logits"]),
    ]
    return _model(
        nodes, weights, ("images", "logits"), ("batch", 3, size, size), ("batch", 3)
    ).SerializeToString()


def deep_classifier(depth: int, *, extra: int = 0, size: int = 112) -> bytes:
    """A model of `depth` 3x3 convolutions and, before its logits, `extra` small ones."""
    generator = np.random.default_rng(0)
    weights = {
        "stem": generator.normal(0, 0.2, (32, 3, 3, 3)).astype(np.float32),
        "head": generator.normal(0, 0.1, (32, 10)).astype(np.float32),
    }
    nodes = [helper.make_node("Conv", ["images", "stem"], ["x0"], strides=[4, 4], pads=[1, 1, 1, 1])]
    for at in range(depth):
        weights[f"w{at}"] = generator.normal(0, 0.08, (32, 32, 3, 3)).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [f"x{at}", f"w{at}"], [f"c{at}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{at}"], [f"x{at + 1}"]),
        ]
    nodes.append(helper.make_node("AveragePool", [f"x{depth}"], ["e0"], kernel_shape=[4, 4], strides=[4, 4]))
    for at in range(extra):
        weights[f"v{at}"] = generator.normal(0, 0.25, (32, 32, 1, 1)).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [f"e{at}", f"v{at}"], [f"d{at}"]),
            helper.make_node("Relu", [f"d{at}"], [f"e{at + 1}"]),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", [f"e{extra}"], ["g"]),
        helper.make_node("Flatten", ["g"], ["v"]),
        helper.make_node("MatMul", ["v", "head"], ["logits"]),
    ]
    model = _model(nodes, weights, ("images", "logits"), (1, 3, size, size), (1, 10))
    return model.SerializeToString()


def _qdq(name: str, scale: str, zero: str) -> list[NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_q"], name=f"{name}_quantize"),
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, zero], [f"{name}_dq"]),
    ]


def _model(
    nodes: list[NodeProto],
    weights: dict[str, NDArray[np.float32]],
    names: tuple[str, str],
    inputs: tuple[int | str, ...],
    outputs: tuple[int | str, ...],
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, outputs)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
