"""The report of a detector: curves, sizes, errors by kind, the worst pictures with their boxes."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edgetl.data.boxes.entries import Marked
from edgetl.data.boxes.sources import find_boxes
from edgetl.data.boxes.truths import truth_of
from edgetl.data.index import DataIndex, Sample
from edgetl.inputs.image import upright_size
from edgetl.records.scores import Evaluation, Score, Scores
from edgetl.report.page.run import render, write_report
from edgetl.report.run import RunReport
from edgetl.report.tasks.detection import precision_recall, recall_by_side, shown_classes
from edgetl.report.terminal import run as terminal
from edgetl.tasks.all import detail_of
from edgetl.tasks.base import Detection
from edgetl.tasks.detection.detail import BoxDetail, ClassPrecision, Mistakes, SideRecall
from edgetl.tasks.detection.found import Found, Truth
from edgetl.tasks.detection.scores import evaluate
from tests.report.conftest import make_report
from tests.report.test_terminal import shown
from tests.squares import write_set


def set_of(path: Path) -> tuple[tuple[str, ...], list[Path], list[Truth]]:
    """A source's classes, pictures and truths."""
    found = find_boxes(path)
    assert found is not None
    truths = [truth_of(e.path, Marked(upright_size(e.path), e.objects), found.labels) for e in found.entries]
    return found.labels, [entry.path for entry in found.entries], truths


def middling(truths: list[Truth], classes: int, seed: int, *, noise: float = 0.08) -> list[Found]:
    """What a middling detector finds: near boxes, some twice, some of another class, some missed, some on nothing."""
    generator, answers = np.random.default_rng(seed), []
    for truth in truths:
        sides = np.sqrt(truth.sizes())
        seen = generator.random(len(sides)) < np.clip(sides / 40, 0.3, 0.95)
        again = seen & (generator.random(len(sides)) < 0.06)
        places = np.concatenate([np.flatnonzero(seen), np.flatnonzero(again)])
        boxes = truth.boxes[places] + generator.normal(0, noise, (len(places), 4)) * sides[places, None]
        labels = truth.labels[places].copy()
        other = generator.random(len(places)) < 0.06
        labels[other] = (labels[other] + 1) % classes
        low = generator.uniform(0, 80, (2, 2))
        answers.append(
            Found(
                boxes=np.concatenate([boxes, np.concatenate([low, low + 30], axis=1)]),
                labels=np.concatenate([labels, generator.integers(0, classes, 2)]),
                scores=np.concatenate(
                    [generator.uniform(0.3, 0.98, len(places)), generator.uniform(0.05, 0.6, 2)]
                ),
            )
        )
    return answers


def boxes_report(labels: tuple[str, ...], truths: list[Truth]) -> RunReport:
    """A made-up run of a detector."""

    def scored(seed: int, noise: float) -> Evaluation:
        # As the host scores: no file is named.
        bare = [dataclasses.replace(truth, file="") for truth in truths]
        found = middling(truths, len(labels), seed, noise=noise)
        return evaluate(bare, found, labels, threshold=0.4, resamples=50)

    def with_curve(record):  # type: ignore[no-untyped-def]
        epochs = tuple(
            dataclasses.replace(
                e,
                val=Scores(
                    images=e.val.images,
                    scores={
                        "map": Score(value=0.6 * e.val.scores["top1"].value),
                        "map50": Score(value=e.val.scores["macro_f1"].value),
                    },
                ),
            )
            for e in record.epochs
        )
        return dataclasses.replace(record, epochs=epochs)

    plain = make_report(labels, metric="map")
    teacher, student = scored(1, 0.05), scored(2, 0.08)
    measure = dataclasses.replace(
        plain.measure,
        variants=tuple(dataclasses.replace(v, val=student, test=student) for v in plain.measure.variants),
        teacher_val=teacher,
        teacher_test=teacher,
        floor=0.3,
    )
    assert plain.prune is not None
    return dataclasses.replace(
        plain,
        name="boxes",
        task=Detection(labels=labels, threshold=0.4),
        teacher=dataclasses.replace(with_curve(plain.teacher), val=teacher, test=teacher),
        student=dataclasses.replace(with_curve(plain.student), val=student, test=student),
        prune=dataclasses.replace(with_curve(plain.prune), metric="map"),
        measure=measure,
    )


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunReport]:
    """A run's folder with its index, and its report."""
    folder = tmp_path_factory.mktemp("run")
    labels, paths, truths = set_of(write_set(folder / "set", 16))
    samples = tuple(
        Sample(path=path, label=0, split="test", sha256="0" * 64, marked=Marked((192, 144), ()))
        for path in paths
    )
    DataIndex(folder / "set", labels, samples, asked=Detection(labels=labels)).save(
        folder / "data" / "index.json"
    )
    return folder, boxes_report(labels, truths)


def test_the_page_shows_curves_errors_and_the_worst_pictures(boxes: tuple[Path, RunReport]) -> None:
    folder, report = boxes
    json_path, html_path = write_report(report, folder)
    page = html_path.read_text(encoding="utf-8")
    HTMLParser().feed(page)
    json.loads(json_path.read_text())
    for words in ("Precision against recall", "Size of the object against recall", "wrong place and class"):
        assert words in page
    detail = detail_of(report.measure.variants[1].test or report.measure.variants[1].val)
    assert isinstance(detail, BoxDetail)
    assert len(detail.worst) == 8
    assert page.count('<image href="data:image/jpeg;base64,') == 8
    boxes_drawn = sum(len(one.boxes) for one in detail.worst)
    assert page.count('class="box k-') == boxes_drawn
    assert all(at.startswith("data:") for at in re.findall(r'(?:src|href)="([^"#][^"]*)"', page))
    assert len(page) < 400_000
    # Of the data boxes are counted; a title keeps its case.
    assert "All boxes" in page
    assert "the training boxes of the smallest" in page
    assert "mAP, validation" in page
    assert "MAP" not in page.replace("mAP", "")
    # The pictures with the most errors come first, by the names of their files.
    assert all(f"{one.image:04}.png" in page for one in detail.worst)


def test_without_its_folder_the_page_shows_boxes_on_empty_pictures(boxes: tuple[Path, RunReport]) -> None:
    page = render(boxes[1])
    assert "<image" not in page
    assert 'class="box k-' in page
    assert "image 1" in page or "image 2" in page


def test_the_terminal_shows_classes_sizes_and_errors(boxes: tuple[Path, RunReport]) -> None:
    text = shown(terminal.evaluation, boxes[1].measure.teacher_val)
    for words in (
        "class, lowest AP first",
        "size of the object",
        "Boxes that score 0.40 or more",
        "duplicate",
    ):
        assert words in text
    assert shown(terminal.run, boxes[1])


def test_a_detail_without_objects_has_no_chart() -> None:
    detail = BoxDetail(
        classes=(ClassPrecision(label="a", objects=0, ap=None, ap50=None, recall=None),),
        sizes=(),
        mistakes=Mistakes(),
        threshold=0.5,
        f1=0.0,
        asked=0.5,
    )
    assert precision_recall(detail, 500) == recall_by_side(detail, 500) == ""


def test_of_many_classes_the_worst_have_a_curve_and_sides_an_interval() -> None:
    classes = tuple(
        ClassPrecision(
            label=f"c{at}", objects=9, ap=at / 20, ap50=at / 20, recall=0.5, precision=(0.5,) * 101
        )
        for at in range(20)
    )
    detail = BoxDetail(
        classes=classes,
        sizes=(),
        mistakes=Mistakes(),
        threshold=0.5,
        f1=0.5,
        asked=0.5,
        sides=(SideRecall(side=0.0, objects=4, found=0), SideRecall(side=16.0, objects=10, found=9)),
    )
    assert [c.label for c in shown_classes(detail)] == [f"c{at}" for at in range(6)]
    assert precision_recall(detail, 500).count(' curve"') == 6
    drawn = recall_by_side(detail, 500)
    assert "16-31 pixels: 9 of 10 objects found (90.0%, 95% interval 59.6 to 98.2%)" in drawn
    assert "&lt;8" in drawn
