from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgetl.config import DataConfig, ExportConfig, Target
from edgetl.data.index import DataIndex, build_index
from edgetl.errors import ModelError, WeightsError
from edgetl.export.litert.flat import constant_types
from edgetl.export.stage import ExportInputs, run
from edgetl.files import sha256_file
from edgetl.inputs.image import PreprocessSpec, load_batch
from edgetl.models import architecture, backbones, checkpoint
from edgetl.runtime.engines.litert import LiteRtBackend
from edgetl.runtime.engines.onnxruntime import OnnxBackend
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


def test_for_litert_both_files_are_written_anew(inputs: ExportInputs, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    (out := tmp_path / "export").mkdir()
    record = run(ExportConfig(), dataclasses.replace(inputs, targets=(Target.LITERT,)), out=out)
    assert record.litert == "export/model-fp32.tflite"
    assert record.litert_half_weights == "export/model-fp32-half-weights.tflite"
    images = load_batch([sample.path for sample in inputs.index.split("val")[:3]], inputs.spec)
    found = []
    for onnx_file, file, stored in (
        (record.onnx, record.litert, {"float32", "int32"}),
        (record.half_weights, record.litert_half_weights, {"float16", "float32", "int32"}),
    ):
        content = (tmp_path / file).read_bytes()
        assert constant_types(content) == stored
        with OnnxBackend(tmp_path / onnx_file, threads=1) as reference:
            expected = reference.run(images)["logits"]
        with LiteRtBackend(content, threads=1) as backend:
            found.append(backend.run(images)["logits"])
        np.testing.assert_allclose(found[-1], expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())))
    assert not np.array_equal(*found)


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
