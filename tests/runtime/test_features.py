from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.runtime.features import MAP, pooled_head
from edgetl.runtime.wire import with_outputs
from tests.onnx_models import classifier

W = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
POOL = [
    helper.make_node("GlobalAveragePool", ["images"], ["g"]),
    helper.make_node("Flatten", ["g"], ["v"]),
]


def network(
    nodes: list[NodeProto], constants: Mapping[str, Any], outputs: tuple[str, ...] = ("logits",)
) -> bytes:
    """From `images` (N, 8, 4, 4) on."""
    graph = helper.make_graph(
        [*POOL, *nodes],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 8, 4, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


LAYERS: dict[str, tuple[list[NodeProto], dict[str, Any]]] = {
    "gemm": (
        [node("Gemm", "v w b", "logits", transB=1, alpha=0.5)],
        {"w": W * 2, "b": np.ones(5, np.float32)},
    ),
    "product": ([node("MatMul", "v w", "m"), node("Add", "b m", "logits")], {"w": W.T, "b": W[:, 0]}),
    "convolution": (
        [node("Conv", "g w", "c"), node("Squeeze", "c axes", "logits")],
        {"w": W[:, :, None, None], "axes": np.array([2, 3])},
    ),
    "two layers": (
        [node("MatMul", "v one", "m"), node("Gemm", "m two", "logits")],
        {"one": np.diag(np.full(8, 2, np.float32)), "two": W.T / 2},
    ),
    "half weights": (
        [node("Cast", "w", "wide", to=TensorProto.FLOAT), node("Gemm", "v wide", "logits")],
        {"w": W.T.astype(np.float16)},
    ),
    "turned": ([node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "v t", "logits")], {"w": W}),
    "integers": (
        [node("DequantizeLinear", "w s z", "wide", axis=0), node("Gemm", "v wide", "logits", transB=1)],
        {
            "w": np.rint(W * 20).astype(np.int8),
            "s": np.full(5, 0.05, np.float32),
            "z": np.zeros(5, np.int8),
        },
    ),
    "scaled integers": (
        [
            node("Cast", "w", "wide", to=1),
            node("Mul", "wide s", "f"),
            node("Gemm", "v f", "logits", transB=1),
        ],
        {"w": np.rint(W * 20).astype(np.int8), "s": np.full((5, 1), 0.05, np.float32)},
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_the_weights_are_those_that_answer(layer: str) -> None:
    content = network(*LAYERS[layer])
    head = pooled_head(content, ["logits"])
    assert head.map == "images"
    images = np.random.default_rng(1).normal(size=(3, 8, 4, 4)).astype(np.float32)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    first, second = (session.run(None, {"images": x})[0] for x in (images, np.zeros_like(images)))
    # Less what the network gives for zeros: the bias.
    np.testing.assert_allclose(images.mean((2, 3)) @ head.weights["logits"].T, first - second, atol=1e-5)


def test_several_outputs_have_their_own_rows() -> None:
    nodes = [node("Gemm", "v w", "all"), node("Split", "all sizes", "first second", axis=1)]
    head = pooled_head(
        network(nodes, {"w": W.T, "sizes": np.array([2, 3])}, ("first", "second")), ["first", "second"]
    )
    np.testing.assert_array_equal(head.weights["first"], W[:2])
    np.testing.assert_array_equal(head.weights["second"], W[2:])
    nodes = [
        node("Gemm", "v a", "x"),
        node("Gemm", "v b", "y"),
        node("Concat", "x y", "logits", axis=1),
    ]
    head = pooled_head(network(nodes, {"a": W[:1].T, "b": W[1:].T}), ["logits"])
    np.testing.assert_array_equal(head.weights["logits"], W)


REFUSED: dict[str, tuple[list[NodeProto], dict[str, Any], str]] = {
    "hidden layer": (
        [node("Gemm", "v a", "h"), node("HardSwish", "h", "s"), node("Gemm", "s b", "logits")],
        {"a": W.T, "b": W[:, :5]},
        "HardSwish stands between its pooling and its answer",
    ),
    "adapter": (
        [node("Relu", "v", "r"), node("Add", "v r", "a"), node("Gemm", "a w", "logits")],
        {"w": W.T},
        "several paths are added up between its pooling and its answer",
    ),
    "no layer": ([node("Identity", "v", "logits")], {}, "no linear layer follows its pooling"),
    "no pooling": (
        [node("Flatten", "images", "f"), node("Gemm", "f w", "logits")],
        {"w": np.ones((128, 2), np.float32)},
        "it pools no feature map",
    ),
    "made weights": (
        [node("Abs", "w", "a"), node("Gemm", "v a", "logits")],
        {"w": W.T},
        "the weights of its last layer are made by Abs",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_without_such_an_end_is_refused_with_what_stands_in_the_way(case: str) -> None:
    nodes, constants, reason = REFUSED[case]
    with pytest.raises(ModelError, match=f"gives no class activation map: {reason}. A map needs an answer"):
        pooled_head(network(nodes, constants), ["logits"])


def test_the_shown_map_is_what_is_pooled() -> None:
    content = classifier(zero_point=0)
    head = pooled_head(content, ["logits"])
    session = ort.InferenceSession(with_outputs(content, head.shown), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    logits, features = session.run(["logits", MAP], {"images": images})
    np.testing.assert_allclose(features.mean((2, 3)) @ head.weights["logits"].T, logits, atol=1e-5)
