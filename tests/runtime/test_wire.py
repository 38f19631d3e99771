from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.runtime.wire import read_graph, with_outputs, with_property
from tests.onnx_models import classifier

DTYPES = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
    TensorProto.INT8: np.int8,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
}


def model_with(*tensors: onnx.TensorProto, nodes: list[onnx.NodeProto] | None = None) -> bytes:
    graph = helper.make_graph(nodes or [], "g", [], [], list(tensors))
    return helper.make_model(graph).SerializeToString()


def test_nodes_outputs_and_constants_are_those_that_onnx_reads() -> None:
    content = classifier(zero_point=3)
    expected, found = onnx.load_from_string(content).graph, read_graph(content)
    assert found.outputs == ("logits",)
    assert set(found.makers) == {name for node in expected.node for name in node.output}
    for node in expected.node:
        own = found.makers[node.output[0]]
        assert (own.kind, own.inputs, own.outputs) == (node.op_type, tuple(node.input), tuple(node.output))
    assert found.makers["c"].attributes == {"strides": [2, 2]}
    for tensor in expected.initializer:
        np.testing.assert_array_equal(found.constant(tensor.name), numpy_helper.to_array(tensor))
    assert found.constant("images") is None


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", DTYPES)
def test_numbers_of_every_kind_are_read(kind: int, raw: bool) -> None:
    values = np.array([[-3, 0, 1], [2, 100, -128]]).astype(DTYPES[kind])
    content: Any = values.tobytes() if raw else values.reshape(-1).tolist()
    tensor = helper.make_tensor("t", kind, values.shape, content, raw=raw)
    found = read_graph(model_with(tensor)).constant("t")
    assert found is not None
    np.testing.assert_array_equal(found, numpy_helper.to_array(tensor))
    assert found.dtype == values.dtype


def test_bfloat16_is_widened_and_a_constant_node_is_constant() -> None:
    tensor = helper.make_tensor("t", TensorProto.BFLOAT16, [2], [1.5, -2.0])
    node = helper.make_node("Constant", [], ["n"], value=numpy_helper.from_array(np.arange(3.0), "v"))
    graph = read_graph(model_with(tensor, nodes=[node]))
    np.testing.assert_array_equal(graph.constant("t"), np.array([1.5, -2.0], np.float32))
    np.testing.assert_array_equal(graph.constant("n"), np.arange(3.0))


def test_numbers_that_are_not_read_are_named() -> None:
    graph = read_graph(model_with(helper.make_tensor("t", TensorProto.FLOAT8E4M3FN, [1], [1.0])))
    with pytest.raises(
        ModelError, match=r"The tensor t holds numbers of ONNX's type 17, which are not read here"
    ):
        graph.constant("t")


@pytest.mark.parametrize("content", [b"\x3a\xff\x01abc", b"\x3b", b"PK\x03\x04", classifier()[:-5]])
def test_what_is_no_onnx_file_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match="no ONNX file"):
        read_graph(content)


def test_a_further_output_stands_behind_the_others_and_changes_nothing_of_them() -> None:
    content = classifier()
    longer = with_outputs(content, {"features/map": "r"})
    assert longer[: len(content)] == content
    assert len(longer) - len(content) < 100
    read = onnx.load_from_string(longer)
    onnx.checker.check_model(read)
    assert [value.name for value in read.graph.output] == ["logits", "features/map"]
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    plain, shown = (ort.InferenceSession(c, providers=["CPUExecutionProvider"]) for c in (content, longer))
    logits, features = shown.run(None, {"images": images})
    np.testing.assert_array_equal(logits, plain.run(None, {"images": images})[0])
    assert (features.shape, features.dtype) == ((2, 8, 15, 15), np.float32)


def test_a_tensor_in_half_precision_is_shown_in_float32() -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["half"], ["r"]),
        helper.make_node("Cast", ["r"], ["logits"], to=TensorProto.FLOAT),
    ]
    images, logits = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("images", "logits")
    )
    model = helper.make_model(
        helper.make_graph(nodes, "g", [images], [logits]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    session = ort.InferenceSession(
        with_outputs(model.SerializeToString(), {"more": "r"}), providers=["CPUExecutionProvider"]
    )
    found = session.run(["more"], {"images": np.array([[-1, 0, 1, 2]], np.float32)})[0]
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0, 1, 2]]


def test_a_property_gets_another_value_and_nothing_else_changes() -> None:
    model = onnx.load_from_string(classifier())
    onnx.helper.set_model_props(model, {"labels": "[]", "other": "x"})
    found = onnx.load_from_string(with_property(model.SerializeToString(), "labels", '["ä"]'))
    assert {p.key: p.value for p in found.metadata_props} == {"labels": '["ä"]', "other": "x"}
    assert found.graph == model.graph
    assert with_property(classifier(), "labels", "[]") == classifier()
