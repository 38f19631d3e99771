from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import edgetl
from edgetl.bundle.manifest import EngineFile, Golden, Manifest, Precision, Provenance, Variant
from edgetl.bundle.pack import pack
from edgetl.errors import BundleError, ConfigError
from edgetl.inputs.image import PreprocessSpec
from edgetl.processor import architecture
from edgetl.records.measured import Machine
from edgetl.runtime.choice import choose, unmeasured_gpus
from edgetl.runtime.targets import EngineName
from edgetl.tasks.base import Classification
from edgetl.tasks.classification.scores import evaluate_predictions
from tests.bundles import contents
from tests.report.conftest import latency

X86 = Machine(cpu="EPYC", cores=2, memory_bytes=1, system="Linux x86_64", python="3.11")


def variant(name: str, target: str, *, top1: float | None = None, p50: float | None = None) -> Variant:
    precision = Precision.INT8 if name.startswith("int8") else Precision.FP32
    scores = None
    if top1 is not None:
        right = round(100 * top1)
        labels = [0] * 100
        scores = evaluate_predictions(labels, [0] * right + [1] * (100 - right), ("a", "b"))
    return Variant(
        name=name,
        precision=precision,
        target=target,
        file=f"models/{name}.onnx",
        size_bytes=1,
        sha256="0" * 64,
        val=scores,
        latency=replace(latency(p50), p50_ms=p50) if p50 else None,
        machine=X86 if p50 else None,
    )


def manifest(*variants: Variant, default: str, engines: tuple[EngineFile, ...] = ()) -> Manifest:
    return Manifest(
        schema_version=2,
        name="set",
        task=Classification(labels=("a", "b")),
        preprocess=PreprocessSpec(size=8),
        variants=variants,
        default=default,
        golden=Golden(images=(), outputs={}, pixels_sha256=""),
        provenance=Provenance(),
        engines=engines,
    )


FP32 = variant("fp32", "any", top1=0.97, p50=3.0)
HALF = variant("fp32-half-weights", "any", top1=0.97, p50=2.9)
INT8 = variant("int8-cpu-x86", "cpu-x86", top1=0.96, p50=1.0)
SYMMETRIC = variant("int8-tensorrt", "tensorrt", top1=0.95, p50=9.0)


def test_the_default_runs_where_it_was_made_to_run_and_says_its_figures() -> None:
    found = choose(manifest(FP32, INT8, default="int8-cpu-x86"), arch="x86")
    assert (found.variant, found.target) == ("int8-cpu-x86", EngineName.CPU)
    assert found.reason == (
        "int8-cpu-x86 is the bundle's default: 1.00 ms at 96.0%, measured on EPYC x2, Linux x86_64"
    )


def test_auto_names_the_gpu_that_it_passes_over_since_no_bundle_has_figures_of_it() -> None:
    found = choose(manifest(FP32, default="fp32"), arch="x86")
    assert unmeasured_gpus(found, ["CPUExecutionProvider", "AzureExecutionProvider"]) == found
    named = unmeasured_gpus(
        found, ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert (named.variant, named.target) == ("fp32", EngineName.CPU)
    assert named.reason == (
        "fp32 is the bundle's default: 3.00 ms at 97.0%, measured on EPYC x2, Linux x86_64; ONNX Runtime "
        "offers cuda and ort-tensorrt here, for which the bundle carries no measured latency: "
        "measure with edgetl bench BUNDLE --target cuda"
    )


def test_only_auto_tells_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    pack(contents(tmp_path), tmp_path / "b.edgetl")
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    for target, stated in (("auto", True), ("cpu", False)):
        with edgetl.load(tmp_path / "b.edgetl", target=target, threads=1) as session:
            assert session.choice.target is EngineName.CPU
            assert session.backend.providers == ("CPUExecutionProvider",)
            assert ("offers cuda here" in session.choice.reason) is stated


def test_elsewhere_the_fastest_made_for_the_machine_takes_its_place_and_says_so() -> None:
    found = choose(manifest(FP32, HALF, INT8, default="int8-cpu-x86"), arch="arm")
    assert found.variant == "fp32-half-weights"
    assert found.reason == (
        "fp32-half-weights is the fastest made for any machine, and the default int8-cpu-x86 was made for cpu-x86: "
        "2.90 ms at 97.0%, measured on EPYC x2, Linux x86_64, another kind of machine: measure here with edgetl bench "
        "BUNDLE"
    )


def test_weights_in_int8_are_for_cpus_of_every_kind_and_for_no_gpu() -> None:
    light = variant("fp32-int8-weights", "cpu", top1=0.97, p50=2.8)
    bundle = manifest(FP32, light, INT8, default="int8-cpu-x86")
    found = choose(bundle, arch="arm")
    assert found.variant == "fp32-int8-weights"
    assert found.reason.startswith(
        "fp32-int8-weights is the fastest made for any CPU, and the default int8-cpu-x86"
    )
    assert choose(bundle, target=EngineName.CUDA).variant == "fp32"
    assert choose(bundle, target=EngineName.TENSORRT).variant == "fp32"


def test_a_faster_variant_that_is_less_accurate_than_the_default_is_not_taken() -> None:
    worse = variant("fp32-worse", "any", top1=0.90, p50=0.5)
    assert choose(manifest(worse, FP32, INT8, default="int8-cpu-x86"), arch="arm").variant == "fp32"


def test_a_precision_is_held() -> None:
    bundle = manifest(FP32, INT8, default="int8-cpu-x86")
    found = choose(bundle, precision=Precision.FP32, arch="x86")
    assert found.variant == "fp32"
    assert "and fp32 was asked for" in found.reason
    with pytest.raises(
        BundleError, match=r"no variant in int8 made for any or cpu or cpu-arm; it has fp32 \(made"
    ):
        choose(bundle, precision=Precision.INT8, arch="arm")
    with pytest.raises(BundleError, match="no variant 'fp32' in int8"):
        choose(bundle, variant="fp32", precision=Precision.INT8)


def test_a_variant_that_is_named_runs_whatever_its_figures() -> None:
    found = choose(manifest(FP32, SYMMETRIC, default="fp32"), variant="int8-tensorrt", arch="x86")
    assert found.variant == "int8-tensorrt"
    assert found.reason.startswith("int8-tensorrt was asked for: 9.00 ms")


def test_a_bundle_made_for_another_target_is_refused_with_what_it_has() -> None:
    with pytest.raises(
        BundleError, match=r"made for any or cpu or cpu-x86; it has int8-tensorrt \(made for tens"
    ):
        choose(manifest(SYMMETRIC, default="int8-tensorrt"), arch="x86")


def test_tensorrt_prefers_a_variant_with_an_engine_then_one_made_for_it() -> None:
    bundle = manifest(FP32, SYMMETRIC, default="fp32")
    assert choose(bundle, target=EngineName.TENSORRT).variant == "int8-tensorrt"
    engine = EngineFile(
        variant="fp32",
        target="tensorrt",
        compute_capabilities=(),
        tensorrt_version="11",
        batch=(1, 1, 8),
        file="engines/a.engine",
        size_bytes=1,
        sha256="0" * 64,
    )
    found = choose(replace(bundle, engines=(engine,)), target=EngineName.TENSORRT)
    assert found.variant == "fp32"
    assert "has an engine in the bundle" in found.reason
    assert (
        choose(replace(bundle, engines=(engine,)), target=EngineName.TENSORRT_RTX).variant == "int8-tensorrt"
    )


def test_without_figures_the_reason_says_so() -> None:
    found = choose(manifest(variant("fp32", "any"), default="fp32"))
    assert found.reason == "fp32 is the bundle's default; it carries no measured latency"


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", "x86"), ("AMD64", "x86"), ("aarch64", "arm"), ("armv7l", "arm"), ("riscv64", "riscv64")],
)
def test_processor_families(monkeypatch: pytest.MonkeyPatch, machine: str, expected: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert architecture() == expected


def test_load_says_what_it_chose_and_refuses_unknown_words(tmp_path) -> None:
    pack(contents(tmp_path), tmp_path / "b.edgetl")
    with edgetl.load(tmp_path / "b.edgetl") as session:
        assert (session.choice.variant, session.choice.target) == ("fp32", EngineName.CPU)
        assert session.variant.name == "fp32"
    with pytest.raises(ConfigError, match="target: got 'gpu', expected one of auto, cpu, cuda, ort-tensorrt"):
        edgetl.load(tmp_path / "b.edgetl", target="gpu")
    with pytest.raises(ConfigError, match="precision: got 'int4', expected one of fp32"):
        edgetl.load(tmp_path / "b.edgetl", precision="int4")
