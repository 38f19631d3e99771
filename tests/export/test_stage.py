from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgetl.config import DataConfig, ExportConfig
from edgetl.data.index import DataIndex, build_index
from edgetl.errors import ModelError, WeightsError
from edgetl.export.stage import ExportInputs, run
from edgetl.files import sha256_file
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import architecture, backbones, checkpoint
from tests.images import write_set

BACKBONE = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ExportInputs:
    root = tmp_path_factory.mktemp("export")
    model = backbones.create(BACKBONE, 3, "none")
    checkpoint.save(model, architecture.describe(model, BACKBONE, 3), root / "student.safetensors")
    index = build_index(DataConfig(source=str(write_set(root / "set", {"train": 4, "val": 7}))), seed=0)
    return ExportInputs(checkpoint=root / "student.safetensors", index=index, spec=PreprocessSpec(size=32))


def test_a_checkpoint_becomes_a_checked_file(inputs: ExportInputs, tmp_path: Path) -> None:
    out = tmp_path / "export"
    out.mkdir()
    record = run(ExportConfig(), inputs, out=out)
    path = tmp_path / record.onnx
    assert record.onnx == "export/model-fp32.onnx"
    assert (record.sha256, record.size_bytes) == (sha256_file(path), path.stat().st_size)
    assert (record.opset, record.images) == (18, 21)
    assert record.max_difference < 1e-3
    assert record.same == 1.0
    onnx.checker.check_model(path, full_check=True)
    assert run(ExportConfig(), inputs, out=out) == record


def test_a_limit_that_is_not_met_leaves_no_file(inputs: ExportInputs, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="differs from the network"):
        run(ExportConfig(max_difference=1e-30), inputs, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_checkpoint_is_named(inputs: ExportInputs, tmp_path: Path) -> None:
    missing = ExportInputs(checkpoint=tmp_path / "none.safetensors", index=inputs.index, spec=inputs.spec)
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        run(ExportConfig(), missing, out=tmp_path)


def test_other_labels_are_refused(inputs: ExportInputs, tmp_path: Path) -> None:
    index = DataIndex(inputs.index.root, ("a", "b"), inputs.index.samples, ())
    other = ExportInputs(checkpoint=inputs.checkpoint, index=index, spec=inputs.spec)
    with pytest.raises(ModelError, match=r"gives \(2, 3\) for two images, expected logits \(2, 2\)"):
        run(ExportConfig(), other, out=tmp_path)
