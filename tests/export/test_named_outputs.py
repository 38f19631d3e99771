"""A network of two heads: exported, quantized and run by the names of its outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from edgetl.config import Target
from edgetl.errors import ModelError
from edgetl.export.bake import bake_preprocess
from edgetl.export.half_precision import to_half
from edgetl.export.onnx import LABELS_KEY, to_bytes, to_onnx
from edgetl.export.parity import check
from edgetl.quantize.affine import Affine, from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.replay import Stream, unsupported
from edgetl.quantize.score import divergence, outputs
from edgetl.quantize.sensitivity import sensitivity
from edgetl.quantize.targets import TargetRules, rules_for
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Classification, MultiHead, MultiLabel
from tests.export.networks import SIZE, SPEC, tiny
from tests.quantize.networks import images

HEADS = MultiHead(
    heads={"species": Classification(labels=("cat", "dog")), "colours": MultiLabel(labels=("white",))}
)
"""Of the tiny network's three outputs the first two are one head's, the third is the other's."""


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return to_onnx(tiny(), task=HEADS, spec=SPEC, opset=18)


def test_the_outputs_have_the_heads_names_and_the_networks_values(exported: onnx.ModelProto) -> None:
    batch = images(3)
    with torch.inference_mode():
        expected = tiny()(torch.from_numpy(batch)).numpy()
    assert [(v.name, v.type.tensor_type.shape.dim[1].dim_value) for v in exported.graph.output] == [
        ("species", 2),
        ("colours", 1),
    ]
    with OnnxBackend(to_bytes(exported), threads=1) as backend:
        found = backend.run(batch)
    np.testing.assert_allclose(found["species"], expected[:, :2], atol=1e-4)
    np.testing.assert_allclose(found["colours"], expected[:, 2:], atol=1e-4)
    assert {p.key: p.value for p in exported.metadata_props}[LABELS_KEY] == (
        '["species/cat", "species/dog", "colours/white"]'
    )


def test_one_head_alone_gives_its_name_to_the_output() -> None:
    one = MultiHead(heads={"colours": MultiLabel(labels=("red", "green", "blue"))})
    assert [v.name for v in to_onnx(tiny(), task=one, spec=SPEC, opset=18).graph.output] == ["colours"]


def test_another_width_is_refused_with_the_heads_named() -> None:
    wider = MultiHead(heads={**HEADS.heads, "more": Classification(labels=("a", "b"))})
    with pytest.raises(ModelError, match=r"expected species and colours and more \(2, 5\)"):
        to_onnx(tiny(), task=wider, spec=SPEC, opset=18)


def test_parity_names_an_output_that_is_missing_and_sees_one_that_differs(exported: onnx.ModelProto) -> None:
    task, batches = task_of(HEADS), [images(1), images(4)]
    parity = check(tiny(), to_bytes(exported), batches, task=task, max_difference=1e-4)
    assert (parity.images, parity.same) == (5, 1.0)
    swapped = onnx.ModelProto.FromString(to_bytes(exported))
    split = swapped.graph.node[-1]
    assert split.op_type == "Split"
    swapped.graph.node.append(onnx.helper.make_node("Neg", ["colours_"], ["colours"], "negated"))
    split.output[1] = "colours_"
    with pytest.raises(ModelError, match="of an output's largest value on 5 images"):
        check(tiny(), to_bytes(swapped), batches, task=task, max_difference=0.01)
    plain = task_of(Classification(labels=("a", "b", "c")))
    with pytest.raises(ModelError, match="no output 'logits'; it has species, colours"):
        check(tiny(), to_bytes(exported), batches, task=plain, max_difference=0.01)


def _form(model: onnx.ModelProto, rules: TargetRules) -> tuple[Graph, dict[str, Affine], onnx.ModelProto]:
    graph = Graph(model)
    plan = make_plan(graph, rules)
    seen = observe(model, plan.observed, [images(8)], images=8)
    spans = {name: (h.low, h.high) for name, h in seen.items()} | plan.known
    ranges = {name: from_range(*span, rules.activations) for name, span in spans.items()}
    return graph, ranges, insert(graph, plan, rules, ranges)


@pytest.mark.parametrize("target", list(Target))
def test_a_quantized_model_keeps_its_outputs_and_comes_near(
    exported: onnx.ModelProto, target: Target
) -> None:
    _, _, quantized = _form(exported, rules_for(target))
    assert any(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
    expected, found = (outputs(m, [images(4)], target=target) for m in (exported, quantized))
    assert list(found) == ["species", "colours"]
    assert [a.shape for a in found.values()] == [(4, 2), (4, 1)]
    assert divergence(HEADS, expected, found) < 0.05
    away = {**found, "colours": found["colours"] + 3.0}
    assert divergence(HEADS, expected, away) > divergence(HEADS, expected, found) + 0.1
    lost = {**found, "colours": np.full_like(found["colours"], np.nan)}
    assert divergence(HEADS, expected, lost) == np.inf


def test_every_layers_noise_counts_at_every_output(exported: onnx.ModelProto) -> None:
    rules = rules_for(Target.CPU_X86)
    graph, ranges, _ = _form(exported, rules)
    assert unsupported(graph) == ()
    batch = images(4)
    whole = Stream(graph, torch.from_numpy(batch)).run().numpy()
    np.testing.assert_allclose(whole, np.concatenate(list(outputs(exported, [batch]).values()), 1), atol=1e-4)
    plan = make_plan(graph, rules)
    one = to_onnx(tiny(), task=Classification(labels=("a", "b", "c")), spec=SPEC, opset=18)
    plain, plain_ranges, _ = _form(one, rules)
    expected = sensitivity(plain, make_plan(plain, rules), rules, plain_ranges, [batch])
    found = sensitivity(graph, plan, rules, ranges, [batch])
    assert [layer.name for layer in found] == [layer.name for layer in expected]
    assert [layer.divergence for layer in found] == pytest.approx([layer.divergence for layer in expected])


def test_half_precision_and_baked_preprocessing_keep_the_outputs(exported: onnx.ModelProto) -> None:
    half = to_half(exported, images(4)).model
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    with OnnxBackend(to_bytes(bake_preprocess(half, SPEC)), threads=1) as backend:
        found = backend.run(pixels)
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        "species": ((2, 2), np.float32),
        "colours": ((2, 1), np.float32),
    }
