"""The mistakes that a shipped classifier is most sure of, looked at again: by the record and on the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetl.config import DataConfig
from edgetl.data.index import DataIndex, build_index
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.inputs.image import PreprocessSpec, load_batch
from edgetl.measure.mistakes import MistakesInputs, run
from edgetl.models import architecture, backbones, checkpoint
from edgetl.records.codec import from_json, to_json
from edgetl.records.mistakes import MistakesRecord
from edgetl.records.scores import Evaluation
from edgetl.records.variants import VariantScore
from edgetl.report.page.mistakes import gallery
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.all import detail_of
from edgetl.tasks.base import LOGITS
from edgetl.tasks.classification.answers import softmax
from edgetl.tasks.classification.detail import ClassDetail
from edgetl.tasks.classification.scores import evaluate
from tests.images import write_set
from tests.report.conftest import latency

SPEC = PreprocessSpec(size=32)
TEACHER_SPEC = PreprocessSpec(size=48)


def made(backbone: str, folder: Path, index: DataIndex) -> tuple[MistakesInputs, Evaluation]:
    """An untrained network in both roles: many of its answers are wrong."""
    model = backbones.create(backbone, 3, "none", seed=1)
    checkpoint.save(model, architecture.describe(model, backbone, 3), folder / "teacher.safetensors")
    content = to_bytes(to_onnx(model, task=index.task, spec=SPEC, opset=18))
    (folder / "model.onnx").write_bytes(content)
    samples = index.split("val")
    with OnnxBackend(content, threads=1) as backend:
        logits = backend.run(load_batch([sample.path for sample in samples], SPEC))[LOGITS]
    scores = evaluate(np.array([sample.label for sample in samples]), logits * 100, index.labels)
    variant = VariantScore(
        name="fp32",
        precision="fp32",
        target="any",
        file="model.onnx",
        sha256="",
        size_bytes=len(content),
        val=scores,
        test=None,
        latency=latency(1.0, runs=10),
    )
    detail = detail_of(scores)
    assert isinstance(detail, ClassDetail)
    inputs = MistakesInputs(
        shipped=variant,
        worst=detail.worst,
        split="val",
        index=index,
        spec=SPEC,
        teacher=folder / "teacher.safetensors",
        teacher_spec=TEACHER_SPEC,
        run_dir=folder,
    )
    return inputs, scores


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DataIndex:
    source = write_set(tmp_path_factory.mktemp("set"), {"train": 2, "val": 5})
    return build_index(DataConfig(source=str(source)), seed=0)


@pytest.fixture(scope="module")
def record(index: DataIndex, tmp_path_factory: pytest.TempPathFactory) -> MistakesRecord:
    inputs, scores = made("test_efficientnet", tmp_path_factory.mktemp("run"), index)
    found = run(inputs)
    assert len(found.mistakes) == min(8, round(scores.images * (1 - scores.scores["top1"].value)))
    return found


def test_each_mistake_has_its_map_and_what_the_teacher_says(index: DataIndex, record: MistakesRecord) -> None:
    assert (record.variant, record.split, record.no_maps) == ("fp32", "val", "")
    assert [one.score for one in record.mistakes] == sorted(
        (one.score for one in record.mistakes), reverse=True
    )
    samples = {str(sample.path): sample for sample in index.split("val")}
    model = backbones.create("test_efficientnet", 3, "none", seed=1).eval()
    for one in record.mistakes:
        assert one.truth == index.labels[samples[one.file].label] != one.answer
        assert one.size == (40, 40)
        assert np.array(one.map).ndim == 2
        with torch.inference_mode():
            own = softmax(model(torch.from_numpy(load_batch([Path(one.file)], TEACHER_SPEC))).numpy())[0]
        assert one.teacher == index.labels[int(own.argmax())]
        assert one.teacher_score == pytest.approx(float(own.max()), abs=1e-4)
    assert from_json(MistakesRecord, to_json(record)) == record


def test_the_page_shows_picture_and_map_in_few_bytes(record: MistakesRecord) -> None:
    page = gallery(record)
    assert page.count("data:image/jpeg") == 2 * len(record.mistakes)
    assert len(page) < 60_000 * len(record.mistakes)
    assert "Surest mistakes" in page
    assert "teacher:" in page
    gone = dataclasses.replace(record.mistakes[0], file="no/such/<picture>.png")
    page = gallery(dataclasses.replace(record, mistakes=(gone,)))
    assert "no picture" in page
    assert "&lt;picture&gt;.png" in page
    assert gallery(None) == gallery(MistakesRecord(variant="fp32", split="val")) == ""


def test_a_network_without_maps_shows_its_mistakes_and_says_why(index: DataIndex, tmp_path: Path) -> None:
    inputs, _ = made("mobilenetv3_small_050", tmp_path, index)
    found = run(inputs)
    assert found.mistakes
    assert {one.map for one in found.mistakes} == {()}
    assert "HardSwish stands between its pooling and its answer" in found.no_maps
    page = gallery(found)
    assert "Without maps: The network gives no class activation map" in page
    assert page.count("data:image/jpeg") == len(found.mistakes)
    elsewhere = dataclasses.replace(inputs, shipped=dataclasses.replace(inputs.shipped, target="tensorrt"))
    assert run(elsewhere).no_maps == "fp32 is made for tensorrt, which does not run here."


def test_worst_answers_are_the_surest_and_few() -> None:
    labels = np.zeros(30, np.int64)
    logits = np.stack([np.zeros(30), np.linspace(-3, 3, 30)], axis=1)
    detail = detail_of(evaluate(labels, logits, ["a", "b"]))
    assert isinstance(detail, ClassDetail)
    assert [one.image for one in detail.worst] == [29, 28, 27, 26, 25, 24, 23, 22]
    assert {(one.truth, one.answer) for one in detail.worst} == {(0, 1)}
    assert detail.worst[0].score == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-6)
    assert "worst" not in evaluate(labels, -logits * 0 + [1, 0], ["a", "b"]).detail
