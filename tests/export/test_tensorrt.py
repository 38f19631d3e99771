from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.engine import build_from_bundle
from edgetl.bundle.pack import pack
from edgetl.errors import BundleError, ConfigError, MissingDependencyError, ModelError
from edgetl.export import tensorrt
from edgetl.export.tensorrt import BuildOptions, EngineTarget, build_engine, compile_engine, load_module
from edgetl.files import sha256_bytes
from tests.bundles import contents
from tests.onnx_models import classifier

HAS_RTX = find_spec("tensorrt_rtx") is not None


def rtx(model: bytes | Path, *gpus: str, **options: Any) -> tensorrt.BuiltEngine:
    return build_engine(model, target="tensorrt-rtx", compute_capabilities=gpus or ("89",), **options)


def trt_test(function: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs the real parser and builder; it needs no GPU."""
    skip = pytest.mark.skipif(not HAS_RTX, reason="tensorrt_rtx is not installed")
    return pytest.mark.trt(skip(function))


# --- the real builder ---------------------------------------------------------------------------------------


@trt_test
def test_a_dynamic_batch_builds_and_builds_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier())
    built, again = rtx(path, batch=(1, 2, 16)), rtx(classifier(), batch=(1, 2, 16))
    record = built.record
    assert built.content == again.content
    assert len(built.content) == record.size_bytes > 10_000
    assert record.sha256 == sha256_bytes(built.content)
    assert (record.target, record.compute_capabilities, record.batch) == ("tensorrt-rtx", ("89",), (1, 2, 16))
    assert record.tensorrt_version == load_module(EngineTarget.TENSORRT_RTX).__version__
    assert 0 < record.seconds < 60


@trt_test
def test_symmetric_int8_builds() -> None:
    assert rtx(classifier(zero_point=0)).content != rtx(classifier()).content


@trt_test
def test_asymmetric_int8_is_refused_with_the_way_out() -> None:
    with pytest.raises(ModelError) as caught:
        rtx(classifier(zero_point=5))
    message = str(caught.value)
    assert message.startswith("tensorrt_rtx refuses the model: QuantizeLinear")
    assert "Non-zero zero point is not supported" in message
    assert message.endswith("quantize the model for it, with quantize.target = 'tensorrt-rtx' in the recipe.")
    assert "cudaError" not in message


@trt_test
def test_a_fixed_batch_needs_no_profile() -> None:
    assert rtx(classifier(batch=4)).record.batch == (4, 4, 4)


@trt_test
def test_several_gpus_in_any_spelling() -> None:
    record = rtx(classifier(), "8.6", "sm_89", "SM120", "89").record
    assert record.compute_capabilities == ("86", "89", "120")


@trt_test
@pytest.mark.parametrize("checker", [True, False])
@pytest.mark.parametrize("model", [b"", b"\x00garbage" * 50, classifier()[:-40]])
def test_garbage_is_refused_with_and_without_the_checker(
    model: bytes, checker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not checker:
        monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        rtx(model)
    assert "\n" not in str(caught.value)


@trt_test
def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no ONNX model at .*no\.onnx"):
        rtx(tmp_path / "no.onnx")


@trt_test
def test_an_open_image_size_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"images has shape \(-1, 3, -1, 32\): only the batch may be left open"
    ):
        rtx(_open_height())


def _open_height() -> bytes:
    import onnx

    model = onnx.load_from_string(classifier())
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return model.SerializeToString()


@trt_test
def test_an_operator_that_is_not_supported_is_named() -> None:
    import onnx

    model = onnx.load_from_string(classifier())
    model.graph.node[1].op_type = "Unheard"
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelError, match=r"refuses the model: .*Unheard"):
        rtx(model.SerializeToString())


@trt_test
def test_unknown_gpus_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        rtx(classifier(), "89", "12", "mps")
    assert len(caught.value.problems) == 2
    assert caught.value.problems[0].startswith("compute capability: got '12', tensorrt-rtx ")
    assert "75, 80, 86, 89, 120" in caught.value.problems[0]
    with pytest.raises(
        ConfigError, match=r"needs at least one compute capability, e\.g\. 89; it knows 75, 80"
    ):
        build_engine(classifier(), target="tensorrt-rtx")


@trt_test
def test_an_engine_is_built_from_a_bundle_beside_it_and_into_it(tmp_path: Path) -> None:
    bundle = tmp_path / "flowers.edgetl"
    pack(contents(tmp_path), bundle)
    record = build_from_bundle(bundle, target="tensorrt-rtx", compute_capabilities=("89",), max_batch=4)
    assert record.path == str(tmp_path / "flowers-fp32-tensorrt-rtx-sm89.engine")
    assert (record.variant, record.batch) == ("fp32", (1, 1, 4))
    assert sha256_bytes(Path(record.path).read_bytes()) == record.sha256
    inside = build_from_bundle(
        bundle, target="tensorrt-rtx", compute_capabilities=("89",), max_batch=4, output=bundle
    )
    [engine] = open_bundle(bundle).manifest.engines
    assert engine.sha256 == inside.sha256 == record.sha256
    with pytest.raises(BundleError, match="has no variant 'int4'"):
        build_from_bundle(bundle, target="tensorrt-rtx", compute_capabilities=("89",), variant="int4")


# --- without it ---------------------------------------------------------------------------------------------


def test_wrong_options_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"target: got 'tensorrt-lite', expected tensorrt or tensorrt-rtx\."
    ):
        build_engine(classifier(), target="tensorrt-lite")
    with pytest.raises(ConfigError, match=r"batch: got \(2, 1, 8\), expected 1 <= least <= tuned <= largest"):
        compile_engine(Fake(), classifier(), BuildOptions(target=EngineTarget.TENSORRT, batch=(2, 1, 8)))
    with pytest.raises(ConfigError, match="compiles for the GPU of this machine"):
        compile_engine(
            Fake(), classifier(), BuildOptions(target=EngineTarget.TENSORRT, compute_capabilities=("89",))
        )


@pytest.mark.parametrize(
    ("target", "module", "remedy"),
    [
        ("tensorrt", "tensorrt", "pip install 'edgetl[tensorrt]' --extra-index-url https://pypi.nvidia.com"),
        ("tensorrt-rtx", "tensorrt_rtx", "pip install 'edgetl[rtx]'"),
    ],
)
def test_a_missing_builder_has_a_remedy(
    target: str, module: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError) as caught:
        build_engine(classifier(), target=target, compute_capabilities=("89",))
    assert str(caught.value).startswith(module)
    assert str(caught.value).endswith(remedy)


class Fake:
    """Stands in for `tensorrt`, which does not install everywhere: it records what is asked of it."""

    __name__ = "tensorrt"
    __version__ = "10.14"
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    BuilderFlag = SimpleNamespace(TF32="tf32")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=4)

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    def __init__(self, *, gpu: bool = True, fails: bool = False, stale_cache: bool = False) -> None:
        self.gpu, self.fails, self.stale_cache = gpu, fails, stale_cache
        self.calls: list[tuple[Any, ...]] = []

    def Builder(self, log: Any) -> Fake:  # noqa: N802
        if not self.gpu:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.log = log
        return self

    def OnnxParser(self, network: Any, log: Any) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(parse=lambda content: True, num_errors=0)

    def create_network(self, flags: int) -> SimpleNamespace:
        self.calls.append(("network", flags))
        images = SimpleNamespace(name="images", shape=(-1, 3, 32, 32))
        return SimpleNamespace(num_inputs=1, num_outputs=1, get_input=lambda index: images)

    def create_builder_config(self) -> Fake:
        return self

    def create_optimization_profile(self) -> SimpleNamespace:
        return SimpleNamespace(set_shape=lambda *shapes: self.calls.append(("profile", *shapes)))

    def add_optimization_profile(self, profile: Any) -> None: ...

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.calls.append((pool, size))

    def clear_flag(self, flag: str) -> None:
        self.calls.append(("clear", flag))

    def create_timing_cache(self, content: bytes) -> SimpleNamespace:
        self.calls.append(("cache", content))
        return SimpleNamespace(content=content, serialize=lambda: b"times")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return not (self.stale_cache and cache.content)

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        if self.fails:
            self.log.log(1, "no kernel\n  fits (cudaError 2)")
            self.log.log(1, "[cudaResources.cpp] (cudaError 35: CUDA driver version is insufficient)")
            self.log.log(2, "a warning")
            return None
        return b"engine"


def classic(fake: Fake, cache: Path | None = None, progress: Any = tensorrt.SILENT) -> tensorrt.BuiltEngine:
    options = BuildOptions(target=EngineTarget.TENSORRT, workspace_bytes=5, timing_cache=cache)
    return compile_engine(fake, classifier(), options, progress=progress)


def test_the_classic_builder_is_asked_for_a_strongly_typed_network_without_tf32() -> None:
    fake = Fake()
    built = classic(fake)
    assert built.content == b"engine"
    assert built.record.compute_capabilities == ()
    assert built.record.tensorrt_version == "10.14"
    shapes = ("images", (1, 3, 32, 32), (1, 3, 32, 32), (8, 3, 32, 32))
    assert fake.calls == [("network", 16), ("workspace", 5), ("clear", "tf32"), ("profile", *shapes)]


def test_a_version_without_the_flag_is_strongly_typed_already() -> None:
    fake = Fake()
    fake.NetworkDefinitionCreationFlag = SimpleNamespace()
    classic(fake)
    assert fake.calls[0] == ("network", 0)


def test_without_a_gpu_the_classic_builder_has_a_remedy() -> None:
    with pytest.raises(
        MissingDependencyError, match=r"A GPU for tensorrt is not available.*choose the target tensorrt-rtx"
    ):
        classic(Fake(gpu=False))


def test_a_failed_build_carries_the_reasons_but_not_the_harmless_ones() -> None:
    with pytest.raises(ModelError) as caught:
        classic(Fake(fails=True))
    assert str(caught.value) == "tensorrt refuses the model: no kernel fits (cudaError 2)."


def test_the_timing_cache_is_kept(tmp_path: Path) -> None:
    fake, path = Fake(), tmp_path / "cache" / "times"
    classic(fake, path)
    assert path.read_bytes() == b"times"
    classic(fake, path)
    assert [call for call in fake.calls if call[0] == "cache"] == [("cache", b""), ("cache", b"times")]


def test_a_timing_cache_of_another_machine_is_replaced_with_a_warning(tmp_path: Path) -> None:
    class Warned(type(tensorrt.SILENT)):  # type: ignore[misc]
        said: str = ""

        def warning(self, text: str) -> None:
            self.said = text

    path, progress = tmp_path / "times", Warned()
    path.write_bytes(b"old")
    classic(Fake(stale_cache=True), path, progress)
    assert progress.said == f"The timing cache {path} is of another TensorRT or GPU and is made anew."
    assert path.read_bytes() == b"times"
