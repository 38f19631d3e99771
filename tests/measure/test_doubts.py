"""Doubtful labels of a set in which it is known which are wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgetl.config import DataConfig
from edgetl.data.index import DataIndex, build_index
from edgetl.inputs.image import PreprocessSpec
from edgetl.measure.doubts import DoubtsInputs, run
from edgetl.models import architecture, backbones, checkpoint
from edgetl.records.codec import from_json, to_json
from edgetl.records.doubts import DoubtsRecord
from edgetl.report.page.doubts import doubts
from edgetl.tasks.base import Classification, Detection, MultiHead, MultiLabel
from tests.images import write_set
from tests.report.conftest import make_report

SPEC = PreprocessSpec(size=32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DataIndex:
    """Three colours, of which one training image stands under another's name."""
    source = write_set(tmp_path_factory.mktemp("set"), {"train": 10, "val": 4})
    found = build_index(DataConfig(source=str(source)), seed=0)
    first = next(at for at, s in enumerate(found.samples) if s.split == "train" and s.label == 0)
    samples = list(found.samples)
    samples[first] = dataclasses.replace(samples[first], label=1)
    return dataclasses.replace(found, samples=tuple(samples))


def _inputs(index: DataIndex, folder: Path, **changes: object) -> DoubtsInputs:
    width = len(index.labels)
    model = backbones.create("test_efficientnet", width, "none", seed=1)
    described = architecture.describe(model, "test_efficientnet", width)
    checkpoint.save(model, described, folder / "teacher.safetensors")
    return dataclasses.replace(
        DoubtsInputs(
            index=index,
            teacher=folder / "teacher.safetensors",
            spec=SPEC,
            backbone="efficientnet_lite0",
            weights="pretrained",
            seed=0,
            pixels_dir=folder / "pixels",
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def record(index: DataIndex, tmp_path_factory: pytest.TempPathFactory) -> DoubtsRecord:
    folder = tmp_path_factory.mktemp("run")
    (folder / "doubts").mkdir()
    found = run(_inputs(index, folder), out=folder / "doubts")
    assert list((folder / "doubts").iterdir()) == []
    return found


def test_the_wrong_label_of_a_training_image_is_found_by_other_images(
    index: DataIndex, record: DoubtsRecord
) -> None:
    [wrong] = [one for one in record.labels if one.split == "train"]
    assert index.labels[0] in wrong.file
    assert (wrong.given, wrong.suspected) == (index.labels[1], index.labels[0])
    assert wrong.score > 0.5 > wrong.given_score
    sizes = index.sizes()
    assert [(one.split, one.images) for one in record.splits] == [
        (name, sizes[name]) for name in ("val", "test", "train")
    ]
    assert record.splits[2].candidates == 1
    assert record.splits[2].agrees == pytest.approx(1 - 1 / sizes["train"])
    assert record.splits[2].share == pytest.approx(1 / sizes["train"], abs=0.02)
    assert record.notes == ()
    assert from_json(DoubtsRecord, to_json(record)) == record


def test_equal_seeds_find_the_same(index: DataIndex, record: DoubtsRecord, tmp_path: Path) -> None:
    assert run(_inputs(index, tmp_path), out=tmp_path) == record


def test_the_page_shows_them_with_their_pictures(record: DoubtsRecord, tmp_path: Path) -> None:
    report = make_report()
    page = doubts(dataclasses.replace(report, doubts=record), tmp_path)
    assert page.count("<img") == len(record.labels)
    assert "suspected" in page
    assert "each fitted to other images (5 parts)" in page
    assert "no picture" in doubts(dataclasses.replace(report, doubts=record))
    none = dataclasses.replace(record, labels=())
    assert "No label is doubtful." in doubts(dataclasses.replace(report, doubts=none))
    assert doubts(report) == ""


def test_weights_that_may_have_seen_the_labels_say_nothing_of_training_images(
    index: DataIndex, tmp_path: Path
) -> None:
    found = run(_inputs(index, tmp_path, weights="none"), out=tmp_path)
    assert [one.split for one in found.splits] == ["val", "test"]
    [note] = found.notes
    assert note.endswith('which have not seen their labels, and train.weights = "none".')


def test_any_number_of_classes_are_questions_of_their_own(index: DataIndex, tmp_path: Path) -> None:
    samples = tuple(dataclasses.replace(s, label=(s.label,)) for s in index.samples)
    several = dataclasses.replace(index, samples=samples, asked=MultiLabel(labels=index.labels))
    found = run(_inputs(several, tmp_path), out=tmp_path)
    said = {(one.given, one.suspected) for one in found.labels if one.split == "train"}
    assert (f"no {index.labels[0]}", index.labels[0]) in said
    assert (index.labels[1], f"no {index.labels[1]}") in said


def test_boxes_and_heads_are_told_not_looked_at(index: DataIndex, tmp_path: Path) -> None:
    heads = MultiHead(heads={"colour": Classification(labels=index.labels)})
    for task, said in ((Detection(labels=index.labels), "of boxes"), (heads, "several heads")):
        found = run(_inputs(dataclasses.replace(index, asked=task), tmp_path), out=tmp_path)
        assert found.splits == ()
        assert said in found.notes[0]
