"""The builder, driven with the real `tensorrt_rtx`; and with a fake where `tensorrt` differs from it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from edgetl.errors import ConfigError, MissingDependencyError, ModelError
from edgetl.export.half_precision import to_half
from edgetl.export.tensorrt import (
    BuildOptions,
    BuiltEngine,
    EnginePrecision,
    EngineTarget,
    HardwareCompatibility,
    builder,
    compile_engine,
    load_module,
)
from edgetl.export.tensorrt.gpu import Gpu
from edgetl.files import sha256_bytes
from edgetl.progress import SILENT
from tests.onnx_models import SIZE, classifier

HAS_RTX = find_spec("tensorrt_rtx") is not None
RTX = BuildOptions(target=EngineTarget.TENSORRT_RTX, compute_capabilities=("89",))
INT8, FP16 = EnginePrecision.INT8, EnginePrecision.FP16
IMAGES = np.random.default_rng(0).normal(size=(4, 3, SIZE, SIZE)).astype(np.float32)


def rtx(model: bytes, *gpus: str, progress: Any = SILENT, **options: Any) -> BuiltEngine:
    asked = replace(RTX, compute_capabilities=gpus or ("89",), **options)
    return compile_engine(load_module(EngineTarget.TENSORRT_RTX), model, asked, progress=progress)


def trt_test(function: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs the real parser and builder; it needs no GPU."""
    skip = pytest.mark.skipif(not HAS_RTX, reason="tensorrt_rtx is not installed")
    return pytest.mark.trt(skip(function))


def half(factor: float = 1.0) -> tuple[bytes, tuple[str, ...]]:
    """The classifier in half precision; with a large factor its first layers overflow and stay in float32."""
    model = onnx.load_from_string(classifier())
    for index, weights in enumerate(model.graph.initializer):
        if weights.name == "w":
            values = (onnx.numpy_helper.to_array(weights) * factor).astype(np.float32)
            model.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(values, "w"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1 / factor), "back"))
    model.graph.node[1].output[0] = "large"
    model.graph.node.insert(2, onnx.helper.make_node("Mul", ["large", "back"], ["r"], "mul"))
    converted = to_half(model, IMAGES)
    return converted.model.SerializeToString(), converted.float32_layers


class Counter(type(SILENT)):  # type: ignore[misc]
    """Keeps what a task was said."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.said = ""

    def task(self, description: str, total: int) -> Any:
        from contextlib import nullcontext

        return nullcontext(SimpleNamespace(advance=lambda steps=1, note="": self.steps.append(steps)))

    def warning(self, text: str) -> None:
        self.said = text


# --- the real builder ---------------------------------------------------------------------------------------


@trt_test
def test_a_dynamic_batch_builds_and_builds_the_same_again() -> None:
    progress = Counter()
    built, again = rtx(classifier(), batch=(1, 2, 16), progress=progress), rtx(classifier(), batch=(1, 2, 16))
    record = built.record
    assert built.content == again.content
    assert len(built.content) == record.size_bytes > 10_000
    assert record.sha256 == sha256_bytes(built.content)
    assert (record.target, record.compute_capabilities, record.batch) == ("tensorrt-rtx", ("89",), (1, 2, 16))
    assert record.tensorrt_version == load_module(EngineTarget.TENSORRT_RTX).__version__
    assert 0 < record.seconds < 60
    assert (record.precision, record.layers, record.exceptions) == ("fp32", {"fp32": 2}, ())
    assert record.evidence.startswith("the types of the network")
    assert sum(progress.steps) == 100
    assert len(progress.steps) > 5


@trt_test
def test_symmetric_int8_builds_and_its_precision_is_proved() -> None:
    record = rtx(classifier(zero_point=0), precision=INT8).record
    assert record.layers == {"fp32": 1, "int8": 1}
    assert record.exceptions == ("node_of_logits: fp32, not quantized in the ONNX",)


def two_outputs() -> bytes:
    """The quantized classifier, each of whose answers is given twice, under another name."""
    model = onnx.load_from_string(classifier(zero_point=0))
    [logits] = model.graph.output
    for name in ("first", "second"):
        model.graph.node.append(onnx.helper.make_node("Identity", [logits.name], [name], name))
        dims = [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim]
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims))
    model.graph.output.remove(logits)
    return bytes(model.SerializeToString())


@trt_test
def test_a_model_of_several_outputs_builds() -> None:
    record = rtx(two_outputs(), precision=INT8, batch=(1, 2, 16)).record
    assert record.layers["int8"] == 1
    assert record.batch == (1, 2, 16)


@trt_test
def test_half_precision_builds_and_its_precision_is_proved() -> None:
    model, kept = half()
    assert kept == ()
    assert rtx(model, precision=FP16).record.layers == {"fp16": 2}


@trt_test
def test_half_precision_is_not_granted_where_the_onnx_is_in_float32() -> None:
    with pytest.raises(ModelError) as caught:
        rtx(classifier(), precision=FP16)
    assert str(caught.value) == (
        "The engine would not be what was asked: fp16 was asked, but of 2 convolutions and matrix products there are "
        "2 in fp32; e.g. conv (fp32), node_of_logits (fp32). Convert the ONNX to half precision first "
        "(edgetl build --precision fp16 does)."
    )
    with pytest.raises(ModelError, match=r"int8 was asked, .* Quantize the model for this target first"):
        rtx(classifier(), precision=INT8)
    with pytest.raises(ModelError, match=r"fp32 was asked, .* 2 in fp16; .* Compile the float32 variant"):
        rtx(half()[0])


@trt_test
def test_layers_left_in_float32_on_purpose_are_listed_and_others_are_refused() -> None:
    model, kept = half(1e5)
    assert "conv" in kept
    with pytest.raises(ModelError, match="fp16 was asked"):
        rtx(model, precision=FP16)
    record = rtx(model, precision=FP16, float32_layers=kept).record
    assert record.layers == {"fp16": 1, "fp32": 1}
    assert record.exceptions == ("conv: fp32, it would overflow in fp16",)


@trt_test
def test_sparse_weights_and_an_open_size_build() -> None:
    assert rtx(_open_height(), size=32, sparse_weights=True).record.batch == (1, 1, 8)


@trt_test
def test_too_small_a_workspace_is_told() -> None:
    with pytest.raises(ModelError, match=r"tensorrt-rtx refuses the model: .*workspace"):
        rtx(classifier(), workspace_bytes=1024)


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
        monkeypatch.setattr(builder, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        rtx(model)
    assert "\n" not in str(caught.value)


@trt_test
def test_an_open_image_size_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"images has the shape \(-1, 3, -1, 32\): .*; name the image size\."
    ):
        rtx(_open_height())


def _open_height() -> bytes:
    model = onnx.load_from_string(classifier())
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return model.SerializeToString()


@trt_test
def test_an_operator_that_is_not_supported_is_named() -> None:
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
        compile_engine(
            load_module(EngineTarget.TENSORRT_RTX), classifier(), replace(RTX, compute_capabilities=())
        )


# --- without it ---------------------------------------------------------------------------------------------


def test_contradictions_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigError, match=r"batch: got \(2, 1, 8\), expected 1 <= least <= tuned <= largest"):
        BuildOptions(target=EngineTarget.TENSORRT, batch=(2, 1, 8))
    with pytest.raises(ConfigError, match="compiles for the GPU of this machine"):
        BuildOptions(target=EngineTarget.TENSORRT, compute_capabilities=("89",))
    with pytest.raises(ConfigError) as caught:
        replace(RTX, version_compatible=True, dla_core=0)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "tensorrt-rtx has no version and hardware compatibility",
        "tensorrt-rtx has no DLA",
        "A DLA computes in fp16 or int8, not in fp32.",
        "A DLA takes one batch only",
    ]


@pytest.mark.parametrize(
    ("target", "module", "remedy"),
    [
        ("tensorrt", "tensorrt", "pip install tensorrt"),
        ("tensorrt-rtx", "tensorrt_rtx", "pip install tensorrt-rtx"),
    ],
)
def test_a_missing_builder_has_a_remedy(
    target: str, module: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError) as caught:
        load_module(EngineTarget(target))
    assert str(caught.value).startswith(target)
    assert str(caught.value).endswith(remedy)


def tensor(name: str, dtype: str = "FLOAT", shape: tuple[int, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(name=name, dtype=f"DataType.{dtype}", shape=shape)


class Layer(SimpleNamespace):
    """One layer of a parsed network, as TensorRT shows it."""

    def __init__(self, kind: str, name: str, inputs: list[Any], output: Any) -> None:
        stated = f"[ONNX Layer: {name}]"
        super().__init__(type=f"LayerType.{kind}", name=name, metadata=stated, inputs=inputs, output=output)

    num_outputs = 1

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    def get_output(self, index: int) -> Any:
        return self.output


def network(dtype: str) -> list[Layer]:
    """A convolution and a ReLU."""
    images, inner = tensor("images", dtype, (-1, 3, 32, 32)), tensor("c", dtype)
    return [
        Layer("CONVOLUTION", "conv", [images], inner),
        Layer("ACTIVATION", "relu", [inner], tensor("r", dtype)),
    ]


INSPECTED = """{"Layers": [
 {"Name": "conv + relu", "LayerType": "CaskConvolution", "Metadata": "[ONNX Layer: conv]\\u001f[ONNX Layer: relu]",
  "Inputs": [{"Name": "images", "Dimensions": [1, 3, 32, 32], %s}],
  "Outputs": [{"Name": "r", "Dimensions": [1, 8, 15, 15], %s}]}], "Bindings": ["images", "logits"]}"""


class Fake:
    """Stands in for `tensorrt`, which does not install everywhere: it records what is asked of it.

    Made after NVIDIA's Python API pages of TensorRT 10 and 11.
    """

    __name__ = "tensorrt"
    __version__ = "10.14"
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    BuilderFlag = SimpleNamespace(
        TF32="tf32", SPARSE_WEIGHTS="sparse", VERSION_COMPATIBLE="compatible", GPU_FALLBACK="fallback"
    )
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=4)
    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="ampere", SAME_COMPUTE_CAPABILITY="same")
    DeviceType = SimpleNamespace(DLA="dla")
    LayerInformationFormat = SimpleNamespace(JSON="json")
    num_DLA_cores = 2  # noqa: N815

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    class IProgressMonitor:
        pass

    def __init__(
        self,
        *,
        gpu: bool = True,
        fails: bool = False,
        stale_cache: bool = False,
        dtype: str = "FLOAT",
        inspected: str | None = None,
    ) -> None:
        self.gpu, self.fails, self.stale_cache, self.inspected = gpu, fails, stale_cache, inspected
        self.layers = network(dtype)
        self.calls: list[tuple[Any, ...]] = []

    def Builder(self, log: Any) -> Fake:  # noqa: N802
        if not self.gpu:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.log = log
        return self

    def OnnxParser(self, network: Any, log: Any) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(parse=lambda content: True, num_errors=0)

    def Runtime(self, log: Any) -> SimpleNamespace:  # noqa: N802
        if self.inspected is None:
            log.log(1, "The engine plan file is not compatible")
            return SimpleNamespace(deserialize_cuda_engine=lambda content: None)
        inspector = SimpleNamespace(get_engine_information=lambda form: self.inspected)
        engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
        return SimpleNamespace(deserialize_cuda_engine=lambda content: engine)

    def create_network(self, flags: int) -> SimpleNamespace:
        self.calls.append(("network", flags))
        return SimpleNamespace(
            num_inputs=1,
            num_outputs=1,
            num_layers=len(self.layers),
            get_layer=lambda index: self.layers[index],
            get_input=lambda index: self.layers[0].inputs[0],
        )

    def create_builder_config(self) -> Fake:
        return self

    def create_optimization_profile(self) -> SimpleNamespace:
        return SimpleNamespace(set_shape=lambda *shapes: self.calls.append(("profile", *shapes)))

    def add_optimization_profile(self, profile: Any) -> None: ...

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.calls.append((pool, size))

    def set_flag(self, flag: str) -> None:
        self.calls.append(("set", flag))

    def clear_flag(self, flag: str) -> None:
        self.calls.append(("clear", flag))

    def can_run_on_DLA(self, layer: Layer) -> bool:  # noqa: N802
        return layer.name == "conv"

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


def classic(
    fake: Fake, *, cache: Path | None = None, gpu: Gpu | None = None, progress: Any = SILENT, **asked: Any
) -> BuiltEngine:
    options = BuildOptions(target=EngineTarget.TENSORRT, workspace_bytes=5, **asked)
    return compile_engine(fake, classifier(), options, gpu=gpu, timing_cache=cache, progress=progress)


ORIN = Gpu(name="Orin", compute_capability="87", driver="R36 (release)")


def test_the_classic_builder_is_asked_for_a_strongly_typed_network_without_tf32() -> None:
    fake = Fake()
    built = classic(fake)
    assert built.content == b"engine"
    assert built.record.compute_capabilities == ()
    assert built.record.tensorrt_version == "10.14"
    shapes = ("images", (1, 3, 32, 32), (1, 3, 32, 32), (8, 3, 32, 32))
    assert fake.calls == [("network", 16), ("workspace", 5), ("clear", "tf32"), ("profile", *shapes)]
    assert fake.profiling_verbosity == "detailed"


def test_a_version_without_the_flag_is_strongly_typed_already() -> None:
    fake = Fake()
    fake.NetworkDefinitionCreationFlag = SimpleNamespace()
    classic(fake)
    assert fake.calls[0] == ("network", 0)


def test_compatibility_and_sparsity_are_asked_for() -> None:
    fake = Fake()
    classic(
        fake,
        sparse_weights=True,
        version_compatible=True,
        hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
    )
    assert [call for call in fake.calls if call[0] == "set"] == [("set", "sparse"), ("set", "compatible")]
    assert fake.hardware_compatibility_level == "ampere"


def test_what_a_dla_cannot_run_is_listed() -> None:
    fake = Fake(dtype="HALF")
    record = classic(fake, dla_core=1, precision=FP16, batch=(4, 4, 4)).record
    assert record.dla_fallback == ("relu",)
    assert (fake.default_device_type, fake.DLA_core) == ("dla", 1)
    assert ("set", "fallback") in fake.calls
    with pytest.raises(ConfigError, match="DLA core 2 was asked for, and this machine has 2"):
        classic(Fake(dtype="HALF"), dla_core=2, precision=FP16, batch=(4, 4, 4))


@pytest.mark.parametrize(
    "types",
    [
        ('"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"',) * 2,  # TensorRT 10
        ('"Format": "Row major linear FP16 format (kLINEAR)", "DataType": "Half"',) * 2,  # TensorRT 11
    ],
)
def test_where_there_is_a_gpu_the_engine_itself_is_inspected(types: tuple[str, str]) -> None:
    fake = Fake(dtype="HALF", inspected=INSPECTED % types)
    record = classic(fake, gpu=ORIN, precision=FP16).record
    assert record.evidence.startswith("the engine's own layers (1 of 1 shown by the inspector)")
    assert (record.gpu, record.driver) == ("Orin", "R36 (release)")


def test_an_engine_whose_layers_have_another_type_fails() -> None:
    float32 = '"Format/Datatype": "Row major linear FP32"'
    with pytest.raises(ModelError) as caught:
        classic(Fake(dtype="HALF", inspected=INSPECTED % (float32, float32)), gpu=ORIN, precision=FP16)
    assert str(caught.value) == (
        "The engine is not what was asked: 1 of 1 layers have another type: conv is fp32 instead of fp16."
    )


def test_an_engine_that_does_not_load_where_it_was_built_fails() -> None:
    with pytest.raises(ModelError, match=r"does not load on Orin: The engine plan file is not compatible\."):
        classic(Fake(), gpu=ORIN)


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
    classic(fake, cache=path)
    assert path.read_bytes() == b"times"
    classic(fake, cache=path)
    assert [call for call in fake.calls if call[0] == "cache"] == [("cache", b""), ("cache", b"times")]


def test_a_timing_cache_of_another_machine_is_replaced_with_a_warning(tmp_path: Path) -> None:
    path, progress = tmp_path / "times", Counter()
    path.write_bytes(b"old")
    classic(Fake(stale_cache=True), cache=path, progress=progress)
    assert progress.said == f"The timing cache {path} is of another TensorRT or GPU and is made anew."
    assert path.read_bytes() == b"times"
