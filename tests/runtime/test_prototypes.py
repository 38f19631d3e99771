"""Added classes inside a model's file, against their formula, in two engines."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgetl.inputs.image import normalise
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.features import MAP, pooled_head
from edgetl.runtime.prototypes import Added, Space, added_in, with_classes
from edgetl.runtime.wire import read_graph, with_outputs
from tests.bundles import SPEC
from tests.onnx_models import classifier

FEATURES, CLASSES = 8, 3


def added(count: int) -> Added:
    generator = np.random.default_rng(5)

    def unit(rows: int) -> NDArray[np.float32]:
        found = generator.normal(size=(rows, FEATURES))
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    damped = np.linalg.qr(generator.normal(size=(FEATURES, 2)))[0].astype(np.float32)
    centre = generator.random(FEATURES).astype(np.float32)
    return Added(
        space=Space(centre=centre, damped=damped, damping=np.array([0.7, 0.2], np.float32)),
        known=unit(CLASSES),
        prototypes=unit(count),
        margins=np.linspace(0.1, 0.2, count, dtype=np.float32),
        scale=7.5,
    )


def images(count: int = 4) -> NDArray[np.float32]:
    pixels = np.random.default_rng(1).integers(0, 256, (count, SPEC.size, SPEC.size, 3), dtype=np.uint8)
    return normalise(pixels, SPEC)


@pytest.mark.parametrize("zero_point", [None, 0])
def test_engines_compute_the_formula(zero_point: int | None) -> None:
    model, own = classifier(zero_point=zero_point), added(2)
    head = pooled_head(model, ["logits"])
    longer = with_classes(model, "logits", head.map, own)
    onnx.checker.check_model(onnx.load_from_string(longer), full_check=True)
    with OnnxBackend(with_outputs(model, head.shown), threads=1) as backend:
        seen = backend.run(images())
    with OnnxBackend(longer, threads=1) as backend:
        assert backend.outputs[0].shape[1] == CLASSES + 2
        found = backend.run(images())["logits"]
    assert np.array_equal(found[:, :CLASSES], seen["logits"])
    assert found == pytest.approx(own.logits(seen["logits"], seen[MAP].mean(axis=(2, 3))), abs=1e-4)


def test_openvino_computes_the_formula() -> None:
    pytest.importorskip("openvino")
    from edgetl.runtime.engines.openvino import OpenVinoBackend

    model, own = classifier(), added(2)
    longer = with_classes(model, "logits", pooled_head(model, ["logits"]).map, own)
    with OnnxBackend(longer, threads=1) as one, OpenVinoBackend(longer, threads=1) as other:
        assert other.run(images(1))["logits"] == pytest.approx(one.run(images(1))["logits"], abs=1e-3)


def test_they_are_read_exchanged_and_taken_away_again() -> None:
    model = classifier()
    shown = pooled_head(model, ["logits"]).map
    longer = with_classes(model, "logits", shown, added(2))
    read = added_in(read_graph(longer))
    assert read is not None
    assert np.array_equal(read.prototypes, added(2).prototypes)
    assert np.array_equal(read.margins, added(2).margins)
    assert read.scale == 7.5
    assert with_classes(longer, "logits", shown, added(3)) == with_classes(model, "logits", shown, added(3))
    assert with_classes(longer, "logits", shown, added(0)) == model
    assert added_in(read_graph(model)) is None


def test_the_head_has_a_direction_for_each_added_class() -> None:
    model, own = classifier(), added(2)
    before = pooled_head(model, ["logits"])
    after = pooled_head(with_classes(model, "logits", before.map, own), ["logits"])
    assert after.map == before.map
    assert np.array_equal(after.weights["logits"][:CLASSES], before.weights["logits"])
    # The cosine's numerator: what an embedding's part along the direction gives.
    apart = np.random.default_rng(2).normal(size=(1, FEATURES)).astype(np.float32)
    vector = own.space.flatten(apart)
    assert apart @ own.directions.T == pytest.approx(7.5 * vector @ own.prototypes.T, abs=1e-4)
