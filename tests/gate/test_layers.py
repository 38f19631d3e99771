from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.gate.layers import layer_bits
from tests.onnx_models import classifier


def _model(nodes: list, weights: dict[str, np.ndarray], kind: int = TensorProto.FLOAT) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 4])],
        [helper.make_tensor_value_info("y", kind, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()


def test_float_layers() -> None:
    assert layer_bits(classifier()) == {"32": 2}
    half = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((4, 4), np.float16)}, 10)
    assert layer_bits(half) == {"16": 1}


def test_a_layer_between_quantized_operands_is_of_8_bits() -> None:
    # The convolution is quantized, the matrix product behind it is not.
    assert layer_bits(classifier(zero_point=0)) == {"8": 1, "32": 1}


def test_weights_alone_in_8_bits_leave_the_arithmetic_float() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("Transpose", ["wd"], ["wt"]),
        helper.make_node("MatMul", ["x", "wt"], ["y"]),
    ]
    weights = {"w": np.ones((4, 4), np.int8), "s": np.float32(1), "z": np.int8(0)}
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    assert layer_bits(_model(nodes, arrays)) == {"32": 1}
    nodes.insert(0, helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]))
    nodes.insert(1, helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]))
    nodes[-1] = helper.make_node("MatMul", ["xd", "wt"], ["y"])
    assert layer_bits(_model(nodes, arrays)) == {"8": 1}


def test_integer_operators_are_of_8_bits() -> None:
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    assert layer_bits(_model([node], {"w": np.ones((4, 4), np.int8)})) == {"8": 1}


def test_it_reads_what_the_library_wrote(tmp_path) -> None:
    content = classifier(zero_point=0)
    nodes = onnx.load_from_string(content).graph.node
    layers = sum(node.op_type in ("Conv", "MatMul") for node in nodes)
    assert sum(layer_bits(content).values()) == layers == 2


@pytest.mark.parametrize("content", [b"", b"not a model", b"\xff" * 40, classifier()[:200]])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match="is not an ONNX file"):
        layer_bits(content)
