from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgetl
from edgetl import processor
from edgetl.bench.machine import describe
from edgetl.bundle.archive import open_bundle
from edgetl.bundle.manifest import EngineFile, Golden, Manifest, ModelFormat, Precision, Provenance, Variant
from edgetl.bundle.pack import pack
from edgetl.errors import BundleError, ConfigError
from edgetl.inputs.image import PreprocessSpec
from edgetl.process import usable_cores
from edgetl.processor import architecture, kind
from edgetl.records.measured import Machine
from edgetl.runtime.choice import choose, choose_here, unmeasured_gpus
from edgetl.runtime.targets import EngineName, tuned_path
from edgetl.tasks.base import Classification
from edgetl.tasks.classification.scores import evaluate_predictions
from tests.bundles import contents, picture
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


ELSEWHERE = "measured on EPYC x2, Linux x86_64, another kind of machine: measure here with edgetl tune BUNDLE"
ARM_INT8 = variant("int8-cpu-arm", "cpu-arm", top1=0.97, p50=4.0)


@pytest.fixture(name="dot_product")
def _dot_product(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda there: monkeypatch.setattr(processor, "has_dot_product", lambda: there)


def test_figures_of_another_kind_of_machine_rank_nothing() -> None:
    found = choose(manifest(FP32, HALF, INT8, default="int8-cpu-x86"), arch="arm")
    assert found.variant == "fp32"
    assert found.reason == (
        "fp32 is made for any machine, and the default int8-cpu-x86 was made for cpu-x86: 3.00 ms at 97.0%, "
        f"{ELSEWHERE}"
    )
    smaller = replace(HALF, size_bytes=0)
    assert choose(manifest(FP32, smaller, INT8, default="int8-cpu-x86"), arch="arm").variant == HALF.name


def test_figures_of_ones_own_kind_rank() -> None:
    arm = replace(X86, cpu="Cortex", system="Linux aarch64")
    quick, slow = replace(HALF, machine=arm), replace(FP32, machine=arm)
    found = choose(manifest(slow, quick, INT8, default="int8-cpu-x86"), arch="arm")
    assert found.reason == (
        "fp32-half-weights is the fastest made for any machine, and the default int8-cpu-x86 was made for cpu-x86: "
        "2.90 ms at 97.0%, measured on Cortex x2, Linux aarch64"
    )


def test_int8_for_this_cpu_runs_first_where_it_has_the_instructions(
    dot_product: Callable[[bool], None],
) -> None:
    bundle = manifest(FP32, ARM_INT8, default="fp32")
    dot_product(True)
    assert choose(bundle, arch="arm").reason == (
        f"int8-cpu-arm is made for cpu-arm and this processor's INT8 instructions: 4.00 ms at 97.0%, {ELSEWHERE}"
    )
    dot_product(False)
    assert choose(bundle, arch="arm").reason == (
        f"fp32 is the bundle's default: 3.00 ms at 97.0%, {ELSEWHERE}"
    )
    of_int8 = choose(replace(bundle, default=ARM_INT8.name), arch="arm")
    assert of_int8.reason == (
        "fp32 is made for any machine, while int8-cpu-arm is in INT8, for which this processor has no instructions: "
        f"3.00 ms at 97.0%, {ELSEWHERE}"
    )


def test_int8_that_is_less_accurate_is_passed_over_and_named(dot_product: Callable[[bool], None]) -> None:
    dot_product(True)
    worse = variant("int8-cpu-arm", "cpu-arm", top1=0.95, p50=1.0)
    assert choose(manifest(FP32, worse, default="fp32"), arch="arm").reason == (
        "fp32 is the bundle's default, while int8-cpu-arm is less accurate (95.0%): 3.00 ms at 97.0%, "
        f"{ELSEWHERE}"
    )


def test_of_litert_float_runs_where_int8_has_no_instructions(dot_product: Callable[[bool], None]) -> None:
    plain, small = (
        replace(variant(name, "litert", top1=0.97, p50=2.0), format=ModelFormat.TFLITE)
        for name in ("fp32-litert", "int8-litert")
    )
    bundle = manifest(FP32, plain, small, default="fp32")
    for there, expected, why in (
        (True, "int8-litert", "litert and this processor's INT8 instructions"),
        (False, "fp32-litert", "litert"),
    ):
        dot_product(there)
        found = choose(bundle, target=EngineName.LITERT, arch="arm")
        assert found.variant == expected
        assert found.reason.startswith(f"{expected} is made for {why}, and the default fp32 was made for any")


@pytest.mark.parametrize(("there", "expected"), [(True, "int8-cpu-x86-vnni"), (False, "fp32")])
def test_x86_with_vnni_and_without_are_two_kinds(
    there: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "has_vnni", lambda: there)
    other = replace(X86, processor="x86" if there else "x86-vnni")
    fine = variant("int8-cpu-x86-vnni", "cpu-x86-vnni", top1=0.97, p50=9.0)
    plain, wide = (
        replace(v, machine=other) for v in (FP32, variant("int8-cpu-x86", "cpu-x86", top1=0.98, p50=9.0))
    )
    found = choose(manifest(plain, wide, replace(fine, machine=other), default="fp32"), arch="x86")
    assert found.variant == expected
    own = replace(X86, processor="x86-vnni" if there else "x86")
    assert choose(manifest(replace(FP32, machine=own), wide, default="fp32"), arch="x86").variant == "fp32"


def test_tune_is_suggested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path / "cache"))
    foreign = replace(X86, system="Linux riscv64")
    parts = contents(tmp_path)
    parts = replace(
        parts, variants=[replace(v, latency=latency(1.0), machine=foreign) for v in parts.variants]
    )
    pack(parts, tmp_path / "b.edgetl")
    bundle = open_bundle(tmp_path / "b.edgetl")
    assert choose_here(bundle, threads=1).reason.count("edgetl tune") == 1
    tuned_path(bundle).parent.mkdir(parents=True)
    tuned_path(bundle).write_text("{}")
    stated = choose_here(bundle, threads=1).reason
    assert stated.count("measure again with") == 1
    assert "measure here" not in stated


def test_weights_in_int8_are_for_cpus_of_every_kind_and_for_no_gpu() -> None:
    light = replace(variant("fp32-int8-weights", "cpu", top1=0.97, p50=2.8), size_bytes=0)
    bundle = manifest(FP32, light, INT8, default="int8-cpu-x86")
    found = choose(bundle, arch="arm")
    assert found.variant == "fp32-int8-weights"
    assert found.reason.startswith(
        "fp32-int8-weights is made for any CPU, and the default int8-cpu-x86 was made for cpu-x86"
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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 1),
        ({"cores": 64}, None),
        ({"processor": "arm"}, None),
    ],
)
def test_the_better_number_of_threads_is_taken_on_a_like_machine(
    change: dict[str, Any], expected: int | None
) -> None:
    here = replace(X86, **{"cores": usable_cores(), "processor": kind("x86"), **change})
    one, two = (replace(latency(ms), threads=number, p50_ms=ms) for number, ms in ((1, 1.0), (2, 1.4)))
    both = replace(FP32, latency=one, other_latency=two, machine=here)
    found = choose(manifest(both, default="fp32"), arch="x86")
    assert found.threads == expected
    assert "fp32 is the bundle's default: 1.00 ms with 1 thread (1.40 with 2) at 97.0%" in found.reason
    assert choose(manifest(both, default="fp32"), target=EngineName.OPENVINO, arch="x86").threads is None
    single = replace(both, other_latency=None)
    assert choose(manifest(single, default="fp32"), arch="x86").threads is None


def test_load_takes_the_better_number_and_works_on_many_images_with_all(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    both = {
        "latency": replace(latency(1.0), threads=1),
        "other_latency": replace(latency(1.4), threads=2),
        "machine": describe(),
    }
    parts = replace(parts, variants=[replace(v, **both) for v in parts.variants])
    pack(parts, tmp_path / "b.edgetl")
    with edgetl.load(tmp_path / "b.edgetl") as session:
        assert session.backend.threads == session.choice.threads == 1
        assert session._workers == usable_cores()
        assert "with 1 thread (1.4" in session.choice.reason
        assert len(session.predict([picture(i) for i in range(5)])) == 5
    with edgetl.load(tmp_path / "b.edgetl", threads=2) as session:
        assert session.backend.threads == session._workers == 2


def test_without_figures_the_reason_says_so() -> None:
    found = choose(manifest(variant("fp32", "any"), default="fp32"))
    assert found.reason == "fp32 is the bundle's default; it carries no measured latency"


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", "x86"),
        ("AMD64", "x86"),
        ("aarch64", "arm"),
        ("arm64", "arm"),
        ("armv7l", "arm32"),
        ("riscv64", "riscv64"),
    ],
)
def test_processor_families(monkeypatch: pytest.MonkeyPatch, machine: str, expected: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert architecture() == expected


def test_kinds_of_processor(monkeypatch: pytest.MonkeyPatch, dot_product: Callable[[bool], None]) -> None:
    for there in (False, True):
        monkeypatch.setattr(processor, "has_vnni", lambda there=there: there)
        dot_product(there)
        kinds = [kind("x86"), kind("arm"), kind("arm32")]
        assert kinds == (["x86-vnni", "arm-dotprod", "arm32"] if there else ["x86", "arm", "arm32"])


def test_what_is_made_for_64_bit_arm_is_not_chosen_on_32_bits() -> None:
    bundle = manifest(FP32, ARM_INT8, default=ARM_INT8.name)
    assert choose(bundle, arch="arm32").variant == FP32.name
    assert choose(bundle, arch="arm32", variant=ARM_INT8.name).variant == ARM_INT8.name


def test_load_says_what_it_chose_and_refuses_unknown_words(tmp_path) -> None:
    pack(contents(tmp_path), tmp_path / "b.edgetl")
    with edgetl.load(tmp_path / "b.edgetl") as session:
        assert (session.choice.variant, session.choice.target) == ("fp32", EngineName.CPU)
        assert session.variant.name == "fp32"
    with pytest.raises(ConfigError, match="target: got 'gpu', expected one of auto, cpu, cuda, ort-tensorrt"):
        edgetl.load(tmp_path / "b.edgetl", target="gpu")
    with pytest.raises(ConfigError, match="precision: got 'int4', expected one of fp32"):
        edgetl.load(tmp_path / "b.edgetl", precision="int4")
