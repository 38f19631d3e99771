"""What the page and the terminal say of a teacher that was adapted to another camera."""

from __future__ import annotations

import dataclasses

from edgetl.records.adapt import AdaptRecord, AdaptTry
from edgetl.report.page.adaptation import adaptation
from edgetl.report.page.making import deployment, pruning, training
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
        "Notes",
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
    unweighted = tuple(dataclasses.replace(one, weighted=None) for one in tries)
    only_target = adapted(report, method="none", labelled=40, tries=unweighted)
    assert "95.0% 3.600 65.0% 0.3" in words(only_target)
    assert "3.600" in shown(stages.stage, only_target.adapt)


def test_the_scores_that_pruning_and_the_student_are_compared_with_are_the_adapted_teacher_s(
    report: RunReport,
) -> None:
    assert report.prune is not None
    changed = adapted(report, val=report.student.val)
    assert changed.followed.val == report.student.val != report.teacher.val
    assert report.followed is report.teacher
    assert "Teacher, adapted" in _Page(training(changed)).words
    assert "adapted" not in _Page(training(report)).words
    assert "adapted" not in _Page(training(adapted(report, method="none"))).words
    assert pruning(changed) != pruning(report)
    assert "of the training split and of the target" in _Page(deployment(changed)).words
    assert "and of the target" not in _Page(deployment(report)).words


def test_reasons_without_labels(report: RunReport) -> None:
    by_name = adapted(report, asked="coral", method="none").adapt
    assert by_name is not None
    assert by_name.reason == "coral made nothing of this network, so the teacher stays as it was."
    named = dataclasses.replace(by_name, asked="bn", method="bn")
    assert named.reason.startswith("bn was asked for by name")
    tried = tuple(dataclasses.replace(one, note="less accurate where labels are") for one in named.tries)
    harmful = dataclasses.replace(named, tries=tried)
    assert harmful.reason.startswith(
        "bn was asked for by name, and may do harm (less accurate where labels are);"
    )
    nothing = dataclasses.replace(
        by_name,
        asked="auto",
        labelled=40,
        tries=(by_name.tries[0], AdaptTry(method="bn", note="It has none.")),
    )
    assert nothing.reason == "No method made anything of this network, so the teacher stays as it was."
    stays = dataclasses.replace(by_name, asked="auto")
    assert "the teacher stays as it was; 93% of the resamples" in stays.reason


def test_a_camera_that_explains_the_target_decides(report: RunReport) -> None:
    camera = AdaptTry(method="camera", val=0.95, weighted=0.97, density=3.9)
    tries = (AdaptTry(method="none", val=0.95, weighted=0.9, density=3.5), camera)
    run = adapted(report, method="camera", tries=tries, explained=0.784, retaken=144)
    said = words(run)
    assert (
        "A change of the camera explains 78% of the distance between the domains, and camera did best" in said
    )
    assert (
        "on the 144 labelled validation images as that camera would take them: top-1 went from 90.0% to 97.0%"
        in said
    )
    assert "top-1, retaken" in said
    assert "Of the distance between the domains, explained by the camera 78.4%" in said
    kept = adapted(report, method="none", tries=tries, explained=0.784, retaken=144)
    assert "no method did better on the 144 labelled validation images" in words(kept)
    apart = adapted(report, explained=-0.2)
    assert "Of the distance between the domains, explained by the camera 0.0%" in words(apart)
    assert "top-1, weighted" in words(apart)
    text = shown(stages.stage, run.adapt)
    assert "top-1, retaken" in text
    assert "78.4%" in text
