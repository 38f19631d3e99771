"""The one table of what runs here: every target of quantization against every engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn, cast

import pytest

import edgetl
from edgetl import processor
from edgetl.bundle.manifest import ModelFormat
from edgetl.bundle.pack import pack
from edgetl.config import Target as QuantizeTarget
from edgetl.errors import ModelError
from edgetl.processor import computes
from edgetl.runtime.choice import choose
from edgetl.runtime.engines.base import Opening
from edgetl.runtime.engines.table import ENGINES, Engine, engine_of
from edgetl.runtime.targets import EngineName
from tests.bundles import contents
from tests.runtime.test_targets import manifest, variant

CPU = {EngineName.CPU, EngineName.OPENVINO}
TENSORRT = {EngineName.ORT_TENSORRT, EngineName.TENSORRT, EngineName.TENSORRT_RTX}
SUITED = {
    ("any", "x86", False): set(ENGINES) - {EngineName.LITERT},
    ("cpu", "arm", False): CPU,
    ("cpu-x86", "x86", False): CPU,
    ("cpu-x86", "x86", True): CPU,
    ("cpu-x86", "arm", False): set(),
    ("cpu-x86-vnni", "x86", False): set(),
    ("cpu-x86-vnni", "x86", True): CPU,
    ("cpu-x86-vnni", "arm", False): set(),
    ("cpu-arm", "arm", False): CPU,
    ("cpu-arm", "x86", True): set(),
    ("openvino", "x86", False): {EngineName.OPENVINO},
    ("litert", "x86", False): {EngineName.LITERT},
    ("litert", "arm", False): {EngineName.LITERT},
    ("tensorrt", "x86", False): TENSORRT,
    ("tensorrt-rtx", "x86", False): TENSORRT,
    ("gpu", "x86", False): {EngineName.CUDA, EngineName.ORT_TENSORRT},
}


def test_every_engine_and_every_target_of_quantization_is_told_of() -> None:
    assert set(ENGINES) == set(EngineName) - {EngineName.AUTO}
    assert all(engine.name is target and engine.packages for target, engine in ENGINES.items())
    assert {target for target, _, _ in SUITED} >= {str(target) for target in QuantizeTarget}
    assert engine_of(EngineName.AUTO) is ENGINES[EngineName.CPU]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    pack(contents(folder), folder / "b.edgetl")
    return folder / "b.edgetl"


@pytest.mark.parametrize("target", [t for t in EngineName if engine_of(t).model_format is ModelFormat.ONNX])
def test_a_session_is_opened_by_its_engine_in_the_table(
    target: EngineName, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(target)

    def opened(asked: Opening) -> NoReturn:
        assert (asked.threads, asked.signed) == (1, False)
        assert asked.read() == asked.bundle.read(asked.variant.member)
        raise ModelError(f"opened by {engine.name}")

    monkeypatch.setitem(cast("dict[EngineName, Engine]", ENGINES), engine.name, replace(engine, open=opened))
    with pytest.raises(ModelError, match=f"^opened by {engine.name}$"):
        edgetl.load(bundle, target=target, threads=1)


@pytest.mark.parametrize("target", list(QuantizeTarget))
def test_what_is_quantized_for_a_target_suits_an_engine_somewhere(target: QuantizeTarget) -> None:
    assert any(engines for (made_for, _, _), engines in SUITED.items() if made_for == target)


@pytest.mark.parametrize(("target", "arch", "vnni"), SUITED)
def test_which_engines_suit_a_target(
    target: str, arch: str, vnni: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "has_vnni", lambda: vnni)
    file = ModelFormat.TFLITE if target == "litert" else ModelFormat.ONNX
    made = replace(variant("v", target), format=file)
    assert {t for t, engine in ENGINES.items() if engine.suits(made, arch)} == SUITED[target, arch, vnni]
    assert computes(target, arch) == (EngineName.CPU in SUITED[target, arch, vnni])


@pytest.mark.parametrize(("vnni", "expected"), [(True, "int8-cpu-x86-vnni"), (False, "fp32")])
def test_a_default_for_vnni_runs_where_there_is_vnni(
    vnni: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "has_vnni", lambda: vnni)
    quick = variant("int8-cpu-x86-vnni", "cpu-x86-vnni", top1=0.96, p50=0.6)
    bundle = manifest(variant("fp32", "any", top1=0.97, p50=2.0), quick, default=quick.name)
    assert choose(bundle, arch="x86").variant == expected
    assert choose(bundle, arch="arm").variant == "fp32"


def test_a_file_of_another_format_suits_no_engine() -> None:
    other = replace(variant("v", "any"), format="other")  # type: ignore[arg-type]
    assert not [engine for engine in ENGINES.values() if engine.suits(other, "x86")]


def test_init_asks_for_vnni_where_this_machine_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetl.data import suggest

    monkeypatch.setattr(suggest, "architecture", lambda: "x86")
    monkeypatch.setattr(suggest, "has_vnni", lambda: True)
    [found] = suggest.suggest_target()
    assert (found.key, found.value) == ("quantize.target", ["cpu-x86-vnni"])
    monkeypatch.setattr(suggest, "has_vnni", lambda: False)
    assert suggest.suggest_target() == ()
    monkeypatch.setattr(suggest, "has_vnni", lambda: True)
    monkeypatch.setattr(suggest, "architecture", lambda: "arm")
    assert suggest.suggest_target() == ()
