"""What the page and the terminal say of a backbone that learned elsewhere first."""

from __future__ import annotations

import dataclasses

import pytest

from edgetl.records.lineage import LineageStep
from edgetl.records.train import PairedComparison, PretrainRecord, StartRecord
from edgetl.report.page.pretraining import pretraining
from edgetl.report.run import RunReport
from edgetl.report.terminal import run, stages
from tests.report.conftest import epochs
from tests.report.test_html import _Page
from tests.report.test_terminal import shown

LINEAGE = (
    LineageStep(kind="weights", name="pretrained"),
    LineageStep(kind="simclr", name="photos", images=9000),
)


TRAINED = PairedComparison(
    metric="top1",
    images=400,
    before=0.81,
    after=0.86,
    interval=(0.024, 0.076),
    p_value=0.0023,
    helped=True,
)
START = StartRecord(
    judge="training",
    comparison=TRAINED,
    used=True,
    note="Pretraining helped; the one after it is kept.",
    other_seconds=75.0,
)


def learned(report: RunReport, start: StartRecord = START) -> RunReport:
    record = PretrainRecord(
        kind="simclr",
        name="photos",
        checkpoint="pretrain/backbone.safetensors",
        backbone="efficientnet_lite0",
        images=9000,
        held_out=12,
        classes=(),
        epochs=epochs("pretrain", 4, 0.6, 0.7, loss=4.0),
        probe=PairedComparison(
            metric="top1",
            images=400,
            before=0.632,
            after=0.705,
            interval=(0.021, 0.125),
            p_value=0.0123,
            helped=True,
        ),
        lineage=LINEAGE,
        seconds=421.0,
    )
    own = LineageStep(kind="train", name="flowers12", images=1152, classes=("a", "b"))
    teacher = dataclasses.replace(report.teacher, lineage=(*LINEAGE, own), start=start)
    return dataclasses.replace(report, pretrain=record, teacher=teacher)


def words(report: RunReport) -> str:
    return _Page(pretraining(report)).words


def test_nothing_is_said_where_nothing_was_learned_first(report: RunReport) -> None:
    assert pretraining(report) == ""
    assert "learned first" not in shown(run.run, report)


def test_the_page_has_curves_the_probe_and_the_chain(report: RunReport) -> None:
    said = words(learned(report))
    for part in (
        "Pretraining helped; the one after it is kept.",
        "Linear probe on validation",
        "9,000 images in photos; 12 in the validation or test split, or near-copies, were left out",
        "pretrained weights, then simclr on 9,000 images (photos), then 1,152 images of 2 classes (flowers12)",
        "Trained teacher, top-1 on validation 81.0% -> 86.0%",
        "Trained teacher, difference +2.4 points to +7.6 points (90% interval), p = 0.0023",
        "Linear probe, top-1 on validation 63.2% -> 70.5%",
        "Linear probe, difference +2.1 points to +12.5 points (90% interval), p = 0.012",
        "Judged by training from both starts",
        "The teacher begins with it yes",
        "Time of the other training",
    ):
        assert part in said, part


def test_the_page_says_that_it_was_used_in_any_case(report: RunReport) -> None:
    start = StartRecord(judge="probe", comparison=TRAINED, used=True, note="In any case.")
    said = words(learned(report, start))
    for part in ("In any case.", "Judged by nothing: used in any case", "The teacher begins with it yes"):
        assert part in said, part
    assert "Trained teacher" not in said
    assert "other training" not in said


@pytest.mark.parametrize(
    ("judge", "helped", "end"),
    [
        ("training", True, "the trained teacher's top-1 81.0% -> 86.0%, which helped"),
        (
            "training",
            False,
            "the trained teacher's top-1 81.0% -> 86.0%, which did not help, so it is not used",
        ),
        ("probe", True, "a linear probe's top-1 81.0% -> 86.0%, used in any case"),
        ("probe", False, "a linear probe's top-1 81.0% -> 86.0%, used in any case"),
    ],
)
def test_the_terminal_says_whether_it_helped(report: RunReport, judge: str, helped: bool, end: str) -> None:
    used = helped or judge == "probe"
    comparison = dataclasses.replace(TRAINED, helped=helped)
    start = StartRecord(judge=judge, comparison=comparison, used=used, note="It.")
    said = " ".join(shown(run.run, learned(report, start), width=200).split())
    assert f"simclr on 9,000 images in photos: {end} network" in said


def test_a_teachers_record_says_what_it_learned_before(report: RunReport) -> None:
    said = " ".join(shown(stages.stage, learned(report).teacher).split())
    assert "learned before pretrained weights, then simclr on 9,000 images (photos)" in said
    assert "pretraining Pretraining helped; the one after it is kept." in said
