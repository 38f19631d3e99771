"""The worker process, its cache of engines, and builds from bundles."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.pack import pack
from edgetl.deploy.engine import build_from_bundle
from edgetl.errors import BundleError, BundleIntegrityError, ConfigError, MissingDependencyError, ModelError
from edgetl.export.tensorrt import (
    BuildOptions,
    EnginePrecision,
    EngineTarget,
    build_engine,
    cache,
    gpu,
    process,
)
from edgetl.export.tensorrt.builder import BuiltEngine
from edgetl.export.tensorrt.cache import EngineKey
from edgetl.export.tensorrt.gpu import Gpu
from edgetl.files import sha256_bytes
from edgetl.progress import SILENT
from edgetl.records.variants import EngineRecord
from tests.bundles import contents
from tests.onnx_models import classifier

RTX = BuildOptions(target=EngineTarget.TENSORRT_RTX, compute_capabilities=("89",))
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")


class Shown(type(SILENT)):  # type: ignore[misc]
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    pack(contents(tmp_path), tmp_path / "flowers.edgetl")
    return tmp_path / "flowers.edgetl"


@needs_rtx
@pytest.mark.trt
def test_a_kept_engine_is_taken_and_a_truncated_one_is_built_again() -> None:
    progress = Shown()
    first = build_engine(classifier(), RTX)
    second = build_engine(classifier(), RTX, progress=progress)
    assert (first.record.cached, second.record.cached) == (False, True)
    assert first.content == second.content
    (kept,) = cache.folder().glob("*.engine")
    kept.write_bytes(first.content[:1000])
    third = build_engine(classifier(), RTX, progress=progress)
    assert progress.warnings == [f"The cached engine {kept} is truncated or altered; it is built again."]
    assert third.content == first.content == kept.read_bytes()
    assert not third.record.cached
    assert not build_engine(classifier(), RTX, reuse=False).record.cached


@needs_rtx
@pytest.mark.trt
def test_errors_of_the_worker_keep_their_class_and_text() -> None:
    with pytest.raises(ConfigError, match="compute capability: got '12', tensorrt-rtx"):
        build_engine(classifier(), replace(RTX, compute_capabilities=("12",)))
    with pytest.raises(ModelError, match="fp16 was asked, but of 2 convolutions"):
        build_engine(classifier(), replace(RTX, precision=EnginePrecision.FP16))


def test_a_worker_that_crashes_takes_nothing_down(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, sys; print('no json'); print('out of memory', file=sys.stderr); sys.stderr.flush(); os.abort()"
    monkeypatch.setattr(process, "_command", lambda folder: [sys.executable, "-c", script])
    with pytest.raises(ModelError) as caught:
        build_engine(classifier(), RTX)
    assert str(caught.value) == (
        "tensorrt-rtx died while it compiled the model (signal SIGABRT); nothing was written. "
        "Its last words: out of memory"
    )


def test_a_missing_file_and_a_missing_builder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no ONNX model at .*no\.onnx"):
        build_engine(tmp_path / "no.onnx", RTX)
    if find_spec("tensorrt") is None:
        with pytest.raises(MissingDependencyError, match=r"pip install tensorrt"):
            build_engine(classifier(), BuildOptions(target=EngineTarget.TENSORRT))


def test_a_model_that_was_altered_after_it_was_hashed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = process._run

    def alter(command: Any, folder: Path, *rest: Any) -> None:
        (folder / "model.onnx").write_bytes(classifier(seed=1))
        whole(command, folder, *rest)

    monkeypatch.setattr(process, "_run", alter)
    with pytest.raises(ModelError, match="altered after it was hashed; nothing was built"):
        build_engine(classifier(), RTX)


def test_all_that_an_engine_depends_on_is_in_its_key() -> None:
    options = BuildOptions(target=EngineTarget.TENSORRT)
    card = Gpu(name="Orin", compute_capability="87", driver="36.4")
    base = EngineKey.of(b"onnx", options, "10.14", card)
    others = [
        EngineKey.of(b"other", options, "10.14", card),
        EngineKey.of(b"onnx", replace(options, precision=EnginePrecision.FP16), "10.14", card),
        EngineKey.of(b"onnx", replace(options, sparse_weights=True), "10.14", card),
        EngineKey.of(b"onnx", replace(options, batch=(1, 1, 4)), "10.14", card),
        EngineKey.of(b"onnx", options, "11.4", card),
        EngineKey.of(b"onnx", options, "10.14", replace(card, name="Xavier")),
        EngineKey.of(b"onnx", options, "10.14", replace(card, driver="36.5")),
    ]
    assert len({key.digest for key in (base, *others)}) == 8
    assert base.digest == EngineKey.of(b"onnx", options, "10.14", card).digest
    assert EngineKey.of(b"onnx", RTX, "1.7", card).digest == EngineKey.of(b"onnx", RTX, "1.7", None).digest


def test_a_kept_engine_of_another_driver_is_not_found() -> None:
    options = BuildOptions(target=EngineTarget.TENSORRT)
    card = Gpu(name="Orin", compute_capability="87", driver="36.4")
    record = EngineRecord(
        target="tensorrt",
        compute_capabilities=(),
        tensorrt_version="10.14",
        batch=(1, 1, 8),
        size_bytes=6,
        sha256=sha256_bytes(b"engine"),
        seconds=1.0,
    )
    key = EngineKey.of(b"onnx", options, "10.14", card)
    cache.store(key, BuiltEngine(b"engine", record))
    said: list[str] = []
    found = cache.load(key, said.append)
    assert found is not None
    assert found.content == b"engine"
    newer = EngineKey.of(b"onnx", options, "10.14", replace(card, driver="36.5"))
    assert cache.load(newer, said.append) is None
    assert said == []


def test_each_device_has_its_own_timing_cache() -> None:
    options = BuildOptions(target=EngineTarget.TENSORRT)
    card = Gpu(name="Orin", compute_capability="87", driver="36.4")
    paths = {cache.timing_cache(options, version, card) for version in ("10.14", "11.4")}
    assert len(paths) == 2
    assert cache.timing_cache(RTX, "1.7", card) is None


def test_a_jetson_without_nvidia_smi_is_told_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_QUERY", ["no-such-program"])
    assert gpu.find_gpu() is None
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano\x00")
    (tmp_path / "release").write_text("# R36 (release), REVISION: 4.3, GCID: 1\nmore")
    monkeypatch.setattr(gpu, "_JETSON_MODEL", tmp_path / "model")
    monkeypatch.setattr(gpu, "_JETSON_RELEASE", tmp_path / "release")
    found = gpu.find_gpu()
    assert found == Gpu(
        name="NVIDIA Jetson Orin Nano", compute_capability="", driver="R36 (release), REVISION: 4.3"
    )


# --- from bundles -------------------------------------------------------------------------------------------


@needs_rtx
@pytest.mark.trt
def test_an_engine_is_built_from_a_bundle_beside_it_and_into_it(bundle: Path) -> None:
    options = replace(RTX, batch=(1, 1, 4))
    record = build_from_bundle(bundle, options)
    assert record.path == str(bundle.with_name("flowers-fp32-tensorrt-rtx-sm89.engine"))
    assert (record.variant, record.batch, record.precision) == ("fp32", (1, 1, 4), "fp32")
    assert sha256_bytes(Path(record.path).read_bytes()) == record.sha256
    inside = build_from_bundle(bundle, options, output=bundle)
    [engine] = open_bundle(bundle).manifest.engines
    assert engine.sha256 == inside.sha256 == record.sha256
    assert engine.precision == "fp32"


@needs_rtx
@pytest.mark.trt
def test_half_precision_is_made_from_the_float32_model_and_travels_with_its_engine(bundle: Path) -> None:
    import edgetl

    record = build_from_bundle(bundle, RTX, precision=EnginePrecision.FP16, output=bundle)
    assert (record.variant, record.precision, record.layers) == ("fp16", "fp16", {"fp16": 2})
    manifest = open_bundle(bundle).manifest
    assert [v.name for v in manifest.variants] == ["fp32", "int8-cpu-x86", "fp16"]
    with edgetl.load(bundle, variant="fp16") as session:
        assert session.verify().passed
    again = build_from_bundle(bundle, RTX, precision=EnginePrecision.FP16)
    assert again.cached
    assert again.sha256 == record.sha256


def test_a_precision_that_the_bundle_cannot_give_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleError, match="has no variant 'int4'"):
        build_from_bundle(bundle, RTX, variant="int4")
    with pytest.raises(
        BundleError, match=r"no int8 variant made for tensorrt-rtx; .*quantize.target = 'tensorrt-rtx'"
    ):
        build_from_bundle(bundle, RTX, precision=EnginePrecision.INT8)
    with pytest.raises(ConfigError, match="Variant int8-cpu-x86 computes in int8, and fp16 was asked for"):
        build_from_bundle(bundle, RTX, precision=EnginePrecision.FP16, variant="int8-cpu-x86")


def test_a_bundle_whose_model_was_altered_is_not_compiled(bundle: Path) -> None:
    content = bytearray(bundle.read_bytes())
    place = content.index(b"classifier")
    content[place] ^= 1
    bundle.write_bytes(bytes(content))
    with pytest.raises(BundleIntegrityError, match=r"models/fp32\.onnx was altered"):
        build_from_bundle(bundle, RTX)
