"""Whole networks as .tflite files: the same logits, no transpositions, labels and preprocessing inside."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import onnx
import pytest
import torch

from edgetl.config import Calibrator, Target
from edgetl.errors import MissingDependencyError, ModelError
from edgetl.export.bake import OutputForm, bake_form, bake_preprocess
from edgetl.export.graphs import DECODE
from edgetl.export.half_weights import store_half
from edgetl.export.litert.convert import to_network, to_tflite
from edgetl.export.onnx import LABELS_KEY, PREPROCESS_KEY, to_onnx
from edgetl.inputs.image import Resize, normalise
from edgetl.models.backbones import create
from edgetl.models.detector import create_detector
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.compact import compact
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.score import outputs
from edgetl.quantize.targets import rules_for
from edgetl.quantize.weight_only import store_int8
from edgetl.runtime.engines.litert import LiteRtBackend
from edgetl.tasks.base import Classification, Detection
from tests.export.litert.running import in_litert, in_onnxruntime, interpreter, kinds, needs_litert
from tests.export.networks import LABELS, SIZE, SPEC, tiny

needs_litert()

TASK = Classification(labels=LABELS)
PIXELS = np.random.default_rng(3).integers(0, 256, (8, SIZE, SIZE, 3)).astype(np.uint8)
IMAGES = normalise(PIXELS, SPEC)


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return to_onnx(tiny(), task=TASK, spec=SPEC, opset=18)


def quantized(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    """INT8 with ranges from the images."""
    rules, graph = rules_for(target), Graph(model)
    plan = make_plan(graph, rules)
    histograms = observe(model, plan.observed, [IMAGES], images=len(IMAGES))
    ranges = {
        name: estimate(histogram, Calibrator.MINMAX, rules.activations, percentile=100.0)
        for name, histogram in histograms.items()
    }
    spans = ranges | plan.known
    return insert(graph, plan, rules, {n: from_range(*span, rules.activations) for n, span in spans.items()})


def differences(model: onnx.ModelProto) -> tuple[float, float]:
    """The largest difference of logits and the largest logit."""
    expected, found = in_onnxruntime(model, IMAGES), in_litert(to_tflite(model), IMAGES)
    return float(np.abs(found - expected).max()), float(np.abs(expected).max())


def test_the_exported_network(exported: onnx.ModelProto) -> None:
    difference, largest = differences(exported)
    assert difference < 1e-5 * largest
    found = kinds(to_network(exported))
    assert "TRANSPOSE" not in found
    assert not set(found) & {"RELU", "RELU6"}  # others took them along


def test_a_whole_backbone() -> None:
    """All others of the table are held to it in tests/slow/test_litert_coverage.py."""
    model = to_onnx(create("torchvision/mobilenet_v2", len(LABELS), "none"), task=TASK, spec=SPEC, opset=18)
    difference, largest = differences(model)
    assert difference < 1e-5 * max(largest, 1.0)
    found = kinds(to_network(model))
    assert set(found) <= {"CONV_2D", "DEPTHWISE_CONV_2D", "PAD", "ADD", "MEAN", "RESHAPE", "FULLY_CONNECTED"}
    assert found.count("RESHAPE") == 1


def test_the_forms_of_storage(exported: onnx.ModelProto) -> None:
    graph = Graph(exported)
    plan = make_plan(graph, rules_for(Target.CPU_X86))
    for model in (store_half(exported), store_int8(graph, plan.weighted)):
        difference, largest = differences(model)
        assert difference < 1e-5 * largest
        assert len(to_tflite(model)) < len(to_tflite(exported))


@pytest.mark.parametrize("target", [Target.LITERT, Target.CPU_X86, Target.CPU_ARM])
def test_integers_on_the_quantizer_s_own_scales(exported: onnx.ModelProto, target: Target) -> None:
    model = quantized(exported, target)
    difference, largest = differences(model)
    assert difference < 0.03 * largest
    assert to_tflite(compact(model))  # with the short names of what ships
    plain = in_litert(to_tflite(model), IMAGES, delegate=False)
    expected = in_onnxruntime(model, IMAGES)
    assert np.abs(plain - expected).max() < 0.03 * largest


def test_a_detectors_maps_are_integers_and_its_boxes_are_decoded_in_float() -> None:
    network, images = create_detector("test_efficientnet", 3, seed=1).eval(), IMAGES[:2]
    with torch.no_grad():
        for out in (*network.box_out, *network.class_out):
            out.weight.mul_(100)
    task = Detection(labels=("a", "b", "c"), threshold=0.5)
    model = to_onnx(
        network, task=task, spec=dataclasses.replace(SPEC, size=SIZE, resize=Resize.PAD), opset=18
    )
    for form, tolerance in ((model, 1e-5), (quantized(model, Target.LITERT), 0.03)):
        with LiteRtBackend(to_tflite(form), threads=1) as backend:
            found = backend.run(images)
        for name, expected in outputs(form, [images], target="litert").items():
            largest = float(np.abs(expected).max())
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=tolerance * largest)
    written = to_network(quantized(model, Target.LITERT))
    types = {t.name.removesuffix("_dequantized"): t.dtype for t in written.tensors}
    maps = [f"/{head}_out.{level}/Conv_output_0" for head in ("box", "class") for level in (0, 1)]
    assert [types[name] for name in maps] == ["int8"] * 4
    made = [tensor for tensor in written.tensors if tensor.name.startswith(DECODE) and tensor.data is None]
    assert len(made) > 5
    assert {tensor.dtype for tensor in made} == {"float32"}


def test_pictures_in_and_probabilities_out(exported: onnx.ModelProto) -> None:
    baked = bake_form(bake_preprocess(exported, SPEC), TASK, OutputForm.PROBABILITIES)
    content = to_tflite(baked)
    opened = interpreter(content)
    [source] = opened.get_input_details()
    assert (source["dtype"], list(source["shape"])) == (np.uint8, [1, SIZE, SIZE, 3])
    found, expected = in_litert(content, PIXELS), in_onnxruntime(baked, PIXELS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert "TRANSPOSE" not in kinds(to_network(baked))


def test_what_others_can_read(exported: onnx.ModelProto) -> None:
    import ai_edge_litert.schema_py_generated as schema

    content = to_tflite(exported)
    assert content == to_tflite(exported)
    assert content[4:8] == b"TFL3"
    model = schema.ModelT.InitFromPackedBuf(content)
    texts = {m.name.decode(): bytes(model.buffers[m.buffer].data).decode() for m in model.metadata}
    assert json.loads(texts[LABELS_KEY]) == list(LABELS)
    assert json.loads(texts[PREPROCESS_KEY])["size"] == SIZE
    [signature] = interpreter(content).get_signature_list().values()
    assert signature == {"inputs": ["images"], "outputs": ["logits"]}
    [source] = interpreter(content).get_input_details()
    assert (list(source["shape"]), source["dtype"]) == ([1, SIZE, SIZE, 3], np.float32)


def test_constants_lie_where_kernels_may_read_them(exported: onnx.ModelProto) -> None:
    import ai_edge_litert.schema_py_generated as schema

    content = to_tflite(exported)
    model, seen = schema.Model.GetRootAs(content), 0
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        if not buffer.DataIsNone():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0
            seen += 1
    assert seen > 20


def test_an_open_size_is_refused() -> None:
    model = to_onnx(tiny(), task=TASK, spec=SPEC, opset=18, dynamic_size=True)
    with pytest.raises(ModelError, match=r"open height and width.*Set export\.dynamic_size = false"):
        to_tflite(model)


def test_without_the_package_the_remedy_is_named(
    exported: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.schema_py_generated", None)
    with pytest.raises(
        MissingDependencyError, match=r"ai-edge-litert, whose schema .* pip install ai-edge-litert"
    ):
        to_tflite(exported)
