from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgetl.config import Target
from edgetl.export.graphs import float_results
from edgetl.quantize.compact import compact
from tests.quantize.networks import logits

from . import networks
from .test_plan import _quantized, node


def _constants(model: onnx.ModelProto) -> list[bytes]:
    found = []
    for tensor in model.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.ClearField("name")
        found.append(copy.SerializeToString(deterministic=True))
    return found


@pytest.mark.parametrize("target", [Target.CPU_X86, Target.TENSORRT])
def test_fewer_bytes_compute_the_same(target: Target) -> None:
    model = _quantized(networks.exported(), target)
    small, images = compact(model), [networks.images(4, seed=1)]
    onnx.checker.check_model(small, full_check=True)
    assert small.ByteSize() < 0.8 * model.ByteSize()
    assert np.array_equal(logits(model, images), logits(small, images))
    assert len(set(_constants(small))) == len(_constants(small)) < len(_constants(model))


def test_layers_and_activations_keep_their_names() -> None:
    model = _quantized(networks.exported(), Target.CPU_X86)
    small = compact(model)
    layers = [node.name for node in networks.exported().graph.node if node.op_type == "Conv"]
    assert [node.name for node in small.graph.node if node.op_type == "Conv"] == layers
    assert {node.name for node in small.graph.node if node.op_type.lower().endswith("quantizelinear")} == {""}
    constants = {
        name
        for name in float_results(model)
        if any(part in name for part in (".weight_", ".bias_", "_beta_"))
    }
    assert set(float_results(model)) - constants <= set(float_results(small))
    assert [value.name for value in small.graph.input] == [value.name for value in model.graph.input]
    assert [value.name for value in small.graph.output] == [value.name for value in model.graph.output]
    assert list(small.metadata_props) == list(model.metadata_props)


def test_a_short_name_is_nobody_elses() -> None:
    model = networks.graph(
        [node("Conv", ["images", "w"], ["0"], "conv"), node("Conv", ["0", "v"], ["logits"], "next")],
        {"w": networks.weights(4, 3, 1, 1), "v": networks.weights(4, 4, 1, 1)},
        output=("batch", 4, 8, 8),
    )
    small = compact(model)
    onnx.checker.check_model(small, full_check=True)
    assert small.graph.node[0].output[0] == "0"
    assert sorted(tensor.name for tensor in small.graph.initializer) == ["1", "2"]


def test_a_graph_with_graphs_inside_stays_as_it_is() -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["a_constant"], ["y"])],
        "inner",
        [],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    chosen = helper.make_node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner)
    outer = helper.make_graph(
        [chosen],
        "outer",
        [helper.make_tensor_value_info("yes", onnx.TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "a_constant")],
    )
    model = helper.make_model(outer)
    assert compact(model) == model
