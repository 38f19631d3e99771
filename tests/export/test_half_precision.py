"""Half precision: what fits is converted, what would overflow is not, and a CPU that hides overflow is seen through."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.export.graphs import Probe
from edgetl.export.half_precision import FLOAT32_LAYERS_KEY, as_on_a_gpu, is_half, to_half
from tests.onnx_models import SIZE, classifier

IMAGES = np.random.default_rng(0).normal(size=(4, 3, SIZE, SIZE)).astype(np.float32)


def scaled(factor: float) -> onnx.ModelProto:
    """The classifier with its convolution `factor` times larger and its matrix product so much smaller."""
    model = onnx.load_from_string(classifier())
    for index, tensor in enumerate(model.graph.initializer):
        values = numpy_helper.to_array(tensor) * (factor if tensor.name == "w" else 1 / factor)
        model.graph.initializer[index].CopyFrom(
            numpy_helper.from_array(values.astype(np.float32), tensor.name)
        )
    return model


def logits(model: onnx.ModelProto, *, gpu: bool) -> np.ndarray:
    name = model.graph.output[0].name
    return Probe(as_on_a_gpu(model) if gpu else model, [name], optimised=not gpu).run(IMAGES)[0]


def test_all_that_fits_is_converted() -> None:
    plain = scaled(1)
    half = to_half(plain, IMAGES)
    assert half.float32_layers == ()
    assert is_half(half.model)
    assert not is_half(plain)
    kinds = {t.name: t.data_type for t in half.model.graph.initializer}
    assert set(kinds.values()) == {TensorProto.FLOAT16}
    assert [v.type.tensor_type.elem_type for v in (*half.model.graph.input, *half.model.graph.output)] == [
        1,
        1,
    ]
    expected = logits(plain, gpu=False)
    assert 0 < np.abs(logits(half.model, gpu=True) - expected).max() < 5e-3 * np.abs(expected).max()


def test_what_would_overflow_stays_in_float32_and_is_named() -> None:
    plain = scaled(2e5)
    half = to_half(plain, IMAGES)
    assert half.float32_layers == ("conv", "Relu_1", "GlobalAveragePool_2", "Flatten_3", "MatMul_4")
    assert json.loads(
        next(p.value for p in half.model.metadata_props if p.key == FLOAT32_LAYERS_KEY)
    ) == list(half.float32_layers)
    expected = logits(plain, gpu=False)
    np.testing.assert_allclose(logits(half.model, gpu=True), expected, rtol=1e-2, atol=1e-2)


def test_between_float32_layers_nothing_passes_through_float16() -> None:
    half = to_half(scaled(2e5), IMAGES).model
    casts = [node.attribute[0].i for node in half.graph.node if node.op_type == "Cast"]
    assert TensorProto.FLOAT16 not in casts[1:]
    assert len(casts) <= 2


def test_a_cpu_hides_overflow_and_the_rounding_copy_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = scaled(2e4)
    monkeypatch.setattr("edgetl.export.half_precision._would_overflow", lambda *_: [])
    forced = to_half(plain, IMAGES * 20).model
    assert np.isfinite(Probe(forced, ["logits"]).run(IMAGES * 20)[0]).all()
    rounded = Probe(as_on_a_gpu(forced), ["logits"], optimised=False).run(IMAGES * 20)[0]
    assert not np.isfinite(rounded).all()


def test_a_model_that_is_broken_in_float32_is_refused() -> None:
    with pytest.raises(ModelError, match="'c' is NaN or infinite in float32 already"):
        to_half(scaled(1e3), IMAGES * np.float32(5e37))


def test_truth_values_are_not_taken_for_floats() -> None:
    """An operator that keeps float32 reads a cast of truth values: that cast stays."""
    model = scaled(1)
    at = next(i for i, n in enumerate(model.graph.node) if n.op_type == "Relu")
    read = model.graph.node[at].output[0]
    nodes = list(model.graph.node)
    for node in nodes[at + 1 :]:
        for position, name in enumerate(node.input):
            if name == read:
                node.input[position] = "counted"
    nodes[at + 1 : at + 1] = [
        helper.make_node("Greater", [read, "half"], ["is_bright"], "greater"),
        helper.make_node("Cast", ["is_bright"], ["bright"], "cast", to=TensorProto.FLOAT),
        helper.make_node("CumSum", ["bright", "axis"], ["counted"], "cumsum"),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(0.5, np.float32), "half"),
            numpy_helper.from_array(np.array(3, np.int64), "axis"),
        ]
    )
    onnx.checker.check_model(model, full_check=True)
    half = to_half(model, IMAGES).model
    expected = logits(model, gpu=False)
    np.testing.assert_allclose(logits(half, gpu=True), expected, atol=2e-2 * np.abs(expected).max())
