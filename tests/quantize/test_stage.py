from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import helper

from edgetl.config import Calibrator, DataConfig, QuantizeConfig, Target
from edgetl.data import calibration
from edgetl.data.index import DataIndex, build_index
from edgetl.errors import DataError, ModelError
from edgetl.export.onnx import to_bytes
from edgetl.files import sha256_file
from edgetl.progress import SilentProgress
from edgetl.quantize.stage import QuantizeInputs, run
from tests.export.networks import SPEC
from tests.images import write_set
from tests.quantize import networks


class _Listener(SilentProgress):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.totals: list[int] = []

    @contextmanager
    def task(self, description: str, total: int):
        self.totals.append(total)
        with super().task(description, total) as task:
            yield task

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> QuantizeInputs:
    root = tmp_path_factory.mktemp("quantize")
    (root / "model-fp32.onnx").write_bytes(to_bytes(networks.exported()))
    index = build_index(DataConfig(source=str(write_set(root / "set", {"train": 8, "val": 3}))), seed=0)
    return QuantizeInputs(onnx=root / "model-fp32.onnx", index=index, spec=SPEC, seed=0)


def test_a_float_model_becomes_an_int8_one(inputs: QuantizeInputs, tmp_path: Path) -> None:
    out = tmp_path / "quantize"
    out.mkdir()
    listener = _Listener()
    record = run(QuantizeConfig(images=20), inputs, out=out, progress=listener)
    path = tmp_path / record.onnx
    assert record.onnx == "quantize/model-int8.onnx"
    assert record.calibration == "quantize/calibration.json"
    assert (record.sha256, record.size_bytes) == (sha256_file(path), path.stat().st_size)
    assert (record.target, record.method) == ("cpu-x86", "percentile 99.99")
    assert record.calibration_images == 20
    assert record.quantized_nodes >= 9
    assert record.left_in_float == ()
    onnx.checker.check_model(path, full_check=True)
    assert listener.totals == [20]
    assert listener.warnings == [
        "20 calibration images are few: ranges may miss what the device will see."
        " Use 100 or more (quantize.images)."
    ]
    drawn = calibration.load(out / "calibration.json", root=inputs.index.root)
    train = {sample.path for sample in inputs.index.split("train")}
    assert {sample.path for sample in drawn.samples} <= train


def test_the_same_seed_gives_the_same_file(inputs: QuantizeInputs, tmp_path: Path) -> None:
    config = QuantizeConfig(images=9, calibrator=Calibrator.ENTROPY)
    records = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        records.append(run(config, inputs, out=tmp_path / name))
    assert records[0].sha256 == records[1].sha256


@pytest.mark.parametrize("target", list(Target))
def test_every_target_has_a_form(inputs: QuantizeInputs, tmp_path: Path, target: Target) -> None:
    record = run(QuantizeConfig(images=6, target=target), inputs, out=tmp_path)
    assert record.target == target.value
    assert record.quantized_nodes >= 7


def test_no_training_images_is_an_error(inputs: QuantizeInputs, tmp_path: Path) -> None:
    val = tuple(sample for sample in inputs.index.samples if sample.split == "val")
    empty = DataIndex(inputs.index.root, inputs.index.labels, val, ())
    with pytest.raises(DataError, match="has no training images to calibrate on"):
        run(QuantizeConfig(), replace(inputs, index=empty), out=tmp_path)


def test_another_preprocessing_is_refused(inputs: QuantizeInputs, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\(6, 3, 24, 24\)"):
        run(QuantizeConfig(images=6), replace(inputs, spec=replace(SPEC, size=24)), out=tmp_path)
    assert not (tmp_path / "model-int8.onnx").exists()


def test_a_quantized_model_is_refused(inputs: QuantizeInputs, tmp_path: Path) -> None:
    record = run(QuantizeConfig(images=6), inputs, out=tmp_path)
    again = replace(inputs, onnx=tmp_path / Path(record.onnx).name)
    with pytest.raises(ModelError, match=r"model-int8\.onnx is quantized already"):
        run(QuantizeConfig(images=6), again, out=tmp_path)


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
