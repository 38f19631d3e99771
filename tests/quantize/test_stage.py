from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from edgetl.config import Calibrator, DataConfig, QuantizeConfig, Recovery, Target
from edgetl.data import calibration
from edgetl.data.index import DataIndex, build_index
from edgetl.errors import ConfigError, DataError, MissingDependencyError, ModelError
from edgetl.export.onnx import to_bytes
from edgetl.files import sha256_file
from edgetl.inputs.image import load_batch
from edgetl.progress import SilentProgress
from edgetl.quantize.form import CHOICE, Calibration, Form
from edgetl.quantize.score import divergence, outputs
from edgetl.quantize.stage import QuantizeInputs, allowed_drop, run
from edgetl.quantize.targets import rules_for
from edgetl.runtime.engines.litert import LiteRtBackend
from edgetl.tasks.base import Classification, MetricSpec
from edgetl.tasks.metrics import METRICS
from tests.export.networks import LABELS, SPEC
from tests.images import write_set
from tests.quantize import networks
from tests.quantize.networks import logits

TASK = Classification(labels=LABELS)


class _Listener(SilentProgress):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.totals: list[int] = []
        self.tasks: list[str] = []

    @contextmanager
    def task(self, description: str, total: int):
        self.totals.append(total)
        self.tasks.append(description)
        with super().task(description, total) as task:
            yield task

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> QuantizeInputs:
    root = tmp_path_factory.mktemp("quantize")
    (root / "model-fp32.onnx").write_bytes(to_bytes(networks.exported()))
    index = build_index(DataConfig(source=str(write_set(root / "set", {"train": 8, "val": 3}))), seed=0)
    return QuantizeInputs(
        onnx=root / "model-fp32.onnx",
        index=index,
        spec=SPEC,
        seed=0,
        pixels_dir=root / "pixels",
        cache_dir=root / "calibration",
    )


def test_a_float_model_becomes_an_int8_one(inputs: QuantizeInputs, tmp_path: Path) -> None:
    out = tmp_path / "quantize"
    out.mkdir()
    listener = _Listener()
    record = run(QuantizeConfig(recovery=Recovery.NONE, images=20), inputs, out=out, progress=listener)
    variant, weight_only = record.variants
    path = tmp_path / variant.onnx
    assert variant.onnx == "quantize/model-int8-cpu-x86.onnx"
    assert record.calibration == "quantize/calibration.json"
    assert (variant.sha256, variant.size_bytes) == (sha256_file(path), path.stat().st_size)
    assert (variant.name, variant.precision, variant.target) == ("int8-cpu-x86", "int8", "cpu-x86")
    assert record.method == "auto (percentile, entropy, mse, minmax)"
    assert (record.metric, variant.recovery) == ("top1", "none")
    assert any(note.startswith("int8-cpu-x86: ") and "nearest" in note for note in record.notes)
    assert record.calibration_images == 20
    assert (
        record.floor == record.float_score - 1 / 9
    )  # one of the validation images, more than quantize.max_drop
    assert [(a.target, a.name, a.score) for a in record.attempts] == [("cpu-x86", "none", variant.score)]
    assert variant.quantized_nodes >= 9
    assert variant.left_in_float == ()
    assert len(record.sensitivity) == 7
    assert record.notes[-1].startswith("Dynamic INT8 was not made: ")
    assert (weight_only.name, weight_only.precision, weight_only.target) == (
        "fp32-int8-weights",
        "fp32",
        "cpu",
    )
    assert (weight_only.onnx, weight_only.recovery) == ("quantize/model-fp32-int8-weights.onnx", "none")
    assert (
        weight_only.size_bytes < 0.75 * inputs.onnx.stat().st_size
    )  # most of the tiny network is no weights
    assert weight_only.score >= record.floor
    onnx.checker.check_model(path, full_check=True)
    assert 20 in listener.totals
    assert listener.warnings == [
        "20 calibration images are few: ranges may miss what the device will see."
        " Use 100 or more (quantize.images)."
    ]
    drawn = calibration.load(out / "calibration.json", root=inputs.index.root)
    train = {sample.path for sample in inputs.index.split("train")}
    assert {sample.path for sample in drawn.samples} <= train


def test_the_same_seed_gives_the_same_file(inputs: QuantizeInputs, tmp_path: Path) -> None:
    config = QuantizeConfig(recovery=Recovery.NONE, images=9, calibrator=Calibrator.ENTROPY)
    records = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        records.append(run(config, inputs, out=tmp_path / name))
    assert records[0].variants == tuple(
        replace(v, onnx=f"one/{Path(v.onnx).name}") for v in records[1].variants
    )


def test_auto_takes_the_estimator_whose_model_comes_nearest_to_float(
    inputs: QuantizeInputs, tmp_path: Path
) -> None:
    rules, model = rules_for(Target.CPU_X86), onnx.load(inputs.onnx)
    chosen = calibration.draw(inputs.index, 20, seed=0)

    def form(calibrator: Calibrator) -> Form:
        config = QuantizeConfig(calibrator=calibrator)
        made = Calibration(
            config=config, images=chosen, spec=inputs.spec, task=TASK, folder=tmp_path / "calibration"
        )
        return made.form(model, rules)

    images = Calibration(
        config=QuantizeConfig(), images=chosen, spec=inputs.spec, task=TASK, folder=tmp_path / "calibration"
    ).batches(20)
    expected = logits(model, images)
    distances = {
        c: divergence(
            TASK, {"logits": expected}, {"logits": logits(form(c).model(), images, target=rules.target)}
        )
        for c in CHOICE
    }
    assert len(set(distances.values())) > 1
    assert form(Calibrator.AUTO).calibrator is min(CHOICE, key=lambda c: distances[c])


def test_the_divergence_is_that_of_the_probabilities() -> None:
    expected = np.log(np.array([[0.5, 0.5], [0.25, 0.75]], np.float32))
    found = np.log(np.array([[0.5, 0.5], [0.5, 0.5]], np.float32)) + 3.0

    def kl(p: np.ndarray, q: np.ndarray) -> float:
        return divergence(TASK, {"logits": p}, {"logits": q})

    assert kl(expected, found) == pytest.approx(
        (0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(1.5)) / 2, rel=1e-5
    )
    assert kl(expected, expected) == 0.0
    assert kl(expected, np.full_like(expected, np.nan)) == np.inf


def test_one_calibration_serves_all_targets(inputs: QuantizeInputs, tmp_path: Path) -> None:
    listener = _Listener()
    own = replace(inputs, cache_dir=tmp_path / "calibration")
    targets = tuple(t for t in Target if t is not Target.LITERT or find_spec("ai_edge_litert"))
    config = QuantizeConfig(recovery=Recovery.NONE, max_drop=0.9, images=6, target=targets)
    record = run(config, own, out=tmp_path, progress=listener)
    int8 = [v for v in record.variants if v.precision == "int8"]
    assert [v.target for v in int8] == [str(target) for target in targets]
    assert all(v.quantized_nodes >= 7 for v in int8)
    assert len({v.sha256 for v in int8}) == len(targets) - 1  # both TensorRTs have one form
    assert [v.name for v in record.variants if v.precision in ("fp16", "fp32")] == [
        "fp16-gpu",
        "fp32-int8-weights",
    ]
    assert listener.tasks.count("calibrate") == 1
    again = run(config, own, out=tmp_path, progress=listener)
    assert listener.tasks.count("calibrate") == 1
    assert [v.sha256 for v in again.variants] == [v.sha256 for v in record.variants]
    assert (tmp_path / "calibration" / f"{record.calibration_key}.npz").is_file()
    run(config.model_copy(update={"images": 7}), own, out=tmp_path, progress=listener)
    assert listener.tasks.count("calibrate") == 2


def test_weights_alone_are_not_quantized_for_gpus(inputs: QuantizeInputs, tmp_path: Path) -> None:
    config = QuantizeConfig(recovery=Recovery.NONE, max_drop=0.9, images=6, target=(Target.TENSORRT,))
    record = run(config, inputs, out=tmp_path)
    assert [v.name for v in record.variants] == ["int8-tensorrt", "fp16-gpu"]


@pytest.mark.parametrize(
    ("installed", "stated"), [(True, "was compiled by OpenVINO"), (False, "is not installed here")]
)
def test_openvino_compiles_its_form_where_it_is(
    inputs: QuantizeInputs, tmp_path: Path, installed: bool, stated: str
) -> None:
    if (find_spec("openvino") is not None) != installed:
        pytest.skip("OpenVINO is not installed" if installed else "OpenVINO is installed")
    config = QuantizeConfig(recovery=Recovery.NONE, max_drop=0.9, images=6, target=(Target.OPENVINO,))
    assert any(stated in note for note in run(config, inputs, out=tmp_path).notes)


def test_for_litert_the_same_integers_are_written_as_a_file_of_its_own(
    inputs: QuantizeInputs, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    config = QuantizeConfig(recovery=Recovery.NONE, max_drop=0.9, images=6, target=(Target.LITERT,))
    out = tmp_path / "quantize"
    out.mkdir()
    [variant, *_] = run(config, inputs, out=out).variants
    assert (variant.name, variant.tflite) == ("int8-litert", "quantize/model-int8-litert.tflite")
    assert variant.left_in_float == ()
    with LiteRtBackend((tmp_path / variant.tflite).read_bytes(), threads=1) as backend:
        pictures = load_batch([sample.path for sample in inputs.index.split("val")], inputs.spec)
        found = backend.run(pictures)["logits"]
    expected = outputs(tmp_path / variant.onnx, [pictures], target="litert")["logits"]
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_without_litert_its_remedy_comes_before_calibration(
    inputs: QuantizeInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.schema_py_generated", None)
    config = QuantizeConfig(recovery=Recovery.NONE, images=6, target=(Target.LITERT,))
    listener = _Listener()
    with pytest.raises(MissingDependencyError, match="pip install ai-edge-litert"):
        run(config, inputs, out=tmp_path, progress=listener)
    assert listener.tasks == []


def test_what_falls_below_the_floor_gets_a_mixed_variant(
    inputs: QuantizeInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scorer that wants two convolutions in float."""

    def convolutions(model: onnx.ModelProto) -> int:
        integers = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
        return sum(n.op_type in ("Conv", "Gemm") and n.input[1] in integers for n in model.graph.node)

    monkeypatch.setattr(
        "edgetl.quantize.stage._Scorer.__call__",
        lambda self, model, target: float(convolutions(model) <= 5 and target != "cpu"),
    )
    record = run(QuantizeConfig(recovery=Recovery.NONE, images=6), inputs, out=tmp_path)
    int8, mixed = record.variants  # the float model with INT8 weights falls below this floor too
    assert record.notes[-1] == "fp32-int8-weights was dropped: it scores 0.00%, below the floor of 88.89%."
    assert (int8.score, mixed.score) == (0.0, 1.0)
    assert (mixed.name, mixed.precision) == ("mixed-cpu-x86", "mixed")
    kept = [line.partition(" (")[0] for line in mixed.left_in_float if "kept in float by name" in line]
    assert set(kept) == {layer.name for layer in record.sensitivity[:2]}
    [note] = [note for note in record.notes if note.startswith("mixed-cpu-x86 keeps 2 of 7 layers in float")]
    assert kept[0] in note


def test_images_that_show_nothing_are_refused(inputs: QuantizeInputs, tmp_path: Path) -> None:
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    for number in range(9):
        split = "train" if number < 6 else "val"
        folder = tmp_path / "set" / split / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        grey.save(folder / f"{number}.png")
    index = build_index(DataConfig(source=str(tmp_path / "set")), seed=0)
    spec = replace(SPEC, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    with pytest.raises(DataError, match="Every pixel of the 1 calibration images is the same"):
        run(QuantizeConfig(images=6), replace(inputs, index=index, spec=spec), out=tmp_path)


def test_no_validation_images_is_an_error(inputs: QuantizeInputs, tmp_path: Path) -> None:
    train = tuple(sample for sample in inputs.index.samples if sample.split == "train")
    index = DataIndex(inputs.index.root, inputs.index.labels, train, ())
    with pytest.raises(DataError, match="has no validation images to score quantized models on"):
        run(QuantizeConfig(images=6), replace(inputs, index=index), out=tmp_path)


def test_training_wants_a_teacher(inputs: QuantizeInputs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quantize\.recovery = 'qat' needs a teacher to learn from"):
        run(QuantizeConfig(images=6, recovery=Recovery.QAT), inputs, out=tmp_path)


def test_no_training_images_is_an_error(inputs: QuantizeInputs, tmp_path: Path) -> None:
    val = tuple(sample for sample in inputs.index.samples if sample.split == "val")
    empty = DataIndex(inputs.index.root, inputs.index.labels, val, ())
    with pytest.raises(DataError, match="has no training images to calibrate on"):
        run(QuantizeConfig(), replace(inputs, index=empty), out=tmp_path)


def test_another_preprocessing_is_refused(inputs: QuantizeInputs, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"\(6, 3, 24, 24\) and type float32; the model's input is \('batch', 3, 32"
    ):
        run(
            QuantizeConfig(recovery=Recovery.NONE, images=6),
            replace(inputs, spec=replace(SPEC, size=24)),
            out=tmp_path,
        )
    assert not list(tmp_path.glob("model-*.onnx"))


def _with_inside(inputs: QuantizeInputs, folder: Path, operator: str, bias: float = 0.0) -> QuantizeInputs:
    """A classifier of 8 px images with `operator` between its convolution and its head."""
    node = helper.make_node
    model = networks.graph(
        [
            node("Conv", ["images", "w", "b"], ["a"], "first", pads=[1, 1, 1, 1]),
            node(operator, ["a"], ["inside"], "inside"),
            node("Conv", ["inside", "v"], ["c"], "second"),
            node("GlobalAveragePool", ["c"], ["pooled"], "pool"),
            node("Flatten", ["pooled"], ["logits"], "flatten"),
        ],
        {
            "w": networks.weights(4, 3, 3, 3),
            "b": np.full(4, bias, np.float32),
            "v": networks.weights(3, 4, 1, 1),
        },
        output=("batch", 3),
    )
    (folder / "hand.onnx").write_bytes(model.SerializeToString())
    return replace(inputs, onnx=folder / "hand.onnx", spec=replace(SPEC, size=8))


def test_an_operator_without_an_integer_form_stays_in_float_and_is_listed(
    inputs: QuantizeInputs, tmp_path: Path
) -> None:
    config = QuantizeConfig(recovery=Recovery.NONE, images=6, max_drop=0.9)
    record = run(config, _with_inside(inputs, tmp_path, "Softplus"), out=tmp_path)
    [variant] = [v for v in record.variants if v.precision == "int8"]
    assert variant.left_in_float == ("inside (Softplus): no INT8 form on cpu-x86",)
    assert "Softplus" in {n.op_type for n in onnx.load(tmp_path / Path(variant.onnx).name).graph.node}
    assert "Sensitivity was not measured: torch cannot run Softplus here." in record.notes


@pytest.mark.parametrize("target", [Target.CPU_X86, Target.TENSORRT])
def test_an_activation_that_is_always_zero_is_quantized(
    inputs: QuantizeInputs, tmp_path: Path, target: Target
) -> None:
    config = QuantizeConfig(recovery=Recovery.NONE, images=6, max_drop=0.9, target=(target,))
    dead = _with_inside(inputs, tmp_path, "Relu", bias=-1e3)
    variant = run(config, dead, out=tmp_path).variants[0]
    images = [networks.images(4, size=8)]
    wanted, got = logits(dead.onnx, images), logits(tmp_path / Path(variant.onnx).name, images)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_an_activation_that_is_not_finite_is_named(inputs: QuantizeInputs, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="The activation 'inside' holds NaN or infinity on calibration images"
    ):
        run(QuantizeConfig(images=6), _with_inside(inputs, tmp_path, "Log"), out=tmp_path)
    assert not list(tmp_path.glob("model-*.onnx"))


def test_a_quantized_model_is_refused(inputs: QuantizeInputs, tmp_path: Path) -> None:
    record = run(QuantizeConfig(recovery=Recovery.NONE, images=6), inputs, out=tmp_path)
    again = replace(inputs, onnx=tmp_path / Path(record.variants[0].onnx).name)
    with pytest.raises(ModelError, match=r"model-int8-cpu-x86\.onnx is quantized already"):
        run(QuantizeConfig(recovery=Recovery.NONE, images=6), again, out=tmp_path)


def test_a_model_with_nothing_to_quantize_is_refused(inputs: QuantizeInputs, tmp_path: Path) -> None:
    model = networks.graph(
        [helper.make_node("Tanh", ["images"], ["logits"], "tanh")], {}, output=("batch", 3, 8, 8)
    )
    (tmp_path / "tanh.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"Nothing in tanh\.onnx can run in INT8 on cpu-x86: tanh \(Tanh\)"):
        run(QuantizeConfig(), replace(inputs, onnx=tmp_path / "tanh.onnx"), out=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No ONNX model at"), (b"garbage", "is not a valid ONNX model")]
)
def test_what_is_no_model_is_refused(
    inputs: QuantizeInputs, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        run(QuantizeConfig(), replace(inputs, onnx=path), out=tmp_path)


def test_an_opset_too_new_is_refused(inputs: QuantizeInputs, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(networks.exported())
    model.opset_import[0].version = 99
    (tmp_path / "new.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"new\.onnx has opset 99; the installed onnx knows up to \d+"):
        run(QuantizeConfig(), replace(inputs, onnx=tmp_path / "new.onnx"), out=tmp_path)


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.name)
def test_one_image_is_allowed_only_where_the_score_counts_images(spec: MetricSpec) -> None:
    config = QuantizeConfig(max_drop=0.005)
    counted = spec.name not in {"map", "map50", "recall", "calibration_error", "severity"}
    assert allowed_drop(config, spec, images=20) == (0.05 if counted else 0.005)
    assert allowed_drop(config, spec, images=1000) == 0.005
