from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from edgetl.errors import TensorError
from edgetl.records.codec import from_json, to_json
from edgetl.records.gate import Verdict
from edgetl.records.scores import Evaluation, value
from edgetl.tasks.all import detail_of, task_of
from edgetl.tasks.base import MultiLabel, ScoreLimits
from edgetl.tasks.multilabel.scores import Ranks, sigmoid

LABELS = ("dirty", "broken", "wet", "odd")
SPEC = MultiLabel(labels=LABELS, thresholds=(0.5, 0.3, 0.5, 0.5))
TASK = task_of(SPEC)


def _case(images: int = 400, seed: int = 0, lift: float = 2.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    truths = generator.random((images, len(LABELS))) < (0.5, 0.2, 0.1, 0.3)
    logits = generator.normal(-1.0, 1.0, truths.shape) + lift * truths
    return truths, {"logits": np.round(logits, 1).astype(np.float32)}


def test_scores_agree_with_scikit_learn_ties_included() -> None:
    truths, outputs = _case()
    found = TASK.score(truths, outputs)
    answers = TASK.decide(outputs)
    areas = [reference.average_precision_score(truths[:, c], outputs["logits"][:, c]) for c in range(4)]
    assert value(found, "map") == pytest.approx(np.mean(areas))
    assert value(found, "macro_f1") == pytest.approx(reference.f1_score(truths, answers, average="macro"))
    assert value(found, "exact") == pytest.approx(reference.accuracy_score(truths, answers))
    assert list(found.scores) == [metric.name for metric in TASK.metrics]
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        truths, answers, zero_division=0
    )
    classes = detail_of(found).classes
    assert [c.precision.value for c in classes] == pytest.approx(precision.tolist())
    assert [c.recall.value for c in classes] == pytest.approx(recall.tolist())
    assert [c.f1 for c in classes] == pytest.approx(f1.tolist())
    assert [c.support for c in classes] == support.tolist()
    assert [c.average_precision for c in classes] == pytest.approx(areas)
    for score in (*found.scores.values(), *(c.recall for c in classes), *(c.precision for c in classes)):
        assert score.interval is not None
        assert score.interval[0] <= score.value <= score.interval[1]
    again = from_json(Evaluation, json.loads(json.dumps(to_json(found))))
    assert (again, detail_of(again)) == (found, detail_of(found))


def test_weights_count_images() -> None:
    truths, outputs = _case(60)
    weights = np.random.default_rng(3).integers(0, 4, 60)
    rows = np.repeat(np.arange(60), weights)
    drawn = Ranks(truths[rows], outputs["logits"][rows]).average_precision()
    counted = Ranks(truths, outputs["logits"]).average_precision(weights.astype(float))
    assert counted == pytest.approx(drawn)


def test_a_class_without_images_does_not_pull_the_means_down() -> None:
    truths = np.array([[True, False], [False, False]])
    task = task_of(MultiLabel(labels=("a", "b")))
    found = task.score(truths, {"logits": np.array([[3.0, -3.0], [-3.0, -3.0]], np.float32)})
    assert (value(found, "map"), value(found, "macro_f1"), value(found, "exact")) == (1.0, 1.0, 1.0)
    empty = task.score(truths[:0], {"logits": np.zeros((0, 2), np.float32)})
    assert (empty.images, value(empty, "map"), value(empty, "exact")) == (0, 0.0, 0.0)


def test_thresholds_of_the_description_decide() -> None:
    outputs = {
        "logits": np.log(np.array([[0.49, 0.31, 0.6, 0.01], [0.2, 0.2, 0.2, 0.2]]) / 1.0).astype(np.float32)
    }
    chances = np.array([[0.49, 0.31, 0.6, 0.01], [0.2, 0.2, 0.2, 0.2]])
    outputs = {"logits": np.log(chances / (1 - chances)).astype(np.float32)}
    assert TASK.decide(outputs).tolist() == [[False, True, True, False], [False] * 4]
    some, none = TASK.predict(outputs, top_k=2)
    assert [tag.label for tag in some.tags] == ["wet", "broken"]
    assert [tag.label for tag in some.top] == ["wet", "dirty"]
    assert (some.text, none.text) == ("wet 60.0%, broken 31.0%", "none")
    assert TASK.words(TASK.decide(outputs)) == ["broken, wet", "none"]
    assert TASK.margins(outputs)[0] == pytest.approx(abs(np.log(0.49 / 0.51)), abs=1e-5)


def test_answers_travel_as_positions_and_others_are_refused() -> None:
    truths, _ = _case(20)
    assert np.array_equal(TASK.read(TASK.plain(truths)), truths)
    for wrong in ([[4]], [3], [["dirty"]], [None], [[True]]):
        with pytest.raises(ValueError, match="expected positions among its 4 labels"):
            TASK.read(wrong)


def test_wrong_arrays_are_named() -> None:
    truths, outputs = _case(5)
    with pytest.raises(TensorError, match=r"truths \(5, 4\) int64 and logits"):
        TASK.score(truths.astype(int), outputs)
    with pytest.raises(TensorError, match="1 of 5 rows hold NaN"):
        TASK.score(truths, {"logits": np.where(np.arange(20).reshape(5, 4) == 3, np.nan, outputs["logits"])})


def test_sigmoid_is_stable() -> None:
    with np.errstate(over="raise"):
        assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


def test_an_equal_candidate_passes_and_one_that_lost_a_class_fails_naming_it() -> None:
    truths, outputs = _case(1500, lift=4.0)
    before = TASK.decide(outputs)
    limits = ScoreLimits()
    for check in TASK.judge(truths, before, before, limits):
        assert check.verdict is Verdict.PASS, check.sentence
    after = before.copy()
    after[:, 1] = False
    checks = {check.name: check for check in TASK.judge(truths, before, after, limits)}
    assert checks["recall"].verdict is Verdict.FAIL
    assert "broken from" in checks["recall"].sentence
    assert checks["macro-F1"].verdict is Verdict.FAIL
    assert checks["false alarms"].verdict is Verdict.PASS


def test_false_alarms_in_one_class_fail_naming_it() -> None:
    truths, outputs = _case(1500, lift=4.0)
    before = TASK.decide(outputs)
    after = before.copy()
    after[::3, 2] = True
    checks = {check.name: check for check in TASK.judge(truths, before, after, ScoreLimits())}
    assert checks["false alarms"].verdict is Verdict.FAIL
    assert "wet from" in checks["false alarms"].sentence
    assert checks["recall"].verdict is Verdict.PASS


def test_few_images_cannot_tell() -> None:
    truths, outputs = _case(40)
    before, after = TASK.decide(outputs), TASK.decide(_case(40, seed=0, lift=1.7)[1])
    verdict = TASK.judge(truths, before, after, ScoreLimits(max_drop=0.01))[0].verdict
    assert verdict is Verdict.UNSURE


def test_figures_alone_are_judged_by_their_intervals() -> None:
    truths, outputs = _case(2000, lift=4.0)
    good, bad = TASK.score(truths, outputs), TASK.score(truths, _case(2000, lift=1.0)[1])
    [equal] = TASK.judge_scores(good, good, ScoreLimits(max_drop=0.05))
    [worse] = TASK.judge_scores(good, bad, ScoreLimits(max_drop=0.05))
    assert (equal.verdict, worse.verdict) == (Verdict.PASS, Verdict.FAIL)


def test_judging_nothing_is_refused() -> None:
    nothing = np.zeros((0, 4), bool)
    with pytest.raises(TensorError, match="of one image or more"):
        TASK.judge(nothing, nothing, nothing, ScoreLimits())
