"""How sure a task's answers are: one class, any number of classes, several heads with missing truths, and boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgetl.errors import ConfigError
from edgetl.records.codec import from_json, to_json
from edgetl.records.confidence import OutputConfidence
from edgetl.tasks import confidence
from edgetl.tasks.all import task_of
from edgetl.tasks.base import (
    LOGITS,
    Classification,
    Detection,
    HeadTruths,
    MultiHead,
    MultiLabel,
    Outputs,
    TaskSpec,
    Truths,
)
from edgetl.tasks.conformal import conformity
from edgetl.tasks.multilabel.scores import sigmoid
from tests.tasks.test_temperature import drawn

SPEC = Classification(labels=tuple("abcdef"))
MARKS = MultiLabel(labels=tuple("vwxyz"), thresholds=(0.3, 0.5, 0.5, 0.5, 0.7))
HEADS = MultiHead(heads={"kind": SPEC, "marks": MARKS})


def answered(spec: TaskSpec, images: int, seed: int, temperature: float = 2.0) -> tuple[Truths, Outputs]:
    """Truths, and outputs that are by the temperature too sure."""
    generator = np.random.default_rng(seed)
    match spec:
        case Classification():
            logits, truths = drawn(images, temperature, classes=len(spec.labels), seed=seed)
            return truths, {LOGITS: logits.astype(np.float32)}
        case MultiLabel():
            marks = 3 * generator.normal(size=(images, len(spec.labels)))
            there = generator.random(marks.shape) < sigmoid(marks)
            return there, {LOGITS: (marks * temperature).astype(np.float32)}
        case MultiHead():
            both = {name: answered(head, images, seed, temperature) for name, head in spec.heads.items()}
            known = {"kind": np.arange(images) % 3 > 0, "marks": np.ones(images, dtype=bool)}
            truths = {name: HeadTruths(values=own[0], known=known[name]) for name, own in both.items()}
            return truths, {name: own[1][LOGITS] for name, own in both.items()}
        case _:
            raise AssertionError(spec)


def measured(spec: TaskSpec, images: int = 600) -> tuple[OutputConfidence, ...]:
    return confidence.measure(spec, answered(spec, images, 1), answered(spec, 900, 2))


@pytest.mark.parametrize("spec", [SPEC, MARKS, HEADS], ids=lambda spec: spec.kind)
def test_a_temperature_makes_scores_hold_and_sets_cover(spec: TaskSpec) -> None:
    found = measured(spec)
    assert [one.output for one in found] == (["kind", "marks"] if spec is HEADS else [LOGITS])
    assert from_json(tuple[OutputConfidence, ...], to_json(found)) == found
    for one in found:
        assert one.temperature == pytest.approx(2.0, rel=0.15)
        assert one.images == (400 if one.output == "kind" else 600)
        assert one.split == "test"
        assert one.before is not None
        assert one.after is not None
        assert one.after.error < 0.6 * one.before.error
        assert one.after.loss < one.before.loss
        assert one.after.brier < one.before.brier
        for covered in one.coverage:
            assert covered.held.low is not None
            assert covered.images == (600 if one.output == "kind" else 900)
            # The interval is of the test split alone; the validation split has one of its own.
            assert covered.held.value == pytest.approx(covered.asked, abs=0.06)
        assert [covered.asked for covered in one.coverage] == [0.8, 0.9, 0.95]
        sizes = [covered.mean_size for covered in one.coverage]
        assert sizes == sorted(sizes)


def test_the_scores_of_an_evaluation_are_those_that_are_answered() -> None:
    [found] = measured(SPEC)
    truths, outputs = answered(SPEC, 900, 2)
    plain, own = task_of(SPEC), task_of(SPEC, confidence.temperatures((found,)))
    before, after = (task.score(truths, outputs).scores for task in (plain, own))
    assert found.before is not None
    assert found.after is not None
    assert before["calibration_error"].value == pytest.approx(found.before.error, abs=1e-6)
    assert after["calibration_error"].value == pytest.approx(found.after.error, abs=1e-6)
    assert before["top1"] == after["top1"]
    assert before["top5"] == after["top5"]


@pytest.mark.parametrize("temperature", [0.3, 3.0])
def test_no_answer_changes(temperature: float) -> None:
    for spec in (SPEC, MARKS, HEADS):
        _, outputs = answered(spec, 200, 3)
        plain, own = task_of(spec), task_of(spec, dict.fromkeys((LOGITS, "kind", "marks"), temperature))
        assert own.words(own.decide(outputs)) == plain.words(plain.decide(outputs))
        assert (own.margins(outputs) == plain.margins(outputs)).all()
        assert own.agreement(outputs, outputs) == plain.agreement(outputs, outputs)
        for before, after in zip(plain.predict(outputs), own.predict(outputs), strict=True):
            if spec is SPEC:
                assert after.label == before.label
                assert (after.score <= before.score) == (temperature > 1 or after.score == before.score)
            elif spec is MARKS:
                assert {tag.label for tag in after.tags} == {tag.label for tag in before.tags}
            else:
                assert after.heads["kind"].label == before.heads["kind"].label
                assert (
                    after.heads["marks"].tags != before.heads["marks"].tags or not before.heads["marks"].tags
                )


def test_a_prediction_gets_its_set() -> None:
    _, outputs = answered(HEADS, 1, 3)
    task = task_of(HEADS, {"kind": 2.0, "marks": 2.0})
    [found] = task.predict(outputs)
    sets = confidence.with_sets(task, outputs, found, {"kind": 0.0, "marks": 0.4})
    assert found.heads["kind"].possible is None
    kind, marks = sets.heads["kind"], sets.heads["marks"]
    assert {one.label for one in kind.possible} == set(SPEC.labels)
    assert kind.possible[0] == kind.top[0]
    assert [one.score for one in kind.possible] == sorted((one.score for one in kind.possible), reverse=True)
    assert all(one.score >= 0.4 for one in marks.possible)
    assert kind.text.endswith(f"; one of {', '.join(one.label for one in kind.possible[:4])}, 2 more")
    assert marks.text.count("; within ") == 1
    alone = confidence.with_sets(task, outputs, found, {"kind": 1.0, "marks": 1.1}).heads
    assert [one.label for one in alone["kind"].possible] == [kind.label]
    assert "one of" not in alone["kind"].text
    assert alone["marks"].possible == ()
    assert alone["marks"].text.endswith("within none")
    assert "possible" in to_json(kind)
    assert "possible" not in to_json(found.heads["kind"])


def test_a_head_without_truths_has_neither_temperature_nor_sets() -> None:
    truths, outputs = answered(HEADS, 50, 1)
    none = {**truths, "kind": replace(truths["kind"], known=np.zeros(50, dtype=bool))}
    kind, marks = confidence.measure(HEADS, (none, outputs), (none, outputs))
    assert (kind.temperature, kind.images, kind.before, kind.after) == (1.0, 0, None, None)
    assert kind.note.startswith("scores are as the network gives them: 0 images of the validation split")
    assert kind.coverage == kind.conformity == ()
    assert marks.images == 50
    needed = confidence.least({"marks": conformity(np.ones(50))}, 0.9, "b.edgetl") | {"kind": 1.0}
    assert [one.output for one in confidence.coverages(task_of(HEADS), none, outputs, 0.9, needed)] == [
        "marks"
    ]
    with pytest.raises(
        ConfigError, match=r"^coverage: 0\.9 needs 9 .*, and kind of b\.edgetl was made with 0"
    ):
        confidence.least({"kind": conformity(np.zeros(0))}, 0.9, "b.edgetl")


def test_without_a_test_split_figures_are_of_the_validation_split() -> None:
    [found] = confidence.measure(SPEC, answered(SPEC, 100, 1), None)
    assert found.split == "val"
    assert found.coverage == ()
    assert found.after is not None
    few = confidence.measure(SPEC, answered(SPEC, 8, 1), answered(SPEC, 100, 2))[0]
    assert [one.asked for one in few.coverage] == [0.8], "nine images would be needed for 0.9"


def test_boxes_have_no_temperature_and_no_sets() -> None:
    boxes = Detection(labels=("a",))
    assert confidence.measure(boxes, ((), {}), None) == ()
    with pytest.raises(
        ConfigError,
        match=r"^coverage: sets of labels are for classes, and the bundle is of the task detection; leave coverage out",
    ):
        confidence.check(boxes, 0.9)
