from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import edgetl
from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.errors import ModelError
from edgetl.runtime import tuned
from edgetl.runtime.choice import choose_here
from edgetl.runtime.engines.table import ENGINES
from edgetl.runtime.targets import EngineName, tuned_path
from edgetl.runtime.tuned import Winner, engine_versions, keep, this_machine
from tests.bench_stage.bundles import write_variants

REASON = "quick on openvino was the fastest of 4 measured here on 2026-11-24: 0.93 ms against 1.21 ms of fp32 on cpu"
DEFAULT = "fp32 is the bundle's default; it carries no measured latency"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_variants(tmp_path_factory.mktemp("tuned") / "colours.edgetl"))


@pytest.fixture(autouse=True)
def _own_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path))


def winner(**changes: Any) -> Winner:
    found = Winner(
        variant="quick",
        target=EngineName.CPU,
        reason=REASON,
        date="2026-11-24",
        machine=this_machine(),
        versions=engine_versions(),
    )
    return replace(found, **changes)


def reason(bundle: Bundle, **options: Any) -> str:
    """Why what runs is not what was measured; it must be the default."""
    with edgetl.load(bundle.path, **{"threads": 1, **options}) as session:
        assert (session.choice.variant, session.choice.target) == ("fp32", EngineName.CPU)
        assert not session.choice.measured_here
        return session.choice.reason


def test_without_a_file_nothing_changes_and_nothing_more_is_imported(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "edgetl.runtime.tuned")
    assert reason(bundle) == DEFAULT
    assert "edgetl.runtime.tuned" not in sys.modules


def test_a_user_without_a_home_has_measured_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("EDGETL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    assert reason(bundle) == DEFAULT


def test_the_winner_runs_on_its_engine_and_its_reason_is_told(bundle: Bundle) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    keep(bundle, 1, winner(target=EngineName.OPENVINO))
    with edgetl.load(bundle.path, threads=1) as session:
        assert (session.variant.name, session.choice.target) == ("quick", EngineName.OPENVINO)
        assert session.backend.providers == ("OpenVINO CPU",)
        assert (session.choice.reason, session.choice.measured_here) == (REASON, True)
        assert session.verify().passed


def test_what_is_asked_for_is_taken_whatever_was_measured(bundle: Bundle) -> None:
    keep(bundle, 1, winner())
    assert reason(bundle, target="cpu") == DEFAULT
    assert reason(bundle, variant="fp32").startswith("fp32 was asked for")
    assert reason(bundle, precision="fp32") == DEFAULT
    assert choose_here(bundle, threads=1).variant == "quick"


def test_a_gpu_is_not_called_unmeasured_where_it_lost(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    keep(bundle, 1, winner())
    with edgetl.load(bundle.path, threads=1) as session:
        assert session.choice.reason == REASON


def test_a_winner_that_cannot_be_opened_is_an_error_and_nothing_takes_its_place(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(tuned, "engine_versions", lambda: {"onnxruntime": "1.32.0"})
    keep(
        bundle,
        1,
        winner(target=EngineName.OPENVINO, versions={"onnxruntime": "1.32.0", "openvino": "2026.4.1"}),
    )
    with pytest.raises(ModelError) as caught:
        edgetl.load(bundle.path, threads=1)
    assert str(caught.value) == (
        "edgetl tune found quick on openvino the fastest here, but it cannot be opened any more (openvino is not "
        f"available). Name a target, e.g. cpu, or measure again with: edgetl tune {bundle.path}"
    )


def test_other_engines_make_it_stale(bundle: Bundle) -> None:
    old = dict.fromkeys(engine_versions(), "1.0") | {"tensorrt": "11.4"}
    keep(bundle, 1, winner(versions=old))
    stated = reason(bundle)
    assert stated.startswith(
        f"{DEFAULT}; what edgetl tune measured on 2026-11-24 is stale, as engines changed ("
    )
    assert f"onnxruntime 1.0, now {engine_versions()['onnxruntime']}" in stated
    assert "tensorrt 11.4, now absent" in stated
    assert stated.endswith(f"): measure again with: edgetl tune {bundle.path}")


def test_another_machine_makes_it_stale(bundle: Bundle) -> None:
    keep(bundle, 1, winner(machine="aarch64 Cortex x4"))
    assert reason(bundle) == (
        f"{DEFAULT}; what edgetl tune measured on 2026-11-24 is stale, as it was on aarch64 Cortex x4 and this is "
        f"{this_machine()}: measure again with: edgetl tune {bundle.path}"
    )


def test_it_holds_for_its_number_of_threads_alone(bundle: Bundle) -> None:
    keep(bundle, 10, winner())
    keep(bundle, 2, winner(variant="fp32"))
    assert choose_here(bundle, threads=10).variant == "quick"
    assert choose_here(bundle, threads=2).variant == "fp32"
    assert reason(bundle) == (
        f"{DEFAULT}; edgetl tune measured here with 2 and 10 threads, not with 1: measure with: "
        f"edgetl tune {bundle.path} --threads 1"
    )


def test_the_best_number_of_threads_runs_where_none_is_asked_for(bundle: Bundle) -> None:
    keep(bundle, None, winner(threads=1))
    found = choose_here(bundle, threads=None)
    assert (found.variant, found.threads, found.measured_here) == ("quick", 1, True)
    with edgetl.load(bundle.path) as session:
        assert session.backend.threads == 1
    assert reason(bundle) == (
        f"{DEFAULT}; edgetl tune measured here with the best number of threads, not with 1: measure with: "
        f"edgetl tune {bundle.path} --threads 1"
    )
    keep(bundle, 1, winner(variant="fp32"))
    assert choose_here(bundle, threads=1).variant == "fp32"
    assert choose_here(bundle, threads=None).variant == "quick"


def test_without_a_best_number_what_was_measured_with_every_core_holds(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "usable_cores", lambda: 7)
    machine = this_machine()
    keep(bundle, 7, winner(machine=machine))
    assert choose_here(bundle, threads=None).threads == 7


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:40],
        lambda text: text.replace('"schema_version": 1', '"schema_version": 2'),
        lambda text: text.replace('"quick"', '"gone"'),
        lambda text: text.replace('"cpu"', '"auto"'),
        lambda text: text.replace('"1"', '"one"'),
        lambda _: '{"schema_version": 1, "by_threads": {}}',
        lambda _: "[" * 100_000,
        lambda _: "\0",
    ],
)
def test_a_file_that_cannot_be_read_is_told_of_and_is_written_anew(bundle: Bundle, spoil: Any) -> None:
    path = keep(bundle, 1, winner())
    spoiled = spoil(path.read_text())
    assert spoiled != path.read_text()
    path.write_text(spoiled)
    assert reason(bundle) == (
        f"{DEFAULT}; what edgetl tune saved in {path} cannot be read: measure again with: edgetl tune {bundle.path}"
    )
    keep(bundle, 1, winner())
    assert choose_here(bundle, threads=1).variant == "quick"


def test_another_bundle_has_a_file_of_its_own(bundle: Bundle) -> None:
    other = replace(bundle, manifest_bytes=bundle.manifest_bytes + b" ")
    path = keep(bundle, 1, winner())
    assert json.loads(path.read_text())["schema_version"] == 1
    assert tuned_path(other) != path == tuned_path(bundle)


def test_versions_are_those_of_the_packages_metadata() -> None:
    names = {name for engine in ENGINES.values() for name in engine.packages}
    expected = {
        name: metadata.version(name) for name in names if any(metadata.Distribution.discover(name=name))
    }
    assert any(name.startswith("onnxruntime") for name in expected)
    assert engine_versions() == expected


def test_machines_are_told_apart_by_processor_board_and_gpu(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    cpuinfo = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel name\t: AMD EPYC\ncpu MHz\t\t: {}\n\n"
    (proc / "cpuinfo").write_text(cpuinfo.format("2445.406") * 2)
    plain = this_machine(tmp_path)
    assert "AuthenticAMD 25 AMD EPYC x" in plain
    (proc / "cpuinfo").write_text(cpuinfo.format("3000.000") * 64)
    assert this_machine(tmp_path) == plain
    gpu = proc / "driver/nvidia/gpus/0000:01:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text("Model: \t\t NVIDIA H100\nIRQ: 12\n")
    (proc / "driver/nvidia/version").write_text("NVRM version: 570.1\nGCC version: 12\n")
    assert this_machine(tmp_path) == f"{plain}, Model: NVIDIA H100, NVRM version: 570.1"
    (proc / "device-tree").mkdir()
    (proc / "device-tree/model").write_bytes(b"Raspberry Pi 5\0")
    assert ", Raspberry Pi 5, Model" in this_machine(tmp_path)
    assert this_machine(tmp_path / "nowhere")
