"""The TensorRT backend on a fake GPU: order of work, buffers, graph, errors. On a real one where there is one."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.pack import add_engine, pack
from edgetl.errors import BundleError, BundleIntegrityError, MissingDependencyError, ModelError, TensorError
from edgetl.export.tensorrt import BuildOptions, BuiltEngine, EnginePrecision, EngineTarget
from edgetl.export.tensorrt.cache import built_here, remember
from edgetl.files import sha256_bytes
from edgetl.records.variants import EngineRecord
from edgetl.runtime import load
from edgetl.runtime.engines.compiled import engine_for
from edgetl.runtime.engines.tensorrt import TensorRtBackend
from tests.bundles import SPEC, contents
from tests.runtime.fake_cuda import LARGEST, SIDE, Engine, FakeCuda, fake_trt, logits

IMAGES = np.random.default_rng(0).normal(size=(11, 3, SIDE, SIDE)).astype(np.float32)
GPU = "Fake GPU (compute capability 8.9)"


def opened(
    cuda: FakeCuda, engine: Engine | None = None, target: EngineTarget = EngineTarget.TENSORRT
) -> TensorRtBackend:
    return TensorRtBackend(b"engine", target=target, trt=fake_trt(engine or Engine(cuda)), cuda=cuda)


@pytest.mark.parametrize("count", [0, 1, 2, LARGEST, LARGEST + 1, 11])
def test_any_number_of_images_gives_their_logits(count: int) -> None:
    with opened(FakeCuda()) as backend:
        found = backend.run(IMAGES[:count])["logits"]
    assert found.shape == (count, 3)
    assert np.allclose(found, logits(IMAGES[:count]), atol=1e-6)


def test_it_says_what_runs() -> None:
    with opened(FakeCuda()) as backend:
        assert str(backend.input) == f"(N, 3, {SIDE}, {SIDE}) float32"
        assert backend.providers == (f"tensorrt 11.4.0 on {GPU}",)


def test_single_images_replay_a_graph_that_is_recorded_once() -> None:
    cuda = FakeCuda()
    engine = Engine(cuda)
    with opened(cuda, engine) as backend:
        for image in IMAGES:
            assert np.allclose(backend.run(image[None])["logits"], logits(image[None]), atol=1e-6)
        assert (len(cuda.graphs), cuda.launches) == (1, len(IMAGES))
        copies = cuda.copies
        backend.run(IMAGES[:1])
        assert cuda.copies == copies, "a replay issues no copies of its own"
        # A batch between must not disturb the shapes that the graph was recorded with.
        assert np.allclose(backend.run(IMAGES[:3])["logits"], logits(IMAGES[:3]), atol=1e-6)
        assert np.allclose(backend.run(IMAGES[5:6])["logits"], logits(IMAGES[5:6]), atol=1e-6)
        assert [context.shape[0] for context in engine.contexts] == [3, 1]


def test_tensorrt_rtx_is_not_recorded() -> None:
    cuda = FakeCuda()
    with opened(cuda, target=EngineTarget.TENSORRT_RTX) as backend:
        assert np.allclose(backend.run(IMAGES[:1])["logits"], logits(IMAGES[:1]), atol=1e-6)
    assert cuda.graphs == []


def test_a_bound_call_reads_its_buffer_each_time() -> None:
    with opened(FakeCuda()) as backend:
        images = IMAGES[:1].copy()
        call = backend.bind(images)
        call()["logits"]
        images[:] = IMAGES[1:2]
        assert np.allclose(call()["logits"], logits(IMAGES[1:2]), atol=1e-6)


def test_eight_threads_get_their_own_answers() -> None:
    wrong = []
    with opened(FakeCuda()) as backend:

        def work(seed: int) -> None:
            images = np.random.default_rng(seed).normal(size=(1 + seed % 5, 3, SIDE, SIDE)).astype(np.float32)
            for _ in range(50):
                if not np.allclose(backend.run(images)["logits"], logits(images), atol=1e-6):
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_closing_gives_everything_back_once() -> None:
    cuda = FakeCuda()
    backend = opened(cuda)
    backend.run(IMAGES[:1])
    backend.close()
    backend.close()
    assert (cuda.memory, cuda.streams, cuda.graphs) == ({}, 0, [[]])


@pytest.mark.parametrize("images", [IMAGES[0], IMAGES.astype(np.float64), IMAGES[:, :2], [1.0]])
def test_wrong_images_are_named(images: object) -> None:
    with (
        opened(FakeCuda()) as backend,
        pytest.raises(TensorError, match=r"^images: got .*expected \(N, 3, 8, 8\)"),
    ):
        backend.run(images)  # type: ignore[arg-type]


def test_fewer_images_than_the_engine_takes_are_refused() -> None:
    cuda = FakeCuda()
    with opened(cuda, Engine(cuda, least=2)) as backend, pytest.raises(TensorError):
        backend.run(IMAGES[:1])


def test_an_engine_of_another_machine_is_refused_with_the_remedy() -> None:
    trt = fake_trt(None, complaint="The engine plan file is\nnot compatible with this version of TensorRT.")
    with pytest.raises(BundleError) as caught:
        TensorRtBackend(b"engine", target=EngineTarget.TENSORRT, trt=trt, cuda=FakeCuda())
    assert str(caught.value) == (
        "tensorrt 11.4.0 cannot load the engine: The engine plan file is not compatible with this version of "
        "TensorRT. Build it for this machine with: edgetl build BUNDLE --target tensorrt"
    )


def test_an_engine_of_half_precision_tensors_is_refused() -> None:
    cuda = FakeCuda()
    with pytest.raises(ModelError, match=r"tensor images is \(N, 3, 8, 8\) float16, expected \(N, 3, S, S\)"):
        opened(cuda, Engine(cuda, dtype=np.float16))


def test_without_a_gpu_the_remedy_is_named() -> None:
    with pytest.raises(
        MissingDependencyError, match=r"An NVIDIA GPU \(CUDA says cudaErrorNoDevice\) is not ava"
    ):
        opened(FakeCuda(devices=0))


def test_cuda_s_errors_are_named() -> None:
    with pytest.raises(ModelError, match=r"cudaHostAlloc failed: cudaErrorMemoryAllocation\."):
        opened(FakeCuda(memory_bytes=10))
    cuda = FakeCuda()
    engine = Engine(cuda)
    with opened(cuda, engine) as backend:
        engine.contexts[0].fails = True
        with pytest.raises(ModelError, match="TensorRT could not run the engine: it gave no reason"):
            backend.run(IMAGES[:2])


# --- which engine, and whether it may be trusted ------------------------------------------------------------


def record(content: bytes, **changes: object) -> EngineRecord:
    values = {
        "target": "tensorrt",
        "compute_capabilities": (),
        "tensorrt_version": "11.4.0",
        "batch": (1, 1, 8),
        "size_bytes": len(content),
        "sha256": sha256_bytes(content),
        "seconds": 3.0,
    }
    return EngineRecord(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path / "cache"))
    pack(contents(tmp_path), tmp_path / "b.edgetl")
    return tmp_path / "b.edgetl"


class Builder:
    """Counts what it builds."""

    def __init__(self) -> None:
        self.calls: list[BuildOptions] = []

    def __call__(self, onnx: bytes, options: BuildOptions) -> BuiltEngine:
        self.calls.append(options)
        return BuiltEngine(b"built", replace(record(b"built"), cached=len(self.calls) > 1))


def find(
    bundle: Path, build: Builder, *, signed: bool = False, gpu: str = GPU, target: str = "tensorrt"
) -> tuple[bytes, str]:
    opened = open_bundle(bundle)
    return engine_for(
        opened, opened.variant("fp32"), EngineTarget(target), signed=signed, gpu=gpu, build=build
    )


def test_an_engine_from_elsewhere_is_not_loaded_unless_signed(bundle: Path) -> None:
    add_engine(open_bundle(bundle), variant="fp32", content=b"foreign", record=record(b"foreign"))
    build = Builder()
    with pytest.raises(
        BundleIntegrityError, match="was not built on this machine, and engines are native code"
    ):
        find(bundle, build)
    assert find(bundle, build, signed=True) == (b"foreign", "its engine comes from the bundle")
    remember(record(b"foreign"))
    assert find(bundle, build) == (b"foreign", "its engine comes from the bundle")
    assert build.calls == []


def test_without_an_engine_it_is_built_or_taken_from_before(bundle: Path) -> None:
    build = Builder()
    assert find(bundle, build) == (b"built", "its engine was built now, in 3 s")
    assert find(bundle, build) == (b"built", "its engine was built here before")
    (first, _) = build.calls
    assert (first.target, first.precision, first.size) == (
        EngineTarget.TENSORRT,
        EnginePrecision.FP32,
        SPEC.size,
    )
    assert first.compute_capabilities == ()


def test_an_engine_for_another_gpu_is_passed_over(bundle: Path) -> None:
    other = record(b"foreign", target="tensorrt-rtx", compute_capabilities=("120",))
    add_engine(open_bundle(bundle), variant="fp32", content=b"foreign", record=other)
    build = Builder()
    assert find(bundle, build, target="tensorrt-rtx")[0] == b"built"
    assert build.calls[0].compute_capabilities == ("89",)


def test_an_engine_of_the_bundle_has_no_map_and_is_built_with_it(bundle: Path) -> None:
    add_engine(open_bundle(bundle), variant="fp32", content=b"foreign", record=record(b"foreign"))
    opened, models = open_bundle(bundle), list[bytes]()
    found = engine_for(
        opened,
        opened.variant("fp32"),
        EngineTarget.TENSORRT,
        signed=True,
        gpu=GPU,
        shown={"features/map": "r"},
        build=lambda onnx, options: (models.append(onnx), Builder()(onnx, options))[1],
    )
    assert found == (b"built", "its engine was built now, in 3 s")
    assert models[0].startswith(opened.model("fp32"))
    assert b"features/map" in models[0]


def test_what_was_built_here_is_remembered(bundle: Path) -> None:
    assert not built_here("a" * 64)
    remember(record(b"x"))
    assert built_here(sha256_bytes(b"x"))


@pytest.mark.trt
def test_the_real_runtime_says_that_there_is_no_gpu(bundle: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    if not int(runtime.cudaGetDeviceCount()[0]):
        pytest.skip("there is a GPU here; the test after this one runs on it")
    with pytest.raises(MissingDependencyError, match="An NVIDIA GPU"):
        load(bundle, target="tensorrt-rtx")


@pytest.mark.gpu
@pytest.mark.trt
@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_a_real_engine_computes_what_the_golden_images_say(bundle: Path, target: str) -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    pytest.importorskip(target.replace("-", "_"), reason=f"{target} is not installed")
    if int(runtime.cudaGetDeviceCount()[0]):
        pytest.skip("there is no GPU here")
    with load(bundle, target=target, variant="fp32") as session:
        assert session.verify().passed
        assert len(session.predict(contents(bundle.parent).golden.images)) == 3
