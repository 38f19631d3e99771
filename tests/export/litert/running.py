"""Runs an ONNX graph in ONNX Runtime, and the .tflite file that is written of it in LiteRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.export.litert.convert import to_network, to_tflite
from edgetl.export.litert.parts import Network

OPSET = 18


def needs_litert() -> None:
    """Skip the calling module where LiteRT is absent."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")


def graph(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    *,
    constants: Mapping[str, np.ndarray] | None = None,
    result: str = "y",
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A model from `images` of the shape to `result`."""
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def in_onnxruntime(model: onnx.ModelProto, images: np.ndarray, *, simulated: bool = True) -> np.ndarray:
    """The first output; Q/DQ pairs are carried out in float32 where `simulated`."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if simulated:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate(
        [session.run(None, {session.get_inputs()[0].name: image[None]})[0] for image in images]
    )


def interpreter(content: bytes, *, delegate: bool = True) -> Any:
    """An interpreter of the file, by option without the kernels of XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.AUTO if delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    opened = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kind)
    opened.allocate_tensors()
    return opened


def in_litert(content: bytes, images: np.ndarray, *, delegate: bool = True) -> np.ndarray:
    """The first output for images as ONNX has them; floats of four axes go in with their channels last."""
    opened = interpreter(content, delegate=delegate)
    source, result = opened.get_input_details()[0]["index"], opened.get_output_details()[0]["index"]
    found = []
    for image in images:
        turned = image.transpose(1, 2, 0) if image.ndim == 3 and image.dtype == np.float32 else image
        opened.set_tensor(source, np.ascontiguousarray(turned[None]))
        opened.invoke()
        found.append(opened.get_tensor(result))
    return np.concatenate(found)


def kinds(network: Network) -> list[str]:
    """The operators in order."""
    return [operator.kind for operator in network.operators]


def check(model: onnx.ModelProto, images: np.ndarray, *, tolerance: float = 1e-5) -> list[str]:
    """Hold LiteRT's result to ONNX Runtime's, relative to the largest value; return the operators."""
    expected, found = in_onnxruntime(model, images), in_litert(to_tflite(model), images)
    assert found.shape == expected.shape
    scale = max(float(np.abs(expected).max()), 1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)
    return kinds(to_network(model))
