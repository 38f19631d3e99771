"""A bundle's model for other runtimes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import edgetl
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import InputForm
from edgetl.bundle.pack import VariantSource, pack
from edgetl.deploy.serving import ServeOptions, write_litert, write_onnx, write_triton
from edgetl.errors import BundleError, ConfigError, ModelError
from edgetl.export.bake import DETECTIONS, bake_nms
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.inputs.image import Resize, load_pixels, normalise
from edgetl.inputs.spec import SoundSpec
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import Classification, MultiHead, MultiLabel
from edgetl.tasks.classification.answers import softmax
from edgetl.tasks.detection.task import DetectionTask
from tests import squares
from tests.bundles import LABELS, SPEC, contents, picture
from tests.export.litert.running import in_litert
from tests.export.networks import tiny

PIXELS = np.stack([load_pixels(picture(i), SPEC) for i in range(3)])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    pack(contents(folder), folder / "flowers.edgetl")
    return folder / "flowers.edgetl"


@pytest.fixture(scope="module")
def logits(bundle: Path) -> np.ndarray:
    with edgetl.load(bundle) as session:
        return session.run(PIXELS)["logits"]


def test_the_model_as_it_is(bundle: Path, tmp_path: Path) -> None:
    record = write_onnx(bundle, ServeOptions(variant="int8-cpu-x86"), tmp_path / "m.onnx")
    assert (record.variant, record.path) == ("int8-cpu-x86", str(tmp_path / "m.onnx"))
    assert (tmp_path / "m.onnx").stat().st_size == record.size_bytes


def test_pictures_in_and_the_best_classes_out(bundle: Path, tmp_path: Path, logits: np.ndarray) -> None:
    write_onnx(bundle, ServeOptions(uint8=True, top=2), tmp_path / "m.onnx")
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    scores, classes = session.run(None, {"images": PIXELS})
    np.testing.assert_array_equal(classes[:, 0], logits.argmax(1))
    np.testing.assert_allclose(scores[:, 0], softmax(logits).max(1), rtol=1e-4)


def test_samples_need_a_variant_that_takes_normalised_pictures(tmp_path: Path) -> None:
    plain = contents(tmp_path)
    spec = replace(SPEC, resize=Resize.SQUASH, sound=SoundSpec(rate=8000, seconds=1.0, high_hz=4000.0))
    baked = [replace(variant, input=InputForm.UINT8) for variant in plain.variants]
    pack(replace(plain, preprocess=spec, variants=baked), tmp_path / "words.edgetl")
    with pytest.raises(BundleError, match=r"fp32 takes pictures and normalises inside, and --samples needs"):
        write_onnx(tmp_path / "words.edgetl", ServeOptions(samples=True), tmp_path / "m.onnx")


def test_contradictions_are_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--softmax and --top exclude each other"):
        write_onnx(bundle, ServeOptions(softmax=True, top=2), tmp_path / "m.onnx")
    with pytest.raises(
        ConfigError, match="--samples is for sounds, and the bundle looks at images; leave it out"
    ):
        write_onnx(bundle, ServeOptions(samples=True), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="top: got 9, the model has 3 classes"):
        write_onnx(bundle, ServeOptions(top=9), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


CONFIG = """\
name: "flowers"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 16
input [
  {
    name: "images"
    data_type: TYPE_UINT8
    dims: [ 32, 32, 3 ]
  }
]
output [
  {
    name: "probabilities"
    data_type: TYPE_FP32
    dims: [ 3 ]
    label_filename: "labels.txt"
  }
]
instance_group [
  { count: 1 kind: KIND_CPU }
]
dynamic_batching {
  max_queue_delay_microseconds: 1000
}
"""


def test_a_triton_repository(bundle: Path, tmp_path: Path, logits: np.ndarray) -> None:
    record = write_triton(bundle, ServeOptions(uint8=True, softmax=True), tmp_path / "models", max_batch=16)
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert found == [f"models/flowers/{name}" for name in ("1/model.onnx", "config.pbtxt", "labels.txt")]
    assert sorted(record.files) == [name.removeprefix("models/flowers/") for name in found]
    folder = tmp_path / "models" / "flowers"
    config = (folder / "config.pbtxt").read_text()
    assert config == CONFIG
    assert (folder / "labels.txt").read_text().splitlines() == list(LABELS)
    # What the configuration says is what the model has.
    model = onnx.load(folder / "1" / "model.onnx")
    names = re.findall(r'name: "(\w+)"', config)[1:]
    assert names == [value.name for value in (*model.graph.input, *model.graph.output)]
    session = ort.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"images": PIXELS})
    np.testing.assert_allclose(probabilities, softmax(logits), rtol=1e-4)


def test_triton_s_own_schema_takes_the_configuration(bundle: Path, tmp_path: Path) -> None:
    schema = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2",
        reason="tritonclient is not installed: pip install tritonclient[grpc]",
    )
    from google.protobuf import text_format

    write_triton(bundle, ServeOptions(top=2), tmp_path, gpu=True)
    config = text_format.Parse((tmp_path / "flowers" / "config.pbtxt").read_text(), schema.ModelConfig())
    assert [(o.name, list(o.dims)) for o in config.output] == [("scores", [2]), ("classes", [2])]
    assert config.max_batch_size == 8
    assert list(config.input[0].dims) == [3, 32, 32]


@pytest.mark.parametrize("options", [ServeOptions(), ServeOptions(uint8=True, softmax=True)])
@pytest.mark.parametrize("variant", ["fp32", "int8-cpu-x86"])
def test_openvino_computes_the_same(
    bundle: Path, tmp_path: Path, variant: str, options: ServeOptions
) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    from dataclasses import replace

    write_onnx(bundle, replace(options, variant=variant), tmp_path / "m.onnx")
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(tmp_path / "m.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    images = PIXELS if options.uint8 else normalise(PIXELS, SPEC)
    (got,) = compiled(images).values()
    with edgetl.load(bundle, variant=variant) as session:
        expected = session.run(PIXELS)["logits"]
    expected = softmax(expected) if options.softmax else expected
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_window_is_said_to_whoever_runs_the_model(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    spec = replace(parts.preprocess, window=(20_000.0, 24_000.0))
    pack(replace(parts, preprocess=spec), tmp_path / "w.edgetl")
    options = ServeOptions(uint8=True)
    found = write_onnx(tmp_path / "w.edgetl", options, tmp_path / "m.onnx")
    assert (
        found.window
        == write_triton(tmp_path / "w.edgetl", options, tmp_path / "models").window
        == spec.window
    )


def test_a_label_that_breaks_a_line_is_refused_for_triton(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    labels = ("a\nb", *LABELS[1:])
    pack(replace(parts, task=replace(parts.task, labels=labels)), tmp_path / "old.edgetl")
    with pytest.raises(BundleError, match=r"reads one label per line: the class name 'a\\nb' holds"):
        write_triton(tmp_path / "old.edgetl", ServeOptions(), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_several_heads_have_an_output_and_a_file_of_labels_each(tmp_path: Path) -> None:
    task = MultiHead(
        heads={"species": Classification(labels=("cat", "dog")), "colours": MultiLabel(labels=("white",))}
    )
    parts = contents(tmp_path)
    model = tmp_path / "heads.onnx"
    model.write_bytes(to_bytes(to_onnx(tiny(), task=task, spec=SPEC, opset=18)))
    with OnnxBackend(model, threads=1) as backend:
        outputs = {"fp32": backend.run(normalise(parts.golden.pixels, SPEC))}
    golden = GoldenSet(images=parts.golden.images, pixels=parts.golden.pixels, outputs=outputs)
    source = VariantSource(name="fp32", precision="fp32", target="any", model=model)
    pack(replace(parts, task=task, variants=[source], golden=golden), tmp_path / "heads.edgetl")
    record = write_triton(
        tmp_path / "heads.edgetl", ServeOptions(softmax=True, uint8=True), tmp_path / "models"
    )
    assert record.files == ("config.pbtxt", "labels-species.txt", "labels-colours.txt", "1/model.onnx")
    folder = Path(record.path)
    assert (folder / "labels-species.txt").read_text() == "cat\ndog\n"
    assert (folder / "labels-colours.txt").read_text() == "white\n"
    named = re.findall(
        r'name: "(\w+)"[^}]*label_filename: "([\w.-]+)"', (folder / "config.pbtxt").read_text()
    )
    assert named == [
        ("species_probabilities", "labels-species.txt"),
        ("colours_probabilities", "labels-colours.txt"),
    ]
    session = ort.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["colours_probabilities"], {"images": PIXELS})[0]
    with edgetl.load(tmp_path / "heads.edgetl") as loaded:
        assert loaded.manifest.labels == (
            "species/cat",
            "species/dog",
            "colours/white",
        )  # in the network's order
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-loaded.run(PIXELS)["colours"])), rtol=1e-4)


def test_several_classes_of_one_image_have_one_file_of_labels(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    pack(replace(parts, task=MultiLabel(labels=LABELS)), tmp_path / "tags.edgetl")
    record = write_triton(tmp_path / "tags.edgetl", ServeOptions(), tmp_path / "models")
    assert record.files == ("config.pbtxt", "labels.txt", "1/model.onnx")
    assert 'label_filename: "labels.txt"' in (Path(record.path) / "config.pbtxt").read_text()
    write_onnx(tmp_path / "tags.edgetl", ServeOptions(softmax=True), tmp_path / "m.onnx")
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"images": normalise(PIXELS, SPEC)})
    with edgetl.load(tmp_path / "tags.edgetl") as loaded:
        logits = loaded.run(PIXELS)["logits"]
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-4)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_detector_removes_duplicates_itself(tmp_path: Path, engine: str) -> None:
    found = squares.write_bundle(tmp_path / "squares.edgetl")
    record = write_onnx(found, ServeOptions(uint8=True, nms=True), tmp_path / "m.onnx")
    pixels = np.stack(
        [load_pixels(squares.encoded(squares.drawn(squares.squares(k))), squares.SPEC) for k in range(4)]
    )
    if engine == "onnxruntime":
        session = ort.InferenceSession(record.path, providers=["CPUExecutionProvider"])
        assert [value.name for value in session.get_outputs()] == [DETECTIONS]
        (rows,) = session.run(None, {"images": pixels})
    else:
        openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
        compiled = openvino.compile_model(
            openvino.Core().read_model(record.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        rows = compiled([pixels])[0]
        rows = rows[rows[:, 0] >= 0]  # OpenVINO fills up with rows of -1
    with edgetl.load(found) as session:
        outputs = [session.run(one[None]) for one in pixels]
    for at, own in enumerate(outputs):
        [expected] = DetectionTask(spec=squares.TASK)._found(own, squares.TASK.threshold)
        assert len(expected.labels) >= 2
        mine = rows[rows[:, 0] == at]
        order = np.lexsort((-expected.scores, expected.labels))
        np.testing.assert_allclose(mine[:, 1:5], expected.boxes[order], atol=1e-3)
        np.testing.assert_allclose(mine[:, 5], expected.scores[order], atol=1e-5)
        assert mine[:, 6].tolist() == expected.labels[order].tolist()


def test_only_detectors_have_duplicates_to_remove(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Only a detector has boxes"):
        write_onnx(bundle, ServeOptions(nms=True), tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="--nms is for detectors"):
        write_onnx(bundle, ServeOptions(nms=True, softmax=True), tmp_path / "m.onnx")
    renamed = squares.model()
    renamed.graph.output[0].name = "places"
    with pytest.raises(ModelError, match="no output 'boxes'; it has places, scores"):
        bake_nms(renamed, squares.TASK)
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("variant", ["fp32", "int8-cpu-x86"])
def test_a_file_for_litert_answers_as_the_bundle_does(
    bundle: Path, tmp_path: Path, logits: np.ndarray, variant: str
) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    record = write_litert(
        bundle, ServeOptions(variant=variant, uint8=True, softmax=True), tmp_path / "m.tflite"
    )
    assert (record.variant, record.files) == (variant, ("m.tflite",))
    content = (tmp_path / "m.tflite").read_bytes()
    assert len(content) == record.size_bytes
    found = in_litert(content, PIXELS)
    np.testing.assert_allclose(found, softmax(logits), atol=1e-4 if variant == "fp32" else 0.1)


def test_what_litert_does_not_take_is_refused_before_a_file_is_there(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="The operator TopK of node head/TopK cannot be written for LiteRT"):
        write_litert(bundle, ServeOptions(top=2), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
