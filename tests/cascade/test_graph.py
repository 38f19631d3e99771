"""Two networks as one graph: each image has the answer of the one or the other, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgetl.bundle.manifest import InputForm
from edgetl.cascade.graph import HANDED_ON, Member, cascade, small_alone
from edgetl.errors import ModelError
from edgetl.export.bake import bake_preprocess
from edgetl.gate.layers import layer_bits
from edgetl.inputs.spec import PreprocessSpec, normalise
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import LOGITS
from tests.cascade.bundles import LARGE, SMALL, network, paint

BYTES, FLOATS = InputForm.UINT8, InputForm.FLOAT32


def _member(spec: PreprocessSpec, rough: float, form: InputForm) -> Member:
    model = network(spec, rough)
    if form is BYTES:
        model = bake_preprocess(onnx.load_from_string(model), spec).SerializeToString()
    return Member(model=model, spec=spec, form=form, temperature=20.0)


def _images(member: Member) -> np.ndarray:
    pixels = np.stack([paint(at, at % 3, member.spec.size) for at in range(8)])
    return pixels if member.form is BYTES else normalise(pixels, member.spec)


@pytest.mark.parametrize("forms", [(FLOATS, FLOATS), (BYTES, BYTES), (FLOATS, BYTES), (BYTES, FLOATS)])
def test_each_image_has_the_answer_of_one_of_them(forms: tuple[InputForm, InputForm]) -> None:
    small, large = _member(SMALL, 15, forms[0]), _member(LARGE, 0.5, forms[1])
    images = _images(large)
    with OnnxBackend(small_alone(small, large), threads=1) as backend:
        first = backend.run(images)[LOGITS]
    with OnnxBackend(large.model, threads=1) as backend:
        second = backend.run(images)[LOGITS] / 20
    best = np.sort(first, axis=1)
    margins = best[:, -1] - best[:, -2]
    middle = float(np.sort(margins)[3:5].mean())
    with OnnxBackend(cascade(small, large, middle), threads=1) as backend:
        found = backend.run(images)
        assert found[HANDED_ON][:, 0].tolist() == (margins < middle).tolist()
        assert found[HANDED_ON].sum() == 4
        np.testing.assert_allclose(
            found[LOGITS], np.where((margins < middle)[:, None], second, first), atol=1e-5
        )
        for at in range(8):  # by itself as among others
            np.testing.assert_allclose(
                backend.run(images[at : at + 1])[LOGITS][0], found[LOGITS][at], atol=1e-5
            )


def test_the_small_model_sees_what_pillow_makes_of_the_picture() -> None:
    from PIL import Image

    small, large = _member(SMALL, 15, FLOATS), _member(LARGE, 0.5, FLOATS)
    pixels = paint(5, 1, LARGE.size)
    resized = np.asarray(Image.fromarray(pixels).resize((SMALL.size,) * 2, Image.Resampling.BICUBIC))
    with OnnxBackend(small.model, threads=1) as backend:
        wanted = backend.run(normalise(resized[None], SMALL))[LOGITS] / 20
    with OnnxBackend(small_alone(small, large), threads=1) as backend:
        found = backend.run(normalise(pixels[None], LARGE))[LOGITS]
    np.testing.assert_allclose(found, wanted, atol=0.05)  # but for rounding to bytes


def test_equal_preparation_adds_nothing() -> None:
    same = _member(LARGE, 15, FLOATS)
    model = onnx.load_from_string(small_alone(same, same))
    assert [node.op_type for node in model.graph.node][:1] == ["Conv"]


def test_a_model_with_branches_of_its_own_is_refused() -> None:
    large = _member(LARGE, 0.5, FLOATS)
    inner = Member(
        model=cascade(_member(SMALL, 15, FLOATS), large, 1.0), spec=LARGE, form=FLOATS, temperature=1.0
    )
    with pytest.raises(
        ModelError, match=r"The model has the operator If, which cannot be part of a cascade\."
    ):
        cascade(inner, large, 1.0)


def test_a_model_without_logits_is_refused() -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])
    boxes = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", 3, 32, 32])
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["boxes"])], "g", [images], [boxes])
    other = Member(
        model=helper.make_model(graph).SerializeToString(), spec=LARGE, form=FLOATS, temperature=1.0
    )
    with pytest.raises(
        ModelError, match=r"1 inputs and the outputs boxes .* expected one input and logits\."
    ):
        cascade(other, other, 1.0)


def test_layers_of_both_are_counted() -> None:
    small, large = _member(SMALL, 15, FLOATS), _member(LARGE, 0.5, FLOATS)
    assert [layer_bits(one.model) for one in (small, large)] == [{"32": 2}, {"32": 2}]
    assert layer_bits(cascade(small, large, 1.0)) == {"32": 4}


def test_a_cascade_can_normalise_pictures_itself() -> None:
    small, large = _member(SMALL, 15, FLOATS), _member(LARGE, 0.5, FLOATS)
    plain = cascade(small, large, 5.0)
    baked = bake_preprocess(onnx.load_from_string(plain), LARGE).SerializeToString()
    pixels = np.stack([paint(at, at % 3, LARGE.size) for at in range(4)])
    with OnnxBackend(plain, threads=1) as first, OnnxBackend(baked, threads=1) as second:
        wanted, found = first.run(normalise(pixels, LARGE)), second.run(pixels)
    np.testing.assert_allclose(found[LOGITS], wanted[LOGITS], atol=1e-4)
