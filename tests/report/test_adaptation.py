"""What the page and the terminal say of a teacher that was adapted to another camera."""

from __future__ import annotations

import dataclasses

from edgetl.records.adapt import AdaptRecord, AdaptTry
from edgetl.report.page.adaptation import adaptation
from edgetl.report.run import RunReport
from edgetl.report.terminal import stages
from tests.report.test_html import _Page
from tests.report.test_terminal import shown


def adapted(report: RunReport, **changes: object) -> RunReport:
    record = AdaptRecord(
        checkpoint="adapt/adapted.safetensors",
        method="self_training",
        asked="auto",
        metric="top1",
        images=200,
        held_out=3,
        transductive=False,
        labelled=0,
        sure=0.93,
        tries=(
            AdaptTry(method="none", val=0.95, weighted=0.9, density=3.5),
            AdaptTry(
                method="bn",
                val=0.4,
                weighted=0.3,
                density=4.1,
                note="ruled out: less accurate where labels are",
            ),
            AdaptTry(method="coral", note="This network has none."),
            AdaptTry(method="self_training", val=0.94, weighted=0.91, density=3.9, seconds=12.0),
        ),
        epochs=(),
        val=report.teacher.val,
        test=report.teacher.test,
        seconds=40.0,
    )
    return dataclasses.replace(report, adapt=dataclasses.replace(record, **changes))


def words(report: RunReport) -> str:
    return _Page(adaptation(report)).words


def test_nothing_is_said_where_nothing_was_adapted(report: RunReport) -> None:
    assert adaptation(report) == ""


def test_the_choice_its_figures_and_what_was_not_taken(report: RunReport) -> None:
    said = words(adapted(report))
    assert (
        "self_training: the target's answers lie more densely around one another (3.500 to 3.900 nats)"
        in said
    )
    assert "93% of the resamples choose it too" in said
    assert "bn: ruled out: less accurate where labels are" in said
    assert "coral: This network has none." in said
    assert "200; 3 in the validation or test split, or near-copies, were left out" in said
    assert "labelled target" not in said
    record = adapted(report).adapt
    text = shown(stages.stage, record)
    for part in (
        "self_training",
        "3.900",
        "Not taken",
        "ruled out: less accurate",
        "adapt/adapted.safetensors",
    ):
        assert part in text


def test_labels_of_the_target_decide_where_there_are_some(report: RunReport) -> None:
    tries = (
        AdaptTry(method="none", val=0.95, weighted=0.9, density=3.5, target=0.6),
        AdaptTry(method="coral", val=0.95, weighted=0.9, density=3.6, target=0.65, p_value=0.3),
    )
    kept = adapted(report, method="none", labelled=40, tries=tries)
    expected = (
        "coral did not help: top-1 on 40 labelled validation images of the target went from 60.0% to 65.0% (p = 0.3),"
        " so the teacher stays as it was."
    )
    assert expected in words(kept)
    assert "top-1, labelled target" in words(kept)
    assert "65.0%" in shown(stages.stage, kept.adapt)


def test_reasons_without_labels(report: RunReport) -> None:
    by_name = adapted(report, asked="coral", method="none").adapt
    assert by_name is not None
    assert by_name.reason == "coral made nothing of this network, so the teacher stays as it was."
    named = dataclasses.replace(by_name, asked="bn", method="bn")
    assert named.reason.startswith("bn was asked for by name")
    stays = dataclasses.replace(by_name, asked="auto")
    assert "the teacher stays as it was; 93% of the resamples" in stays.reason
