"""What the page and the terminal say of a backbone that learned elsewhere first."""

from __future__ import annotations

import dataclasses

import pytest

from edgetl.records.train import Lesson, PretrainRecord, ProbeComparison
from edgetl.report.page.pretraining import pretraining
from edgetl.report.run import RunReport
from edgetl.report.terminal import run, stages
from tests.report.conftest import epochs
from tests.report.test_html import _Page
from tests.report.test_terminal import shown

LESSONS = (
    Lesson(kind="weights", name="pretrained"),
    Lesson(kind="simclr", name="photos", images=9000),
)


def learned(report: RunReport, **changes: object) -> RunReport:
    record = PretrainRecord(
        kind="simclr",
        name="photos",
        checkpoint="pretrain/backbone.safetensors",
        backbone="efficientnet_lite0",
        images=9000,
        held_out=12,
        classes=(),
        epochs=epochs("pretrain", 4, 0.6, 0.7, loss=4.0),
        probe=ProbeComparison(
            metric="top1",
            images=400,
            before=0.632,
            after=0.705,
            interval=(0.021, 0.125),
            p_value=0.0123,
            helped=True,
        ),
        used=True,
        note="Pretraining helped; training begins with it.",
        lessons=LESSONS,
        seconds=421.0,
    )
    own = Lesson(kind="train", name="flowers12", images=1152, classes=("a", "b"))
    teacher = dataclasses.replace(report.teacher, lessons=(*LESSONS, own))
    return dataclasses.replace(report, pretrain=dataclasses.replace(record, **changes), teacher=teacher)


def words(report: RunReport) -> str:
    return _Page(pretraining(report)).words


def test_nothing_is_said_where_nothing_was_learned_first(report: RunReport) -> None:
    assert pretraining(report) == ""
    assert "learned first" not in shown(run.run, report)


def test_the_page_has_curves_the_probe_and_the_chain(report: RunReport) -> None:
    said = words(learned(report))
    for part in (
        "Pretraining helped; training begins with it.",
        "Linear probe on validation",
        "9,000 images in photos; 12 in the validation or test split, or near-copies, were left out",
        "pretrained weights, then simclr on 9,000 images (photos), then 1,152 images of 2 classes (flowers12)",
        "Probe, top-1 before 63.2%",
        "Probe, top-1 after 70.5%",
        "+2.1 points to +12.5 points",
        "p, that it is no better 0.012",
    ):
        assert part in said, part


@pytest.mark.parametrize(("helped", "used"), [(True, True), (False, False), (False, True)])
def test_the_terminal_says_whether_it_helped(report: RunReport, helped: bool, used: bool) -> None:
    probe = dataclasses.replace(learned(report).pretrain.probe, helped=helped)
    said = " ".join(shown(run.run, learned(report, probe=probe, used=used), width=200).split())
    ending = "which helped" if helped else "which did not help" + ("" if used else ", so it is not used")
    assert (
        f"simclr on 9,000 images in photos: a linear probe's top-1 63.2% -> 70.5%, {ending} network" in said
    )


def test_a_teachers_record_says_what_it_learned_before(report: RunReport) -> None:
    said = " ".join(shown(stages.stage, learned(report).teacher).split())
    assert "learned before pretrained weights, then simclr on 9,000 images (photos)" in said
