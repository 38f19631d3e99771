"""Quantization-aware training on the tiny network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgetl.config import Augment, DataConfig, QuantizeConfig, Recovery
from edgetl.data.index import build_index
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.quantize.graph import Graph
from edgetl.quantize.stage import QuantizeInputs, run
from edgetl.records.codec import from_json, to_json
from edgetl.records.variants import QuantizeRecord
from edgetl.tasks.base import Classification
from tests.distill.guides import guide_of
from tests.images import write_set

BACKBONE = "test_efficientnet"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> QuantizeInputs:
    root = tmp_path_factory.mktemp("aware")
    index = build_index(DataConfig(source=str(write_set(root / "set", {"train": 12, "val": 4}))), seed=0)
    spec = PreprocessSpec(size=32)
    model = backbones.create(BACKBONE, len(index.labels), "none", seed=1).eval()
    checkpoint.save(model, describe(model, BACKBONE, len(index.labels)), root / "teacher.safetensors")
    (root / "model-fp32.onnx").write_bytes(
        to_bytes(to_onnx(model, task=Classification(labels=index.labels), spec=spec, opset=18))
    )
    return QuantizeInputs(
        onnx=root / "model-fp32.onnx",
        index=index,
        spec=spec,
        seed=0,
        pixels_dir=root / "pixels",
        cache_dir=root / "calibration",
        guide=guide_of(root / "teacher.safetensors", augment=Augment.NONE),
    )


def _weights(graph: Graph) -> list[NDArray[Any]]:
    """The integers of the convolutions and products, in order."""
    pairs = {node.output[0]: node.input[0] for node in graph.nodes if node.op_type == "DequantizeLinear"}
    names = [pairs[n.input[1]] for n in graph.nodes if n.op_type in ("Conv", "Gemm")]
    found = [graph.constant(name) for name in names]
    assert found
    assert all(weights is not None for weights in found)
    return found


def test_training_keeps_the_form_and_changes_the_weights(inputs: QuantizeInputs, tmp_path: Path) -> None:
    records, models = [], []
    for recovery in (Recovery.NONE, Recovery.QAT):
        out = tmp_path / recovery
        out.mkdir()
        config = QuantizeConfig(recovery=recovery, images=12, max_drop=0.9, qat_epochs=1)
        records.append(run(config, inputs, out=out))
        models.append(Graph(onnx.load(tmp_path / records[-1].variants[0].onnx)))
    plain, trained = models
    assert [n.op_type for n in trained.nodes] == [n.op_type for n in plain.nodes]
    assert records[1].variants[0].recovery == "qat"
    assert not list((tmp_path / "qat").glob("*.state"))
    assert any(
        not np.array_equal(before, after)
        for before, after in zip(_weights(plain), _weights(trained), strict=True)
    )
    assert from_json(QuantizeRecord, to_json(records[1])) == records[1]
