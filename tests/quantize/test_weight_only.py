"""Weights in INT8, arithmetic in float32: the file, the error, and what ONNX Runtime makes of it when it loads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.config import Target
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.targets import rules_for
from edgetl.quantize.weight_only import store_int8
from tests.quantize import networks
from tests.quantize.networks import logits

node = helper.make_node


def stored(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = Graph(model)
    return store_int8(graph, make_plan(graph, rules_for(Target.CPU_X86)).weighted)


def optimised(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def layers(kind: str) -> onnx.ModelProto:
    """A convolution with two groups and a matrix product of each form, all large enough."""
    options = {"transB": 1} if kind == "Gemm, transposed" else {}
    shape = (8, 2048) if options else (2048, 8)
    return networks.graph(
        [
            node("Conv", ["images", "w"], ["a"], "conv", pads=[1, 1, 1, 1], group=2),
            node("Flatten", ["a"], ["flat"], "flatten"),
            node("MatMul" if kind == "MatMul" else "Gemm", ["flat", "v"], ["logits"], "head", **options),
        ],
        {"w": networks.weights(32, 2, 3, 3), "v": networks.weights(*shape)},
        channels=4,
        output=("batch", 8),
    )


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "Gemm, transposed"])
def test_every_weight_is_within_half_a_step_of_its_channel(kind: str, tmp_path: Path) -> None:
    model = layers(kind)
    made = stored(model)
    assert made.ByteSize() < 0.35 * model.ByteSize()
    kinds = {t.name: t.data_type for t in made.graph.initializer}
    assert {name for name, of in kinds.items() if of == TensorProto.INT8} == {"w_int8", "v_int8"}
    folded = {t.name: numpy_helper.to_array(t) for t in optimised(made, tmp_path).graph.initializer}
    original = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for name, channels in (("w", 0), ("v", 0 if kind == "Gemm, transposed" else 1)):
        own = original[name]
        others = tuple(a for a in range(own.ndim) if a != channels)
        step = np.abs(own).max(axis=others, keepdims=True) / 127
        error = np.abs(folded[name].reshape(own.shape) - own)
        assert error.max() > 0
        assert (error <= 0.5001 * step).all()


def test_the_engine_is_left_with_the_float_graph(tmp_path: Path) -> None:
    """What makes it as fast as float: nothing of the storing is left once ONNX Runtime has loaded the model."""
    model = networks.exported()
    plain, made = (optimised(m, tmp_path) for m in (model, stored(model)))
    assert Counter(n.op_type for n in made.graph.node) == Counter(n.op_type for n in plain.graph.node)
    assert not any(n.op_type in ("Cast", "DequantizeLinear") for n in made.graph.node)


def test_logits_stay_close_and_names_and_metadata_stay() -> None:
    model, images = networks.exported(), networks.images(8)
    made = stored(model)
    wanted, got = logits(model, [images]), logits(made, [images])
    assert 0 < ((got - wanted) ** 2).mean() < 1e-3 * wanted.var()
    assert made.metadata_props == model.metadata_props
    assert (made.graph.input, made.graph.output) == (model.graph.input, model.graph.output)


def test_small_and_shared_weights() -> None:
    shared = networks.graph(
        [
            node("Conv", ["images", "small"], ["a"], "first"),
            node("Conv", ["a", "w"], ["b"], "second"),
            node("Conv", ["b", "w"], ["logits"], "third"),
        ],
        {"small": networks.weights(16, 3, 1, 1), "w": networks.weights(16, 16, 1, 1)},
        output=("batch", 16, 8, 8),
    )
    made = stored(shared)
    assert [n.op_type for n in made.graph.node] == ["Cast", "Mul", "Conv", "Conv", "Conv"]
    assert "small" in {t.name for t in made.graph.initializer}
    images = networks.images(2, size=8)
    np.testing.assert_allclose(logits(made, [images]), logits(shared, [images]), atol=0.05)
