"""The parity report points to the step, and to the layer, where a fault was put in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from torch import Tensor, nn

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import InputForm, Precision, Provenance
from edgetl.bundle.pack import Contents, VariantSource, add_engine, pack
from edgetl.config import Calibrator, DataConfig, QuantizeConfig, Target
from edgetl.data.index import build_index
from edgetl.deploy import bounds, parity
from edgetl.errors import BundleError, DataError
from edgetl.export import half_precision
from edgetl.export.bake import bake_preprocess
from edgetl.export.divergence import INPUT
from edgetl.export.half_precision import to_half
from edgetl.export.half_weights import store_half
from edgetl.export.litert.convert import to_tflite
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.export.tensorrt.gpu import Gpu
from edgetl.files import sha256_bytes
from edgetl.inputs.image import PreprocessSpec, load_batch, load_pixels
from edgetl.measure.candidates import format_of, open_backend
from edgetl.quantize import stage as quantize
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.targets import rules_for
from edgetl.quantize.weight_only import store_int8
from edgetl.records.parity import ParityRecord
from edgetl.records.scores import BadImages
from edgetl.records.variants import EngineRecord
from edgetl.runtime.engines.base import run_pixels
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import Classification
from edgetl.tasks.classification.task import ClassificationTask
from tests.export.networks import SPEC, tiny
from tests.images import write_set

LABELS = ("blue", "green", "red")
Alter = Callable[[onnx.ModelProto], None]


@dataclass(frozen=True)
class Parts:
    """Images, and the sound models of one network: float32, baked, half precision, INT8."""

    root: Path
    images: Path
    models: dict[str, onnx.ModelProto]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    root = tmp_path_factory.mktemp("report")
    images = write_set(root / "images", {"train": 8, "test": 6})
    exported = _large_inside(to_onnx(tiny(), task=Classification(labels=LABELS), spec=SPEC, opset=18))
    path = root / "model.onnx"
    path.write_bytes(to_bytes(exported))
    index = build_index(DataConfig(source=str(images)), seed=0)
    config = QuantizeConfig(target=Target.TENSORRT_RTX, images=24)
    inputs = quantize.QuantizeInputs(
        onnx=path, index=index, spec=SPEC, seed=0, pixels_dir=root / "pixels", cache_dir=root / "kept"
    )
    quantize.run(config, inputs, out=root)
    probes = load_batch(sorted((images / "train").rglob("*.png"))[:6], SPEC)
    models = {
        "fp32": exported,
        "fp32-uint8": bake_preprocess(exported, SPEC),
        "fp16": to_half(exported, probes).model,
        "int8-tensorrt-rtx": onnx.load(root / "model-int8-tensorrt-rtx.onnx"),
    }
    return Parts(root, images, models)


def _large_inside(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function, with the values between the depthwise convolution and the next 1e5 times larger."""
    depthwise = next(n for n in model.graph.node if any(a.name == "group" and a.i > 1 for a in n.attribute))
    project = next(n for n in model.graph.node if n.name == "/project/project.0/Conv")
    for name, factor in ((depthwise.input[1], 1e5), (depthwise.input[2], 1e5), (project.input[1], 1e-5)):
        _scale(model, name, factor)
    return model


def _scale(model: onnx.ModelProto, name: str, factor: float) -> None:
    index = next(i for i, t in enumerate(model.graph.initializer) if t.name == name)
    values = numpy_helper.to_array(model.graph.initializer[index])
    scaled = np.asarray(values * np.float32(factor), values.dtype)
    model.graph.initializer[index].CopyFrom(numpy_helper.from_array(scaled, name))


def run_all(
    parts: Parts,
    folder: Path,
    *,
    spec: PreprocessSpec = SPEC,
    checkpoint: Path | None = None,
    **altered: Alter,
) -> ParityRecord:
    """Pack the sound models, but for those that are altered (`fp32_uint8=...`), and comparison."""
    images = sorted((parts.images / "test").rglob("*.png"))[:2]
    encoded = tuple(path.read_bytes() for path in images)
    pixels = np.stack([load_pixels(content, spec) for content in encoded])
    sources, outputs = [], {}
    for name, sound in parts.models.items():
        model = onnx.ModelProto()
        model.CopyFrom(sound)
        if alter := altered.get(name.replace("-", "_")):
            alter(model)
        of_litert = "litert" in name
        path = folder / f"{name}.{'tflite' if of_litert else 'onnx'}"
        path.write_bytes(to_tflite(model) if of_litert else to_bytes(model))
        form = InputForm.UINT8 if name.endswith("uint8") else InputForm.FLOAT32
        target = "litert" if of_litert else "tensorrt-rtx" if name.startswith("int8") else "any"
        source = VariantSource(
            name=name,
            precision=name.split("-")[0],
            target=target,
            model=path,
            format=format_of(path),
            input=form,
        )
        sources.append(source)
        with open_backend(path, threads=1) as backend:
            outputs[name] = {"logits": np.nan_to_num(run_pixels(backend, pixels, spec)["logits"])}
    golden = GoldenSet(images=encoded, pixels=pixels, outputs=outputs)
    contents = Contents(
        name="faults",
        task=Classification(labels=LABELS),
        preprocess=spec,
        variants=sources,
        default="fp32",
        golden=golden,
        provenance=Provenance(),
    )
    pack(contents, folder / "faults.edgetl")
    return parity.run(folder / "faults.edgetl", parts.images, checkpoint=checkpoint)


def broken(record: ParityRecord) -> list[str]:
    return [checked.name for checked in record.steps if checked.holds is False]


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the tiny network's checkpoint."""
    monkeypatch.setattr("edgetl.models.checkpoint.load", lambda path: (tiny(), None))
    return tmp_path / "student.safetensors"


def test_sound_models_climb_to_the_top(parts: Parts, tmp_path: Path, checkpoint: Path) -> None:
    record = run_all(parts, tmp_path, checkpoint=checkpoint)
    assert [checked.name for checked in record.steps] == ["torch", "onnx", *parts.models]
    assert [checked.against for checked in record.steps] == ["", "torch", "onnx", "fp32", "fp32", "fp32"]
    assert record.steps[0].holds is None
    assert [checked.holds for checked in record.steps[1:]] == [True] * 5
    assert (record.images, record.first_outside, record.divergence) == (18, "", None)
    assert record.sentence == "All 6 steps agree on 18 images, each within its bound."
    torch = record.steps[0]
    assert torch.score is not None
    assert torch.interval is not None
    assert torch.interval[0] < torch.score < torch.interval[1]


def test_a_wrong_mean_in_the_manifest(parts: Parts, tmp_path: Path) -> None:
    record = run_all(parts, tmp_path, spec=replace(SPEC, mean=(0.5, 0.5, 0.5)))
    assert record.first_outside == "fp32"
    assert "the manifest's mean differ from the export's" in record.sentence
    assert record.divergence is not None
    assert record.divergence.layer == INPUT


def test_a_wrong_mean_inside_a_variant(parts: Parts, tmp_path: Path) -> None:
    record = run_all(parts, tmp_path, fp32_uint8=lambda m: _scale(m, "preprocess/shift", 1.1))
    assert broken(record) == ["fp32-uint8"]
    assert record.divergence is not None
    assert (record.divergence.layer, record.divergence.tensor) == (INPUT, "preprocess/normalised")


def test_a_swapped_channel_order_inside_a_variant(parts: Parts, tmp_path: Path) -> None:
    def swap(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "bgr"))
        cast = model.graph.node[0]
        swapped = helper.make_node("Gather", ["images", "bgr"], ["images_bgr"], "swap", axis=3)
        cast.input[0] = "images_bgr"
        nodes = [swapped, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    record = run_all(parts, tmp_path, fp32_uint8=swap)
    assert broken(record) == ["fp32-uint8"]
    assert record.divergence is not None
    assert record.divergence.layer == INPUT


def test_a_swapped_channel_order_in_the_export(parts: Parts, tmp_path: Path, checkpoint: Path) -> None:
    def swap(model: onnx.ModelProto) -> None:
        name = model.graph.node[0].input[1]
        index = next(i for i, t in enumerate(model.graph.initializer) if t.name == name)
        values = numpy_helper.to_array(model.graph.initializer[index])[:, ::-1]
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))

    record = run_all(parts, tmp_path, checkpoint=checkpoint, fp32=swap)
    assert record.first_outside == "onnx"
    assert record.divergence is not None
    assert record.divergence.layer == "/stem/stem.2/Clip"
    assert record.divergence.error_before == 0.0


def test_a_branch_that_the_exporter_froze(
    parts: Parts, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Branch(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values * 2 if float(values.abs().mean()) > 1e-3 else values

    def network() -> nn.Module:
        made = tiny()
        made.stem = nn.Sequential(Branch(), *made.stem).eval()
        return made

    monkeypatch.setattr("edgetl.models.checkpoint.load", lambda path: (network(), None))
    frozen = to_onnx(network(), task=Classification(labels=LABELS), spec=SPEC, opset=18)
    record = run_all(parts, tmp_path, checkpoint=checkpoint, fp32=lambda model: model.CopyFrom(frozen))
    assert record.first_outside == "onnx"
    assert record.divergence is not None
    assert (record.divergence.layer, record.divergence.operator) == ("stem.3", "ReLU6")


def test_a_layer_that_overflows_in_half_precision(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_precision, "_would_overflow", lambda *_: [])
    probes = load_batch(sorted((parts.images / "train").rglob("*.png"))[:2], SPEC)
    forced = to_half(parts.models["fp32"], probes).model
    record = run_all(parts, tmp_path, fp16=lambda model: model.CopyFrom(forced))
    assert broken(record) == ["fp16"]
    assert record.divergence is not None
    assert (record.divergence.layer, record.divergence.finite) == ("/depthwise/depthwise.2/Relu", False)
    assert "NaN or infinity comes out of it" in record.sentence


@pytest.mark.parametrize("factor", [1 / 16, 64])
def test_a_bad_scale(parts: Parts, tmp_path: Path, factor: float) -> None:
    shown = "/pool/MaxPool_output_0_dequantized"
    [name] = [n.input[1] for n in parts.models["int8-tensorrt-rtx"].graph.node if shown in n.output]
    record = run_all(parts, tmp_path, int8_tensorrt_rtx=lambda model: _scale(model, name, factor))
    assert broken(record) == ["int8-tensorrt-rtx"]
    assert record.divergence is not None
    assert (record.divergence.layer, record.divergence.operator) == ("/pool/MaxPool", "MaxPool")
    assert record.divergence.tensor == shown


def test_labels_in_another_order_are_told(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reorder(model: onnx.ModelProto) -> None:
        metadata = {p.key: p.value for p in model.metadata_props}
        helper.set_model_props(model, metadata | {"edgetl.labels": '["red", "green", "blue"]'})

    record = run_all(parts, tmp_path, fp32=reorder)
    assert record.first_outside == "fp32"
    assert "the manifest's labels differ from the export's" in record.sentence


def with_engine(parts: Parts, folder: Path, batch: tuple[int, int, int]) -> Path:
    """The sound models, and bytes that stand for an engine of the half-precision one."""
    run_all(parts, folder)
    engine = EngineRecord(
        target="tensorrt-rtx",
        compute_capabilities=("89",),
        tensorrt_version="1.7",
        batch=batch,
        size_bytes=3,
        sha256=sha256_bytes(b"eng"),
        seconds=1.0,
        precision="fp16",
    )
    path = folder / "faults.edgetl"
    add_engine(open_bundle(path), variant="fp16", content=b"eng", record=engine)
    return path


def test_engines_that_cannot_run_here_are_said_not_to(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetl.export.tensorrt.gpu.find_gpu", lambda: None)
    record = parity.run(with_engine(parts, tmp_path, (1, 1, 8)), parts.images, limit=5)
    assert record.images == 5
    assert record.steps[-1].name == "fp16-tensorrt-rtx-sm89.engine"
    assert record.steps[-1].skipped == (
        "A GPU to run the engine on is not available. Run edgetl parity on the machine that tensorrt-rtx was built for."
    )
    assert record.sentence.startswith("All 5 steps agree")


def test_an_engine_from_elsewhere_is_not_loaded(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "edgetl.export.tensorrt.gpu.find_gpu", lambda: Gpu(name="x", compute_capability="89", driver="1")
    )
    record = parity.run(with_engine(parts, tmp_path, (1, 1, 8)), parts.images, limit=5)
    assert "It was not built on this machine, and engines are native code" in record.steps[-1].skipped


def test_a_float_model_with_weights_in_int8_may_differ_as_int8_may(parts: Parts, tmp_path: Path) -> None:
    exported = parts.models["fp32"]
    weighted = make_plan(Graph(exported), rules_for(Target.CPU_X86)).weighted
    models = {"fp32": exported, "fp32-int8-weights": store_int8(Graph(exported), weighted)}
    record = run_all(replace(parts, models=models), tmp_path)
    assert broken(record) == []
    error = record.steps[-1].max_error
    assert error is not None
    assert error > bounds.BOUNDS[Precision.FP32].maximum


class Engine(OnnxBackend):
    """Stands for an engine on its GPU: a model that is wrong, and takes the batches of its profile alone."""

    calls: ClassVar[list[int]] = []

    def run(self, images: np.ndarray) -> np.ndarray:
        self.calls.append(len(images))
        return super().run(images * np.float32(0.5))


def test_an_engine_runs_in_the_batches_of_its_profile_and_is_named_where_it_is_wrong(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = to_bytes(parts.models["fp32"])
    monkeypatch.setattr(parity, "_engine_backend", lambda content, target: Engine(model))
    record = parity.run(with_engine(parts, tmp_path, (4, 4, 4)), parts.images)
    assert Engine.calls == [4] * 5
    assert record.first_outside == "fp16-tensorrt-rtx-sm89.engine"
    assert record.steps[-1].against == "fp16"
    assert record.divergence is None


def for_litert(parts: Parts) -> Parts:
    """As .tflite files: float32, with the weights in half precision, with the preprocessing inside, and INT8."""
    exported, rules = parts.models["fp32"], rules_for(Target.LITERT)
    graph = Graph(exported)
    plan = make_plan(graph, rules)
    images = load_batch(sorted((parts.images / "train").rglob("*.png")), SPEC)
    histograms = observe(exported, plan.observed, [images], images=len(images))
    spans = plan.known | {
        name: estimate(histogram, Calibrator.MINMAX, rules.activations, percentile=100.0)
        for name, histogram in histograms.items()
    }
    grids = {name: from_range(*span, rules.activations) for name, span in spans.items()}
    models = {
        "fp32": exported,
        "fp32-litert": exported,
        "fp32-litert-half-weights": store_half(exported),
        "fp32-litert-uint8": bake_preprocess(exported, SPEC),
        "int8-litert": insert(graph, plan, rules, grids),
    }
    return replace(parts, models=models)


def test_files_for_litert_stand_on_float32(parts: Parts, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    record = run_all(for_litert(parts), tmp_path)
    steps = {checked.name: checked for checked in record.steps}
    assert list(steps)[2:] == [
        "fp32-litert",
        "fp32-litert-half-weights",
        "fp32-litert-uint8",
        "int8-litert",
    ]
    assert {checked.against for checked in record.steps[2:]} == {"fp32"}
    assert broken(record) == []
    halved = steps["fp32-litert-half-weights"].max_error
    assert halved is not None
    assert halved > 1e-5  # held to what half precision may cost


def test_a_wrong_layer_of_a_file_for_litert_is_named(parts: Parts, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    models = for_litert(parts)

    def wrong(model: onnx.ModelProto) -> None:
        [layer] = [n for n in model.graph.node if n.name == "/depthwise/depthwise.0/Conv"]
        _scale(model, layer.input[1], 3.0)

    def bad_scale(model: onnx.ModelProto) -> None:
        shown = "/pool/MaxPool_output_0_dequantized"
        [name] = [n.input[1] for n in model.graph.node if shown in n.output]
        _scale(model, name, 1 / 16)

    for name, alter, layer in (
        ("fp32-litert", wrong, "/depthwise/depthwise.2/Relu"),
        ("fp32-litert-uint8", wrong, "/depthwise/depthwise.2/Relu"),
        ("int8-litert", bad_scale, "/stem/stem.2/Clip"),
    ):
        (folder := tmp_path / name).mkdir()
        record = run_all(models, folder, **{name.replace("-", "_"): alter})
        assert broken(record) == [name]
        assert record.divergence is not None
        assert record.divergence.layer == layer


def test_data_without_images_is_an_error(parts: Parts, tmp_path: Path) -> None:
    run_all(parts, tmp_path)
    with pytest.raises(DataError):
        parity.run(tmp_path / "faults.edgetl", tmp_path / "none")
    with pytest.raises(BundleError, match="no bundle at"):
        parity.run(tmp_path / "none.edgetl", parts.images)


def test_of_few_images_some_answers_may_differ_by_chance() -> None:
    bound = bounds.BOUNDS[Precision.INT8]
    same, ties = np.array([False, *[True] * 5]), np.zeros(6, bool)
    assert bounds._too_many_differ(same, ties, bound) == ""
    assert bounds._too_many_differ(~same, ties, bound) == (
        "the answer differs on 5 of 6 images, 0 near ties left out; where 93% agree, chance explains 2"
    )


def test_near_ties_may_fall_either_way() -> None:
    bound, ties = bounds.BOUNDS[Precision.INT8], np.ones(40, bool)
    assert bounds._too_many_differ(np.zeros(40, bool), ties, bound) == ""
    ties[:20] = False
    assert bounds._too_many_differ(np.zeros(40, bool), ties, bound).startswith(
        "the answer differs on 20 of 20 images, 20 near ties left out"
    )
    task = ClassificationTask(spec=Classification(labels=("a", "b")))
    margins = task.margins({"logits": np.array([[10.0, 9.5], [0.0, 10.0]], np.float32)})
    assert margins.tolist() == [0.25, 5.0]


def test_bad_images_are_named_or_skipped(parts: Parts, tmp_path: Path) -> None:
    images = shutil.copytree(parts.images, tmp_path / "images")
    first = sorted((images / "test").rglob("*.png"))[0]
    first.write_bytes(b"")
    run_all(parts, tmp_path)
    with pytest.raises(DataError, match=rf"1 of \d+ images cannot be used:\n.*{first.name}"):
        parity.run(tmp_path / "faults.edgetl", images)
    record = parity.run(tmp_path / "faults.edgetl", images, bad_images=BadImages.SKIP)
    assert record.image_set is not None
    assert [name for name, _ in record.image_set.skipped] == [first.relative_to(images).as_posix()]
    assert record.image_set.images == record.images
