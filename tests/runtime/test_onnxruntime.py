from __future__ import annotations

import builtins
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgetl import processor
from edgetl.errors import MissingDependencyError, ModelError, TensorError
from edgetl.process import usable_cores
from edgetl.runtime.engines import onnxruntime as engine
from edgetl.runtime.engines.base import Backend
from edgetl.runtime.engines.litert import LiteRtBackend
from edgetl.runtime.engines.onnxruntime import Device, OnnxBackend, placement
from edgetl.tasks.base import TensorSpec
from tests.onnx_models import classifier

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)


def raw(model: bytes, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize(
    ("machine", "record", "refused"),
    [
        ("aarch64", "processor\t: 0\nvendor_id\t: AuthenticAMD\n", True),
        ("aarch64", "processor\t: 0\nFeatures\t: fp asimd\n", False),
        ("x86_64", "processor\t: 0\nvendor_id\t: AuthenticAMD\n", False),
    ],
)
def test_an_emulated_processor_that_is_shown_another_ones_record_is_told_the_remedy(
    machine: str, record: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU does so, and ONNX Runtime would end the process."""
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    monkeypatch.setattr(processor, "_record", lambda: record)
    if not refused:
        assert engine.import_engine() is onnxruntime
        return
    for backend, name in ((OnnxBackend, "ONNX Runtime"), (LiteRtBackend, "LiteRT")):
        with pytest.raises(MissingDependencyError, match=rf"{name} crashes: put .* as ROOT/proc/cpuinfo"):
            backend(b"", threads=1)


@pytest.mark.parametrize("threads", [1, 2, None])
def test_it_gives_what_onnxruntime_gives(threads: int | None) -> None:
    with OnnxBackend(classifier(), threads=threads) as backend:
        logits = backend.run(IMAGES)["logits"]
    assert logits.dtype == np.float32
    assert np.array_equal(logits, raw(classifier(), IMAGES))


def test_it_describes_the_model() -> None:
    backend: Backend = OnnxBackend(classifier(names=("x", "y")), threads=1)
    assert backend.input == TensorSpec(name="x", dtype="float32", shape=(None, 3, 32, 32))
    assert backend.outputs == (TensorSpec(name="y", dtype="float32", shape=(None, 3)),)
    assert backend.providers == ("CPUExecutionProvider",)
    assert backend.threads == 1


def test_a_file_and_its_bytes_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "modèle 1.onnx"
    path.write_bytes(classifier())
    with OnnxBackend(path, threads=1) as backend:
        assert np.array_equal(backend.run(IMAGES)["logits"], raw(classifier(), IMAGES))


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(IMAGES[::2], id="not contiguous"),
        pytest.param(np.asfortranarray(IMAGES), id="column order"),
        pytest.param(IMAGES.view(np.memmap), id="subclass"),
    ],
)
def test_layouts_in_memory_do_not_matter(images: np.ndarray) -> None:
    with OnnxBackend(classifier(), threads=1) as backend:
        assert np.array_equal(backend.run(images)["logits"], raw(classifier(), np.ascontiguousarray(images)))


def test_an_empty_batch_gives_no_rows() -> None:
    with OnnxBackend(classifier(), threads=1) as backend:
        assert backend.run(IMAGES[:0])["logits"].shape == (0, 3)


@pytest.mark.parametrize(
    ("images", "came"),
    [
        (IMAGES.astype(np.float64), r"\(4, 3, 32, 32\) float64"),
        (IMAGES.astype(">f4"), r"\(4, 3, 32, 32\) >f4"),
        (IMAGES[0], r"\(3, 32, 32\) float32"),
        (IMAGES[:, :2], r"\(4, 2, 32, 32\) float32"),
        (IMAGES.transpose(0, 2, 3, 1), r"\(4, 32, 32, 3\) float32"),
        (IMAGES[..., :31], r"\(4, 3, 32, 31\) float32"),
        ([1.0], "a list"),
        (None, "a NoneType"),
    ],
)
def test_wrong_arrays_are_named_with_what_was_expected(images: Any, came: str) -> None:
    with (
        OnnxBackend(classifier(), threads=1) as backend,
        pytest.raises(TensorError, match=rf"^images: got {came}, expected \(N, 3, 32, 32\) float32\.$"),
    ):
        backend.run(images)


def test_a_fixed_batch_is_held() -> None:
    with OnnxBackend(classifier(batch=4), threads=1) as backend:
        assert backend.run(IMAGES)["logits"].shape == (4, 3)
        with pytest.raises(TensorError, match=r"got \(1, 3, 32, 32\) float32, expected \(4, 3, 32, 32\)"):
            backend.run(IMAGES[:1])


@pytest.mark.parametrize("model", [b"", b"garbage" * 20, classifier()[:-30]])
def test_broken_models_are_refused_in_one_line(model: bytes) -> None:
    with pytest.raises(ModelError, match=r"^ONNX Runtime cannot load the model: ") as caught:
        OnnxBackend(model)
    assert "\n" not in str(caught.value)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot load .*no\.onnx: "):
        OnnxBackend(tmp_path / "no.onnx")


def test_a_model_that_cannot_be_run_is_refused() -> None:
    from onnx import TensorProto, helper

    shape = [1, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["a"], ["b"])],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(ModelError, match=r"tensor a is \(1, 8, 8\) float32, expected \(N, 3, S, S\) float32"):
        OnnxBackend(model.SerializeToString())


@pytest.mark.parametrize("device", [Device.CUDA, Device.TENSORRT])
def test_a_gpu_that_is_not_here_has_a_remedy(device: Device) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime offers CUDA")
    with pytest.raises(
        MissingDependencyError,
        match=rf"ONNX Runtime on {device} \(this ONNX Runtime offers .*\) is not .*pip install onnxruntime-gpu",
    ):
        OnnxBackend(classifier(), device=device)


@pytest.mark.parametrize(
    ("device", "provider"),
    [(Device.CUDA, "CUDAExecutionProvider"), (Device.TENSORRT, "TensorrtExecutionProvider")],
)
def test_a_provider_that_does_not_load_is_not_taken_for_granted(
    monkeypatch: pytest.MonkeyPatch, device: Device, provider: str
) -> None:
    class Fallen(onnxruntime.InferenceSession):
        """As ONNX Runtime does: it warns and falls back to the CPU."""

        def __init__(self, model: bytes, options: object, providers: list[str], **_: object) -> None:
            super().__init__(model, options, providers=providers[-1:])

    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider])
    with pytest.raises(
        MissingDependencyError, match=rf"asked for {provider}, the session got CPUExecutionProvider\)"
    ):
        OnnxBackend(classifier(), device=device)


def test_a_bound_call_runs_on_what_stands_in_its_buffer() -> None:
    with OnnxBackend(classifier(), threads=1) as backend:
        images = IMAGES.copy()
        call = backend.bind(images)
        first = call()["logits"]
        assert np.array_equal(first, raw(classifier(), IMAGES))
        images *= 2
        assert call()["logits"] is first
        assert np.array_equal(first, raw(classifier(), 2 * IMAGES))
        with pytest.raises(TensorError, match="images: got"):
            backend.bind(IMAGES[::2])


def test_the_model_s_bytes_are_kept_once() -> None:
    with OnnxBackend(classifier(), threads=1) as backend:
        assert backend._session._model_bytes is None


def test_without_onnxruntime_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingDependencyError) as caught:
        OnnxBackend(classifier())
    assert str(caught.value) == ("onnxruntime is not available. Install it with: pip install onnxruntime")


def test_threads_spin_only_where_there_are_cores_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: dict[str, str] = {}

    class Options(onnxruntime.SessionOptions):
        def add_session_config_entry(self, key: str, value: str) -> None:
            entries[key] = value
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    monkeypatch.setattr(engine, "usable_cores", lambda: 2)
    for threads, spin in ((1, "0"), (2, "1"), (4, "0")):
        OnnxBackend(classifier(), threads=threads).close()
        assert entries["session.intra_op.allow_spinning"] == spin
    OnnxBackend(classifier(), threads=2, spin=False).close()
    assert entries["session.intra_op.allow_spinning"] == "0"


def test_waiting_threads_get_cores_of_their_own_where_all_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    assert [engine._own_cores(threads) for threads in (1, 2, 3, 4)] == ["", "", "3;6", ""]
    monkeypatch.delattr(os, "sched_getaffinity")
    assert engine._own_cores(3) == ""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to see the threads' cores in")
@pytest.mark.skipif(usable_cores() != 2, reason="needs two cores, one for each thread")
def test_the_engines_own_thread_is_bound_to_a_core() -> None:
    def bound() -> set[int]:
        return {
            int(task.name)
            for task in Path("/proc/self/task").iterdir()
            if len(os.sched_getaffinity(int(task.name))) == 1
        }

    before = bound()
    with OnnxBackend(classifier(), threads=2):
        end = time.monotonic() + 10  # the thread binds itself, once it runs
        while not bound() - before and time.monotonic() < end:
            time.sleep(0.01)
        assert len(bound() - before) == 1


def test_nothing_heavy_is_imported_before_a_model_is_loaded() -> None:
    code = (
        "import sys, edgetl.runtime.session, edgetl.runtime.evaluate, edgetl.runtime.inputs;"
        "import edgetl.runtime.engines.compiled;"
        "print([m for m in ('onnxruntime', 'torch', 'onnx', 'pydantic', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_placement_counts_the_nodes_that_ran_by_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [(provider, nodes)] = placement(classifier(), Device.CPU).items()
    # Five in the graph; ONNX Runtime fuses some and adds others that change the layout.
    assert provider == "CPUExecutionProvider"
    assert 3 <= nodes <= 7
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelError, match="ONNX Runtime cannot load the model"):
        placement(b"no model", Device.CPU)


def test_placement_on_a_device_that_is_not_there_says_what_to_do() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime offers CUDA")
    with pytest.raises(MissingDependencyError, match="ONNX Runtime on cuda"):
        placement(classifier(), Device.CUDA)
