"""Preprocessing and heads inside the graph compute what they compute outside of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgetl.errors import ModelError
from edgetl.export.bake import OutputForm, bake_form, bake_preprocess
from edgetl.export.onnx import to_onnx
from edgetl.inputs.image import PreprocessSpec, normalise
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import Classification, Detection, MultiHead, MultiLabel
from edgetl.tasks.classification.answers import softmax, topk
from tests.export.networks import tiny
from tests.onnx_models import SIZE, classifier

SPEC = PreprocessSpec(size=SIZE, mean=(0.1, 0.5, 0.9), std=(0.2, 0.25, 0.3))
PIXELS = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)


def run(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})


@pytest.mark.parametrize("zero_point", [None, 0])
def test_a_baked_model_takes_pixels_and_gives_the_same_logits(zero_point: int | None) -> None:
    plain = onnx.load_from_string(classifier(zero_point=zero_point))
    baked = bake_preprocess(plain, SPEC)
    with OnnxBackend(plain.SerializeToString(), threads=1) as backend:
        expected = backend.run(normalise(PIXELS, SPEC))["logits"]
    with OnnxBackend(baked.SerializeToString(), threads=1) as backend:
        assert str(backend.input) == f"(N, {SIZE}, {SIZE}, 3) uint8"
        np.testing.assert_allclose(backend.run(PIXELS)["logits"], expected, rtol=1e-5, atol=1e-5)
    assert plain.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_baking_twice_is_refused() -> None:
    with pytest.raises(ModelError, match=r"images is .*expected \(batch, 3, H, W\) float32 to bake"):
        bake_preprocess(bake_preprocess(onnx.load_from_string(classifier()), SPEC), SPEC)


def test_forms_of_the_output() -> None:
    task = Classification(labels=("a", "b", "c", "d"))
    plain = onnx.load_from_string(classifier(classes=4))
    images = normalise(PIXELS, SPEC)
    (logits,) = run(bake_form(plain, task, OutputForm.LOGITS), images)
    (probabilities,) = run(bake_form(plain, task, OutputForm.PROBABILITIES), images)
    np.testing.assert_allclose(probabilities, softmax(logits), rtol=1e-5)
    scores, classes = run(bake_form(plain, task, OutputForm.TOP_K, top=2), images)
    np.testing.assert_array_equal(classes, topk(logits, 2))
    np.testing.assert_allclose(scores, np.take_along_axis(softmax(logits), classes, 1), rtol=1e-5)
    with pytest.raises(ModelError, match="top: got 5, the model has 4 classes"):
        bake_form(plain, task, OutputForm.TOP_K, top=5)


def test_each_head_gets_its_form_and_its_name() -> None:
    task = MultiHead(
        heads={"species": Classification(labels=("cat", "dog")), "colours": MultiLabel(labels=("white",))}
    )
    plain = to_onnx(tiny(), task=task, spec=SPEC, opset=18)
    images = normalise(PIXELS, SPEC)
    species, colours = run(plain, images)
    made = bake_form(plain, task, OutputForm.PROBABILITIES)
    assert [value.name for value in made.graph.output] == ["species_probabilities", "colours_probabilities"]
    shares, sigmoids = run(made, images)
    np.testing.assert_allclose(shares, softmax(species), rtol=1e-4)
    np.testing.assert_allclose(sigmoids, 1 / (1 + np.exp(-colours)), rtol=1e-4)
    best = bake_form(plain, task, OutputForm.TOP_K, top=1)
    assert [value.name for value in best.graph.output] == [
        "species_scores",
        "species_classes",
        "colours_scores",
        "colours_classes",
    ]
    np.testing.assert_array_equal(run(best, images)[1], topk(species, 1))
    with pytest.raises(ModelError, match="top: got 2, colours has 1 classes"):
        bake_form(plain, task, OutputForm.TOP_K, top=2)
    with pytest.raises(ModelError, match="no output 'logits'; it has species, colours"):
        bake_form(plain, Classification(labels=("a", "b", "c")), OutputForm.PROBABILITIES)
    with pytest.raises(ModelError, match="A detector puts out boxes and scores"):
        bake_form(plain, Detection(labels=("a",)), OutputForm.PROBABILITIES)
