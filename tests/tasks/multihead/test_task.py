from __future__ import annotations

import json

import numpy as np
import pytest

from edgetl.errors import TensorError
from edgetl.records.codec import from_json, to_json
from edgetl.records.gate import Verdict
from edgetl.records.scores import Evaluation, value
from edgetl.tasks.all import detail_of, task_of
from edgetl.tasks.base import Classification, MultiHead, MultiLabel, ScoreLimits

SPEC = MultiHead(
    heads={
        "species": Classification(labels=("rose", "lily", "tulip")),
        "marks": MultiLabel(labels=("dry", "cut")),
    }
)
TASK = task_of(SPEC)


def _case(images: int = 900, seed: int = 0, lift: float = 4.0) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Truths as labelled sets hold them: every fifth image has no species, every seventh no marks."""
    generator = np.random.default_rng(seed)
    species = generator.integers(0, 3, images)
    marks = generator.random((images, 2)) < 0.4
    truths = [
        {
            **({} if at % 5 == 0 else {"species": int(species[at])}),
            **({} if at % 7 == 0 else {"marks": np.flatnonzero(marks[at]).tolist()}),
        }
        for at in range(images)
    ]
    first = generator.normal(size=(images, 3)) + lift * np.eye(3)[species]
    second = generator.normal(-lift / 2, 1.0, marks.shape) + lift * marks
    return truths, {"species": first.astype(np.float32), "marks": second.astype(np.float32)}


def test_each_head_is_scored_on_the_images_that_have_its_truth() -> None:
    plain, outputs = _case()
    truths = TASK.read(plain)
    found = TASK.score(truths, outputs)
    assert set(found.scores) == {metric.name for metric in TASK.metrics}
    assert list(found.scores)[:3] == ["mean", "species/top1", "marks/map"]
    for name in SPEC.heads:
        known, own = truths[name].known, task_of(SPEC.heads[name])
        alone = own.score(truths[name].values[known], {"logits": outputs[name][known]})
        assert detail_of(found).heads[name] == alone
        for metric in own.metrics:
            assert value(found, f"{name}/{metric.name}") == value(alone, metric.name)
    assert value(found, "mean") == pytest.approx(
        (value(found, "species/top1") + value(found, "marks/map")) / 2
    )
    again = from_json(Evaluation, json.loads(json.dumps(to_json(found))))
    assert detail_of(again) == detail_of(found)


def test_a_head_of_which_nothing_is_known_leaves_the_mean_to_the_others() -> None:
    plain, outputs = _case(40)
    truths = TASK.read([{k: v for k, v in row.items() if k == "species"} for row in plain])
    found = TASK.score(truths, outputs)
    assert value(found, "mean") == value(found, "species/top1")
    names = {
        check.name.split()[0]
        for check in TASK.judge(truths, TASK.decide(outputs), TASK.decide(outputs), ScoreLimits())
    }
    assert names == {"species"}


def test_the_gate_names_the_head_that_got_worse() -> None:
    plain, outputs = _case()
    truths, before = TASK.read(plain), TASK.decide(outputs)
    for check in TASK.judge(truths, before, before, ScoreLimits()):
        assert check.verdict is Verdict.PASS, check.sentence
    worse = {**outputs, "marks": outputs["marks"] - np.float32([0, 9])}
    checks = {c.name: c for c in TASK.judge(truths, before, TASK.decide(worse), ScoreLimits())}
    failed = {name for name, check in checks.items() if check.verdict is Verdict.FAIL}
    assert failed == {"marks macro-F1", "marks recall"}
    assert checks["marks recall"].sentence.startswith("marks: Recall went down")
    assert set(checks) == {
        "species accuracy",
        "species macro-F1",
        "species recall",
        "marks macro-F1",
        "marks recall",
        "marks false alarms",
    }


def test_figures_alone_are_judged_head_by_head() -> None:
    plain, outputs = _case()
    scores = TASK.score(TASK.read(plain), outputs).summary()
    assert [c.name for c in TASK.judge_scores(scores, scores, ScoreLimits())] == [
        "species accuracy",
        "marks macro-F1",
    ]


def test_outputs_are_named_after_their_heads() -> None:
    assert [(spec.name, str(spec)) for spec in TASK.outputs] == [
        ("species", "(N, 3) float32"),
        ("marks", "(N, 2) float32"),
    ]
    _, outputs = _case(3)
    with pytest.raises(TensorError, match="marks: is missing; the outputs are species"):
        TASK.decide({"species": outputs["species"]})


def test_predictions_answer_every_head() -> None:
    outputs = {"species": np.array([[0, 9, 0]], np.float32), "marks": np.array([[-9, 9]], np.float32)}
    [found] = TASK.predict(outputs)
    assert found.heads["species"].label == "lily"
    assert [tag.label for tag in found.heads["marks"].tags] == ["cut"]
    assert found.text == f"species: lily {found.heads['species'].score:.1%}; marks: cut 100.0%"
    assert TASK.words(TASK.decide(outputs)) == ["species: lily; marks: cut"]


def test_truths_travel_with_their_gaps_and_right_asks_only_what_is_known() -> None:
    plain, outputs = _case(40)
    truths = TASK.read(plain)
    assert TASK.plain(truths) == plain
    answers = TASK.decide(outputs)
    right = TASK.right(truths, answers)
    assert right[0]  # Nothing is known of the first image.
    species_right = (answers["species"].values == truths["species"].values) | ~truths["species"].known
    assert not right[~species_right].any()
    for wrong in ([{"colour": 1}], [3], [{"species": 3}], [{"marks": [5]}]):
        with pytest.raises(ValueError, match="it holds"):
            TASK.read(wrong)


def test_agreement_names_the_head_that_differs() -> None:
    _, outputs = _case(6)
    found = TASK.agreement(outputs, {**outputs, "marks": outputs["marks"] + np.float32(0.5)})
    assert (found.output, found.images) == ("marks", 6)
    assert found.difference == pytest.approx(0.5, abs=1e-5)
