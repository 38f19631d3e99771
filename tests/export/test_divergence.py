"""The first layer that computes something else is found, in every form that a graph is turned into."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgetl.export.bake import bake_preprocess
from edgetl.export.divergence import INPUT, first_divergence
from edgetl.export.onnx import to_onnx
from edgetl.inputs.image import normalise
from edgetl.tasks.base import Classification
from tests.export.networks import LABELS, SIZE, SPEC, tiny

PIXELS = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
IMAGES = normalise(PIXELS, SPEC)


@pytest.fixture(scope="module")
def right() -> onnx.ModelProto:
    return to_onnx(tiny(), task=Classification(labels=LABELS), spec=SPEC, opset=18)


def altered(model: onnx.ModelProto, layer: str, factor: float) -> onnx.ModelProto:
    """A copy whose `layer` has weights `factor` times larger."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = next(node.input[1] for node in copy.graph.node if node.name == layer)
    index = next(i for i, t in enumerate(copy.graph.initializer) if t.name == weights)
    values = numpy_helper.to_array(copy.graph.initializer[index])
    copy.graph.initializer[index].CopyFrom(numpy_helper.from_array(values * np.float32(factor), weights))
    return copy


def layers(model: onnx.ModelProto, operator: str) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type == operator]


def test_equal_graphs_do_not_diverge(right: onnx.ModelProto) -> None:
    found = first_divergence(right, IMAGES, right, IMAGES, limit=1e-3)
    assert found is not None
    assert (found.abrupt, found.error) == (False, 0.0)


@pytest.mark.parametrize("position", [0, 2, 4])
def test_an_altered_layer_is_named(right: onnx.ModelProto, position: int) -> None:
    layer = layers(right, "Conv")[position]
    found = first_divergence(right, IMAGES, altered(right, layer, 1.1), IMAGES, limit=1e-3)
    assert found is not None
    assert found.abrupt
    assert found.error_before < 1e-3 < found.error
    after = {i: n for n in right.graph.node for i in n.input}
    # What a Relu or Clip would cut off is compared behind it.
    made = next(n.output[0] for n in right.graph.node if n.name == layer)
    behind = after[made]
    assert found.layer == (behind.name if behind.op_type in ("Relu", "Clip") else layer)


def test_another_input_is_named(right: onnx.ModelProto) -> None:
    found = first_divergence(right, IMAGES, right, IMAGES + np.float32(0.1), limit=1e-3)
    assert found is not None
    assert (found.layer, found.operator, found.abrupt) == (INPUT, "", True)


def test_a_wrong_mean_inside_the_graph_is_named_at_the_input(right: onnx.ModelProto) -> None:
    from dataclasses import replace

    wrong = bake_preprocess(right, replace(SPEC, mean=(0.5, 0.5, 0.5)))
    found = first_divergence(right, IMAGES, wrong, PIXELS, limit=1e-3)
    assert found is not None
    assert (found.layer, found.tensor) == (INPUT, "preprocess/normalised")
    fine = first_divergence(right, IMAGES, bake_preprocess(right, SPEC), PIXELS, limit=1e-3)
    assert fine is not None
    assert not fine.abrupt
