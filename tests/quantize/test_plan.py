from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from edgetl.config import Target
from edgetl.quantize.affine import from_range
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import QuantizationPlan, make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.targets import rules_for
from tests.quantize import networks

node = helper.make_node


def _plan(model: onnx.ModelProto, target: Target = Target.CPU_X86) -> tuple[Graph, QuantizationPlan]:
    graph = Graph(model)
    return graph, make_plan(graph, rules_for(target))


def _names(graph: Graph, positions: frozenset[int]) -> set[str]:
    return {graph.label(at) for at in positions}


def _residual() -> onnx.ModelProto:
    return networks.graph(
        [
            node("Conv", ["images", "w1"], ["a"], "first", pads=[1, 1, 1, 1]),
            node("Relu", ["a"], ["b"], "relu"),
            node("Conv", ["b", "w2"], ["c"], "second", pads=[1, 1, 1, 1]),
            node("Add", ["c", "b"], ["d"], "add"),
            node("Relu", ["d"], ["e"], "last_relu"),
            node("Conv", ["e", "w3"], ["logits"], "third"),
        ],
        {
            "w1": networks.weights(4, 3, 3, 3),
            "w2": networks.weights(4, 4, 3, 3),
            "w3": networks.weights(4, 4, 1, 1),
        },
    )


def test_on_cpu_a_residual_block_stays_on_integers() -> None:
    graph, plan = _plan(_residual())
    assert [graph.label(w.node) for w in plan.weighted] == ["first", "second", "third"]
    assert _names(graph, plan.integer) == {"add"}
    assert _names(graph, plan.absorbed) == {"relu", "last_relu"}
    assert plan.observed == ("images", "b", "c", "e")
    assert plan.left_in_float == ()


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.TENSORRT_RTX])
def test_for_tensorrt_the_shortcut_alone_is_quantized(target: Target) -> None:
    graph, plan = _plan(_residual(), target)
    assert plan.observed == ("images", "b", "e")
    assert (3, 1) in plan.reads
    assert (3, 0) not in plan.reads
    assert not plan.integer
    assert not plan.absorbed
    assert graph.label(3) == "add"


def _chain(*inner: onnx.NodeProto, constants: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    return networks.graph(
        [
            node("Conv", ["images", "w1"], ["a"], "first"),
            *inner,
            node("Conv", ["z", "w2"], ["logits"], "last"),
        ],
        {"w1": networks.weights(4, 3, 1, 1), "w2": networks.weights(4, 4, 1, 1), **(constants or {})},
        output=("batch", 4, "height", "width"),
    )


def test_operators_without_an_integer_form_are_listed() -> None:
    _, plan = _plan(_chain(node("Softplus", ["a"], ["z"], "soft")))
    assert plan.left_in_float == ("soft (Softplus): no INT8 form on cpu-x86",)
    assert plan.observed == ("images", "a", "z")


def test_the_range_of_a_hard_sigmoid_is_known() -> None:
    graph, plan = _plan(_chain(node("HardSigmoid", ["a"], ["z"], "gate", alpha=1 / 6)))
    assert _names(graph, plan.gates) == {"gate"}
    assert plan.known == {"z": (0.0, 1.0)}
    assert plan.observed == ("images", "a")
    _, plan = _plan(_chain(node("HardSigmoid", ["a"], ["z"], "gate")), Target.TENSORRT)
    assert not plan.gates
    assert not plan.known


def test_a_relu_behind_a_gate_is_kept() -> None:
    inner = [node("HardSwish", ["a"], ["b"], "swish"), node("Relu", ["b"], ["z"], "relu")]
    graph, plan = _plan(_chain(*inner))
    assert _names(graph, plan.gates) == {"swish"}
    assert not plan.absorbed


def test_moves_share_their_inputs_range() -> None:
    _, plan = _plan(_chain(node("MaxPool", ["a"], ["z"], "pool", kernel_shape=[2, 2])))
    assert plan.ranges["z"] == "a"
    assert plan.observed == ("images", "a")


def test_a_clip_that_starts_below_zero_is_kept() -> None:
    clip = node("Clip", ["a", "low", "high"], ["z"], "clip")
    constants = {"low": np.float32(-1.0), "high": np.float32(1.0)}
    graph, plan = _plan(_chain(clip, constants=constants))
    assert not plan.absorbed
    graph, plan = _plan(_chain(clip, constants={**constants, "low": np.float32(0.0)}))
    assert _names(graph, plan.absorbed) == {"clip"}


def test_a_relu_beside_another_reader_is_kept() -> None:
    inner = [node("Relu", ["a"], ["r"], "relu"), node("Add", ["a", "r"], ["z"], "add")]
    _, plan = _plan(_chain(*inner))
    assert not plan.absorbed
    assert {"a"} <= set(plan.observed)


def test_matrix_products_of_activations_stay_in_float() -> None:
    _, plan = _plan(_chain(node("MatMul", ["a", "a"], ["z"], "attention")))
    assert plan.left_in_float == ("attention (MatMul): its second factor is no constant",)


def test_additions_of_constants_and_floats_stay_in_float() -> None:
    inner = [node("Add", ["a", "k"], ["b"], "shift"), node("Add", ["a", "b"], ["z"], "add")]
    _, plan = _plan(_chain(*inner, constants={"k": np.ones(1, np.float32)}))
    assert plan.left_in_float == ("shift (Add): an input is constant", "add (Add): an input is in float")


def test_nodes_kept_by_name() -> None:
    graph = Graph(_residual())
    plan = make_plan(graph, rules_for(Target.CPU_X86), keep=frozenset({"second"}))
    assert [graph.label(w.node) for w in plan.weighted] == ["first", "third"]
    assert plan.left_in_float[0] == "second (Conv): kept in float by name"


def _quantized(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    graph, plan = _plan(model, target)
    rules = rules_for(target)
    ranges = dict.fromkeys(plan.observed, (-1.0, 3.0)) | plan.known
    activations = {name: from_range(*span, rules.activations) for name, span in ranges.items()}
    return insert(graph, plan, rules, activations)


def test_biases_are_int32_on_cpu_and_float_for_tensorrt() -> None:
    model = networks.exported()
    types = {}
    for target in (Target.CPU_X86, Target.TENSORRT):
        tensors = _quantized(model, target).graph.initializer
        types[target] = {t.data_type for t in tensors if ".bias" in t.name or t.name.endswith("bias")}
    assert types[Target.CPU_X86] == {onnx.TensorProto.INT32, onnx.TensorProto.FLOAT}  # integers and scales
    assert types[Target.TENSORRT] == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("target", list(Target))
def test_weights_are_int8_with_a_scale_a_channel(target: Target) -> None:
    model = networks.exported()
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in _quantized(model, target).graph.initializer}
    integers = {n: t for n, t in tensors.items() if n.endswith(".weight_quantized")}
    assert len(integers) == 7
    for name, values in integers.items():
        scale = tensors[name.replace("_quantized", "_scale")]
        assert values.dtype == np.int8
        assert np.abs(values).max() == (64 if target in (Target.CPU_X86, Target.OPENVINO) else 127)
        assert scale.shape == (values.shape[0],)
        assert (scale > 0).all()
    floats = [t for t in model.graph.initializer if len(t.dims) > 1]
    assert not {t.name for t in floats} & set(tensors)


def test_a_bias_too_large_for_its_weights_makes_their_scale_coarser() -> None:
    tiny_weights = np.full((4, 3, 1, 1), 1e-7, np.float32)
    bias = np.array([1e4, 0.0, 1.0, -1e4], np.float32)
    model = networks.graph(
        [node("Conv", ["images", "w", "b"], ["a"], "conv"), node("Conv", ["a", "v"], ["logits"], "next")],
        {"w": tiny_weights, "b": bias, "v": networks.weights(4, 4, 1, 1)},
    )
    tensors = {
        t.name: onnx.numpy_helper.to_array(t) for t in _quantized(model, Target.CPU_X86).graph.initializer
    }
    restored = tensors["conv.bias_quantized"].astype(np.float64) * tensors["conv.bias_scale"]
    np.testing.assert_allclose(restored, bias, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("target", list(Target))
def test_the_file_is_a_quarter_of_the_float_one(target: Target) -> None:
    model = networks.graph(
        [node("Conv", ["images", "w"], ["a"], "conv"), node("Conv", ["a", "v"], ["logits"], "next")],
        {"w": networks.weights(512, 3, 1, 1), "v": networks.weights(4, 512, 8, 8)},
        output=("batch", 4, 1, 1),
    )
    assert _quantized(model, target).ByteSize() < 0.3 * model.ByteSize()


def test_the_models_metadata_is_kept() -> None:
    model = networks.exported()
    quantized = _quantized(model, Target.CPU_X86)
    assert {p.key for p in quantized.metadata_props} == {"edgetl.labels", "edgetl.preprocess"}
    assert [v.name for v in (*quantized.graph.input, *quantized.graph.output)] == ["images", "logits"]
