from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.bundle.pack import pack
from edgetl.errors import MissingDependencyError, ModelError, TensorError
from edgetl.runtime import load
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from tests.bundles import contents, picture
from tests.onnx_models import classifier

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)


def test_without_openvino_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(contents(tmp_path), tmp_path / "b.edgetl")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"openvino is not available.*pip install openvino"):
        load(tmp_path / "b.edgetl", target="openvino")


@pytest.fixture
def backend():
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    from edgetl.runtime.engines.openvino import OpenVinoBackend

    with OpenVinoBackend(classifier(), threads=2) as opened:
        yield opened


def test_it_agrees_with_onnx_runtime(backend) -> None:
    with OnnxBackend(classifier(), threads=1) as reference:
        expected = reference.run(IMAGES)["logits"]
    assert np.allclose(backend.run(IMAGES)["logits"], expected, atol=1e-5)
    assert np.allclose(backend.run(np.asfortranarray(IMAGES))["logits"], expected, atol=1e-5)
    assert backend.run(IMAGES[:0])["logits"].shape == (0, 3)
    assert str(backend.input) == "(N, 3, 32, 32) float32"
    assert backend.providers == ("OpenVINO CPU",)
    for wrong in (IMAGES[0], IMAGES.astype(np.float64), None):
        with pytest.raises(TensorError, match="expected"):
            backend.run(wrong)


def test_a_bound_call_reads_its_buffer_each_time(backend) -> None:
    images = IMAGES[:1].copy()
    call = backend.bind(images)
    first = call()["logits"].copy()
    images[:] = IMAGES[1:2]
    assert np.allclose(
        np.concatenate([first, call()["logits"]]), backend.run(IMAGES[:2])["logits"], atol=1e-5
    )


def test_results_are_kept_apart_between_calls_and_threads(backend) -> None:
    expected = [backend.run(IMAGES[i : i + 1])["logits"] for i in range(4)]
    wrong = []

    def work(i: int) -> None:
        for _ in range(100):
            if not np.array_equal(backend.run(IMAGES[i : i + 1])["logits"], expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_broken_models_are_refused_in_one_line(backend) -> None:
    with pytest.raises(ModelError, match="OpenVINO cannot load the model: ") as caught:
        type(backend)(b"garbage" * 20, threads=1)
    assert "\n" not in str(caught.value)


def test_a_bundle_proves_itself_through_it(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    pack(contents(tmp_path), tmp_path / "b.edgetl")
    with load(tmp_path / "b.edgetl", target="openvino", threads=2) as session:
        assert session.verify().passed
        pictures = [picture(i) for i in range(20)]
        with load(tmp_path / "b.edgetl") as reference:
            assert [p.label for p in session.predict(pictures)] == [
                p.label for p in reference.predict(pictures)
            ]


def test_weights_in_int8_are_computed_with_in_float32() -> None:
    """OpenVINO would also quantize what goes into such a layer."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    from edgetl.runtime.engines.openvino import OpenVinoBackend

    rng = np.random.default_rng(0)
    tensors = {
        "w": rng.integers(-127, 128, (3072, 16)).astype(np.int8),
        "scale": rng.uniform(1e-4, 1e-3, 16).astype(np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["weights"], axis=1),
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    expected = IMAGES.reshape(4, -1) @ (tensors["w"] * tensors["scale"])
    with OpenVinoBackend(model.SerializeToString(), threads=1) as backend:
        assert backend.run(IMAGES)["logits"] == pytest.approx(expected, abs=1e-3)
