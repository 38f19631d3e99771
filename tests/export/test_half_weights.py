"""Weights stored in half precision: half the file, the same graph after loading, logits within float16's rounding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from edgetl.export.half_weights import store_half
from edgetl.export.onnx import LABELS_KEY, to_bytes, to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import Classification


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3)).eval()
    return to_onnx(model, task=Classification(labels=("a", "b", "c")), spec=PreprocessSpec(size=32), opset=18)


def test_the_file_halves_and_the_logits_stay(exported: onnx.ModelProto) -> None:
    whole, half = to_bytes(exported), to_bytes(store_half(exported))
    assert len(half) < 0.6 * len(whole)
    images = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    with OnnxBackend(whole, threads=1) as first, OnnxBackend(half, threads=1) as second:
        expected, got = first.run(images)["logits"], second.run(images)["logits"]
    assert np.abs(expected - got).max() <= 2e-3 * np.abs(expected).max()
    assert np.abs(expected - got).max() > 0


def test_names_and_metadata_stay_and_small_tensors_are_left(exported: onnx.ModelProto) -> None:
    half = store_half(exported)
    assert {p.key for p in half.metadata_props} == {p.key for p in exported.metadata_props} >= {LABELS_KEY}
    assert [i.name for i in half.graph.input] == [i.name for i in exported.graph.input]
    kinds = {t.name: t.data_type for t in half.graph.initializer}
    for tensor in exported.graph.initializer:
        large = numpy_helper.to_array(tensor).size >= 256
        assert kinds[f"{tensor.name}_half" if large else tensor.name] == (
            TensorProto.FLOAT16 if large else tensor.data_type
        )
    assert sum(node.op_type == "Cast" for node in half.graph.node) == 2


@pytest.mark.parametrize("value", [1e6, float("inf"), float("nan")])
def test_what_float16_cannot_hold_stays_in_float32(exported: onnx.ModelProto, value: float) -> None:
    odd = onnx.ModelProto()
    odd.CopyFrom(exported)
    index, tensor = next((i, t) for i, t in enumerate(odd.graph.initializer) if len(t.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = value
    odd.graph.initializer[index].CopyFrom(numpy_helper.from_array(values, tensor.name))
    kinds = {t.name: t.data_type for t in store_half(odd).graph.initializer}
    assert kinds[tensor.name] == TensorProto.FLOAT
    assert sum(kind == TensorProto.FLOAT16 for kind in kinds.values()) == 1
