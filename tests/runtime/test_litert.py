"""The engine LiteRT, and bundles that hold .tflite files."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgetl
from edgetl.bundle.archive import open_bundle
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import ModelFormat
from edgetl.bundle.pack import VariantSource, pack
from edgetl.deploy.serving import ServeOptions, write_litert, write_onnx
from edgetl.errors import BundleError, BundleIntegrityError, MissingDependencyError, ModelError, TensorError
from edgetl.export.bake import bake_preprocess
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.targets import EngineName
from tests.bundles import SPEC, contents, picture
from tests.onnx_models import classifier

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
needs_litert = pytest.mark.skipif(
    find_spec("ai_edge_litert") is None,
    reason="LiteRT is not installed: pip install ai-edge-litert",
)


def tflite(*, zero_point: int | None = None, baked: bool = False) -> bytes:
    from edgetl.export.litert.convert import to_tflite

    model = onnx.load_from_string(classifier(zero_point=zero_point))
    return to_tflite(bake_preprocess(model, SPEC) if baked else model)


def bundle_of(folder: Path, model: bytes) -> Path:
    """A bundle with the model as its variant `int8-litert`; what it shall give is what its INT8 sibling gives."""
    parts = contents(folder)
    golden = parts.golden
    source = VariantSource(
        name="int8-litert", precision="int8", target="litert", model=model, format=ModelFormat.TFLITE
    )
    outputs = {**golden.outputs, "int8-litert": golden.outputs["int8-cpu-x86"]}
    with_it = dataclasses.replace(
        parts,
        variants=[*parts.variants, source],
        golden=GoldenSet(images=golden.images, pixels=golden.pixels, outputs=outputs),
    )
    pack(with_it, folder / "b.edgetl")
    return folder / "b.edgetl"


@pytest.fixture
def backend():
    from edgetl.runtime.engines.litert import LiteRtBackend

    with LiteRtBackend(tflite(), threads=2) as opened:
        yield opened


@needs_litert
def test_it_agrees_with_onnx_runtime(backend) -> None:
    with OnnxBackend(classifier(), threads=1) as reference:
        expected = reference.run(IMAGES)["logits"]
    assert np.allclose(backend.run(IMAGES)["logits"], expected, atol=1e-5)
    assert np.allclose(backend.run(np.asfortranarray(IMAGES))["logits"], expected, atol=1e-5)
    assert backend.run(IMAGES[:0])["logits"].shape == (0, 3)
    assert str(backend.input) == "(N, 3, 32, 32) float32"
    assert (backend.providers, backend.threads) == (("LiteRT XNNPACK",), 2)
    for wrong in (IMAGES[0], IMAGES.astype(np.float64), None):
        with pytest.raises(TensorError, match="expected"):
            backend.run(wrong)


@needs_litert
def test_pictures_are_normalised_inside() -> None:
    from edgetl.inputs.image import normalise
    from edgetl.runtime.engines.litert import LiteRtBackend

    pixels = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    with LiteRtBackend(tflite(baked=True), threads=1) as inside, LiteRtBackend(tflite(), threads=1) as plain:
        assert str(inside.input) == "(N, 32, 32, 3) uint8"
        expected = plain.run(normalise(pixels, SPEC))["logits"]
        np.testing.assert_allclose(inside.run(pixels)["logits"], expected, atol=1e-4)


@needs_litert
def test_a_bound_call_reads_its_buffer_each_time(backend) -> None:
    images = IMAGES[:2].copy()
    call = backend.bind(images)
    first = call()["logits"].copy()
    images[:] = IMAGES[2:]
    found = np.concatenate([first, call()["logits"]])
    np.testing.assert_array_equal(found, backend.run(IMAGES)["logits"])
    with pytest.raises(TensorError, match="expected"):
        backend.bind(np.asfortranarray(IMAGES))


@needs_litert
def test_threads_do_not_disturb_each_other(backend) -> None:
    expected, wrong = backend.run(IMAGES)["logits"], list[int]()

    def work(at: int) -> None:
        for _ in range(20):
            if not np.array_equal(backend.run(IMAGES[at : at + 1])["logits"][0], expected[at]):
                wrong.append(at)

    workers = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@needs_litert
def test_what_is_no_model_is_one_sentence() -> None:
    from edgetl.runtime.engines.litert import LiteRtBackend

    with pytest.raises(ModelError, match="LiteRT cannot load the model: ") as caught:
        LiteRtBackend(b"TFL3 it is not", threads=1)
    assert "\n" not in str(caught.value)


@needs_litert
def test_a_bundle_runs_its_file(tmp_path: Path) -> None:
    path = bundle_of(tmp_path, tflite(zero_point=0))
    assert open_bundle(path).variant("int8-litert").file == "models/int8-litert.tflite"
    for asked in ({"target": "litert"}, {"variant": "int8-litert"}):
        with edgetl.load(path, threads=1, **asked) as session:
            assert (session.variant.name, session.choice.target) == ("int8-litert", EngineName.LITERT)
            assert session.verify().passed
            assert session.predict(picture()).label
            assert len(list(session.outputs_of([picture(seed) for seed in range(5)]))) == 5
    with edgetl.load(path) as session:
        assert session.variant.name == "fp32"


def test_an_engine_that_does_not_take_the_file_is_refused(tmp_path: Path) -> None:
    path = bundle_of(tmp_path, b"any bytes")
    with pytest.raises(
        BundleError, match=r"int8-litert is a file of the format tflite, which the target cpu does"
    ):
        edgetl.load(path, variant="int8-litert", target="cpu")
    pack(contents(tmp_path), tmp_path / "other.edgetl")
    with pytest.raises(BundleError, match="has no variant made for litert"):
        edgetl.load(tmp_path / "other.edgetl", target="litert")
    with pytest.raises(BundleError, match="ONNX is written of ONNX alone"):
        write_onnx(path, ServeOptions(variant="int8-litert"), tmp_path / "m.onnx")
    record = write_litert(path, ServeOptions(variant="int8-litert"), tmp_path / "m.tflite")
    assert (tmp_path / "m.tflite").read_bytes() == b"any bytes"
    assert record.size_bytes == 9


@needs_litert
def test_a_model_of_another_task_is_refused(tmp_path: Path) -> None:
    from edgetl.export.litert.convert import to_tflite

    other = to_tflite(onnx.load_from_string(classifier(names=("images", "boxes"))))
    with pytest.raises(
        ModelError,
        match=r"variant int8-litert gives boxes \(N, 3\) float32; the manifest's task, classification, asks for logits",
    ):
        edgetl.load(bundle_of(tmp_path, other), target="litert", threads=1)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    path = bundle_of(tmp_path, b"any bytes")
    path.write_bytes(path.read_bytes().replace(b"any bytes", b"any bytez"))
    with pytest.raises(BundleIntegrityError, match=r"models/int8-litert\.tflite"):
        edgetl.load(path, target="litert")


def test_without_litert_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bundle_of(tmp_path, b"any bytes")
    for module in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingDependencyError, match=r"ai-edge-litert is not available.*pip install ai-edge-litert"
    ):
        edgetl.load(path, target="litert")


def only_for_litert(folder: Path, model: bytes) -> Path:
    """A bundle with no other variant."""
    parts = contents(folder)
    golden = parts.golden
    alone = dataclasses.replace(
        parts,
        variants=[
            VariantSource(
                name="fp32-litert", precision="fp32", target="litert", model=model, format=ModelFormat.TFLITE
            )
        ],
        default="fp32-litert",
        golden=GoldenSet(
            images=golden.images, pixels=golden.pixels, outputs={"fp32-litert": golden.outputs["fp32"]}
        ),
    )
    pack(alone, folder / "alone.edgetl")
    return folder / "alone.edgetl"


@needs_litert
def test_where_all_files_are_for_litert_it_runs_them_unasked(tmp_path: Path) -> None:
    path = only_for_litert(tmp_path, tflite())
    with edgetl.load(path, threads=1) as session:
        assert (session.variant.name, session.choice.target) == ("fp32-litert", EngineName.LITERT)
        assert session.verify().passed
    with pytest.raises(BundleError, match="has no variant made for any or cpu or cpu-"):
        edgetl.load(path, target="cpu")


def test_where_all_files_are_for_litert_and_it_is_absent_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = only_for_litert(tmp_path, b"any bytes")
    for module in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"ai-edge-litert is not.*pip install ai-edge-litert"):
        edgetl.load(path)


@needs_litert
def test_it_says_nothing_and_other_words_are_passed_on() -> None:
    script = """
import os, sys
from edgetl.runtime.engines import litert
with litert._without_notice():
    os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\\nheard\\n")
litert._noticed = False
model = sys.stdin.buffer.read()
litert.LiteRtBackend(model, threads=1)
litert.LiteRtBackend(model, threads=1)
"""
    done = subprocess.run([sys.executable, "-c", script], input=tflite(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"heard\n")
