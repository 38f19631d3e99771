"""Dynamic INT8, and the calibration cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from edgetl.data.calibration import CalibrationImage, CalibrationSet
from edgetl.inputs.image import PreprocessSpec
from edgetl.quantize import store
from edgetl.quantize.calibrate import observe
from edgetl.quantize.dynamic import linear_share, to_dynamic
from edgetl.quantize.graph import Graph
from tests.export.networks import SPEC
from tests.quantize import networks
from tests.quantize.networks import logits

node = helper.make_node


def _perceptron() -> onnx.ModelProto:
    return networks.graph(
        [
            node("Flatten", ["images"], ["flat"], "flatten"),
            node("MatMul", ["flat", "w"], ["a"], "hidden"),
            node("Relu", ["a"], ["r"], "relu"),
            node("Gemm", ["r", "v"], ["logits"], "head"),
        ],
        {"w": networks.weights(192, 64), "v": networks.weights(64, 4)},
        output=("batch", 4),
    )


def test_dynamic_int8_suits_networks_of_matrix_products() -> None:
    assert linear_share(Graph(_perceptron())) == 1.0
    assert linear_share(Graph(networks.exported())) < 0.2
    model, images = _perceptron(), networks.images(8, size=8)
    made = to_dynamic(Graph(model))
    assert made.ByteSize() < 0.4 * model.ByteSize()
    wanted, got = logits(model, [images]), logits(made, [images])
    assert ((got - wanted) ** 2).mean() < 0.01 * wanted.var()


# --- the cache ------------------------------------------------------------------------------------------

IMAGES = CalibrationSet(
    samples=(CalibrationImage(path=Path("/set/a.png"), sha256="ab" * 32, label="a"),),
    seed=0,
    requested=1,
    index_sha256="cd" * 32,
)


def test_histograms_come_back_as_they_were(tmp_path: Path) -> None:
    model = networks.exported()
    names = ("images", model.graph.node[0].output[0])
    found = observe(model, names, [networks.images(6)], images=6)
    store.save(found, tmp_path, "key")
    again = store.load(tmp_path, "key", names)
    assert again is not None
    for name in names:
        np.testing.assert_array_equal(again[name].counts, found[name].counts)
        kept = ("exponent", "low", "high", "images", "low_sum", "high_sum", "finite")
        assert [getattr(again[name], k) for k in kept] == [getattr(found[name], k) for k in kept]
    assert store.load(tmp_path, "key", (*names, "another")) is None
    assert store.load(tmp_path, "other", names) is None


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04garbage"])
def test_a_broken_cache_is_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.npz").write_bytes(content)
    assert store.load(tmp_path, "key", ("images",)) is None


def test_the_key_follows_model_images_and_preprocessing() -> None:
    model, spec = networks.exported(), SPEC
    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    moved = replace(IMAGES, samples=tuple(replace(s, path=Path("/else/a.png")) for s in IMAGES.samples))
    changed = replace(IMAGES, samples=tuple(replace(s, sha256="ef" * 32) for s in IMAGES.samples))
    key = store.calibration_key(model, IMAGES, spec)
    assert store.calibration_key(model, moved, spec) == key
    keys = {
        key,
        store.calibration_key(other, IMAGES, spec),
        store.calibration_key(model, changed, spec),
        store.calibration_key(
            model, IMAGES, PreprocessSpec(size=spec.size, mean=spec.mean, std=(0.1, 0.1, 0.1))
        ),
    }
    assert len(keys) == 4
