from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from edgetl.errors import TensorError
from edgetl.records.codec import to_json
from edgetl.records.scores import Evaluation, score, value
from edgetl.tasks.all import detail_of
from edgetl.tasks.classification import answers
from edgetl.tasks.classification import scores as metrics
from edgetl.tasks.relations import Tree

NAMES = ("ant", "bee", "cat")


def _random(images: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, images)
    scores = generator.normal(size=(images, classes)).astype(np.float32)
    scores[np.arange(images), labels] += 1.0
    return labels, scores


def _dense(result: Evaluation) -> np.ndarray:
    matrix = np.zeros((len(detail_of(result).classes), len(detail_of(result).classes)), dtype=np.int64)
    for row, column, images in detail_of(result).cells:
        matrix[row, column] = images
    return matrix


def test_evaluate_on_a_case_worked_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    scores = np.eye(3)[[0, 0, 1, 1, 1, 0]]
    result = metrics.evaluate(labels, scores, NAMES)
    assert result.images == 6
    assert value(result, "top1") == pytest.approx(4 / 6)
    assert detail_of(result).cells == ((0, 0, 2), (0, 1, 1), (1, 1, 2), (2, 0, 1))
    ant, bee, cat = detail_of(result).classes
    assert (ant.label, ant.support, ant.precision, ant.recall) == (
        "ant",
        3,
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
    )
    assert (bee.precision, bee.recall, bee.f1) == (pytest.approx(2 / 3), 1.0, pytest.approx(0.8))
    assert (cat.precision, cat.recall, cat.f1) == (0.0, 0.0, 0.0)
    assert value(result, "macro_f1") == pytest.approx((2 / 3 + 0.8) / 3)
    assert value(result, "balanced_accuracy") == pytest.approx((2 / 3 + 1 + 0) / 3)


@pytest.mark.parametrize(("images", "classes", "seed"), [(50, 3, 0), (400, 12, 1), (7, 5, 2)])
def test_evaluate_agrees_with_scikit_learn(images: int, classes: int, seed: int) -> None:
    labels, scores = _random(images, classes, seed)
    names = [f"c{i}" for i in range(classes)]
    result = metrics.evaluate(labels, scores, names)
    predicted = scores.argmax(axis=1)
    present = sorted(set(labels.tolist()))
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    assert value(result, "top1") == pytest.approx(reference.accuracy_score(labels, predicted))
    assert value(result, "balanced_accuracy") == pytest.approx(np.mean(recall[present]))
    assert value(result, "macro_f1") == pytest.approx(
        reference.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    )
    assert [c.precision for c in detail_of(result).classes] == pytest.approx(precision.tolist())
    assert [c.recall for c in detail_of(result).classes] == pytest.approx(recall.tolist())
    assert [c.f1 for c in detail_of(result).classes] == pytest.approx(f1.tolist())
    assert [c.support for c in detail_of(result).classes] == support.tolist()
    matrix = reference.confusion_matrix(labels, predicted, labels=range(classes))
    assert np.array_equal(_dense(result), matrix)


def test_a_class_without_images_does_not_pull_the_means_down() -> None:
    result = metrics.evaluate(np.array([0, 1]), np.eye(3)[[0, 1]], NAMES)
    assert value(result, "macro_f1") == value(result, "balanced_accuracy") == 1.0
    assert detail_of(result).classes[2].support == 0


def test_no_images_is_a_zero_evaluation_with_an_open_interval() -> None:
    result = metrics.evaluate(np.zeros(0, dtype=np.int64), np.zeros((0, 3)), NAMES)
    assert (
        result.images,
        value(result, "top1"),
        value(result, "macro_f1"),
        score(result, "top1").interval,
    ) == (0, 0.0, 0.0, (0.0, 1.0))


def test_softmax_is_stable_and_sums_to_one() -> None:
    rows = answers.softmax(np.array([[1e4, 0.0, -1e4], [1.0, 1.0, 1.0], [-1e30, 0.0, 0.0]], dtype=np.float32))
    assert rows.dtype == np.float32
    assert rows.sum(axis=1) == pytest.approx([1, 1, 1])
    assert rows[0].tolist() == [1.0, 0.0, 0.0]
    assert rows[2] == pytest.approx([0.0, 0.5, 0.5])
    assert answers.softmax(np.array([0.0, np.log(3.0)])) == pytest.approx([0.25, 0.75])


def test_topk_orders_best_first_and_ties_by_index() -> None:
    scores = np.array([[0.1, 0.9, 0.9, 0.3]])
    assert answers.topk(scores, 3).tolist() == [[1, 2, 3]]
    assert answers.topk(scores, 9).shape == (1, 4)


def test_topk_accuracy_agrees_with_scikit_learn() -> None:
    labels, scores = _random(200, 6, 3)
    for k in (1, 2, 5):
        expected = reference.top_k_accuracy_score(labels, scores, k=k, labels=range(6))
        assert metrics.topk_accuracy(labels, scores, k) == pytest.approx(expected)


def test_calibration_error() -> None:
    sure = np.log(np.array([[0.8, 0.2]] * 10))
    right_eight_times = np.array([0] * 8 + [1] * 2)
    assert metrics.calibration_error(right_eight_times, sure) == pytest.approx(0.0, abs=1e-6)
    assert metrics.calibration_error(np.zeros(10, dtype=int), sure) == pytest.approx(0.2, abs=1e-6)
    assert metrics.calibration_error(np.ones(10, dtype=int), np.array([[100.0, 0.0]] * 10)) == pytest.approx(
        1.0
    )
    assert metrics.calibration_error(np.zeros(0, dtype=int), np.zeros((0, 2))) == 0.0


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (
            np.array([0, 1]),
            np.zeros((3, 3)),
            r"labels \(2,\) and scores \(3, 3\): expected \(N,\) and \(N, C\)",
        ),
        (np.array([0, 3]), np.zeros((2, 3)), r"labels: values 0..3 came, expected 0..2"),
        (np.array([0.0, 1.0]), np.zeros((2, 3)), r"labels: float64 came, expected integers"),
        (np.array([0, 1]), np.array([[np.nan, 0, 0], [0, 0, 1]]), r"scores: 1 of 2 rows hold NaN"),
        (np.array([0, 1]), np.zeros((2, 4)), r"scores: 4 columns came for 3 class names"),
    ],
)
def test_wrong_arrays_are_named(labels: np.ndarray, scores: np.ndarray, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        metrics.evaluate(labels, scores, NAMES)


def test_predictions_out_of_range_are_named() -> None:
    with pytest.raises(TensorError, match=r"predictions: values 0..5 came, expected 0..2"):
        metrics.evaluate_predictions(np.array([0, 1]), np.array([0, 5]), NAMES)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_evaluation_is_consistent_with_its_confusion(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    result = metrics.evaluate_predictions(labels, predicted, NAMES)
    matrix = _dense(result)
    assert matrix.sum() == result.images == len(pairs)
    assert value(result, "top1") == pytest.approx(np.trace(matrix) / len(pairs))
    assert score(result, "top1").interval[0] <= value(result, "top1") <= score(result, "top1").interval[1]


def test_what_an_evaluation_holds_grows_with_classes_and_images_not_with_their_square() -> None:
    def held(classes: int, images: int) -> int:
        generator = np.random.default_rng(classes)
        labels, predicted = generator.integers(0, classes, (2, images))
        result = metrics.evaluate_predictions(labels, predicted, [f"class {i}" for i in range(classes)])
        return len(json.dumps(to_json(result)))

    few, many = held(100, 400), held(1000, 4000)
    assert many < 11 * few


def test_metrics_needs_numpy_alone() -> None:
    code = (
        "import sys, edgetl.tasks.classification.scores\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'onnxruntime', 'pydantic', 'rich', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_evaluate_tells_top5_calibration_and_intervals() -> None:
    labels, scores = _random(300, 8, 1)
    result = metrics.evaluate(labels, scores, [str(i) for i in range(8)])
    assert value(result, "top5") == metrics.topk_accuracy(labels, scores, 5)
    assert value(result, "calibration_error") == metrics.calibration_error(labels, scores)
    assert score(result, "macro_f1").interval is not None
    low, high = score(result, "macro_f1").interval
    assert low < value(result, "macro_f1") < high
    assert 0.05 < high - low < 0.2
    again = metrics.evaluate(labels, scores, [str(i) for i in range(8)])
    assert again == result
    few = metrics.evaluate(*_random(20, 5, 0), [str(i) for i in range(5)], resamples=0)
    assert (
        few.scores.get("top5"),
        score(few, "macro_f1").interval,
        score(few, "balanced_accuracy").interval,
    ) == (None, None, None)
    empty = metrics.evaluate(np.zeros(0, int), np.zeros((0, 3)), NAMES)
    assert (empty.scores.get("calibration_error"), score(empty, "macro_f1").interval) == (None, None)


def test_intervals_from_the_matrix_are_those_of_resampled_images() -> None:
    labels, scores = _random(200, 4, 3)
    predictions = scores.argmax(axis=1)

    def balanced(rows: np.ndarray) -> float:
        return float(reference.balanced_accuracy_score(labels[rows], predictions[rows]))

    generator = np.random.default_rng(0)
    drawn = [balanced(generator.integers(0, 200, 200)) for _ in range(600)]
    direct = tuple(np.quantile(drawn, [0.025, 0.975]))
    _, quick = metrics.confusion_intervals(metrics.confusion(labels, predictions, 4), 4, resamples=4000)
    assert quick == pytest.approx(direct, abs=0.015)


def test_the_intervals_cover_as_often_as_they_say() -> None:
    generator, covered = np.random.default_rng(0), 0
    truth = np.array([[0.27, 0.03], [0.14, 0.56]])
    balanced = (0.9 + 0.8) / 2
    for _ in range(200):
        drawn = generator.multinomial(250, truth.ravel())
        cells = np.column_stack([[0, 0, 1, 1], [0, 1, 0, 1], drawn])
        low, high = metrics.confusion_intervals(cells, 2, resamples=200)[1]
        covered += low <= balanced <= high
    assert 0.9 <= covered / 200 <= 0.99


def test_top_k_accuracy_breaks_ties_as_top_k_does() -> None:
    generator = np.random.default_rng(5)
    labels, scores = generator.integers(0, 7, 200), generator.integers(0, 4, (200, 7)).astype(np.float32)
    for k in (1, 3, 5, 9):
        expected = (answers.topk(scores, k) == labels[:, None]).any(axis=1).mean()
        assert metrics.topk_accuracy(labels, scores, k) == pytest.approx(expected)


MAMMALS = Tree(parents={"ant": "insect", "bee": "insect", "cat": "mammal"})


def test_mistakes_are_weighed_by_how_far_off_they_are() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    answered = np.eye(3)[[0, 1, 1, 1, 2, 2]]  # Two near mistakes, half the height each, and one far.
    found = metrics.evaluate(labels, answered, NAMES, relation=MAMMALS)
    severity, apart = score(found, "severity"), score(found, "label_distance")
    assert severity.value == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert apart.value == pytest.approx((0.5 + 0.5 + 1) / 6)
    for one in (severity, apart):
        assert one.low is not None
        assert one.high is not None
        assert one.low < one.value < one.high
    plain = metrics.evaluate(labels, answered, NAMES)
    assert plain.scores == {
        name: one for name, one in found.scores.items() if name not in ("severity", "label_distance")
    }, "the other figures are those without a tree"
    few = metrics.evaluate(labels, answered, NAMES, relation=MAMMALS, resamples=0)
    assert few.scores["severity"].interval is None


def test_without_mistakes_there_is_no_severity() -> None:
    labels = np.array([0, 1, 2])
    found = metrics.evaluate(labels, np.eye(3), NAMES, relation=MAMMALS)
    assert "severity" not in found.scores
    assert value(found, "label_distance") == 0.0


def test_the_interval_of_severity_covers_the_truth() -> None:
    generator, covered = np.random.default_rng(0), 0
    apart = np.array([[0, 0.5, 1], [0.5, 0, 1], [1, 1, 0]])
    shares = np.array([0.6, 0.12, 0.08, 0.2])
    places = np.array([[0, 0], [0, 1], [0, 2], [2, 2]])
    truth = (0.12 * 0.5 + 0.08) / 0.2
    for _ in range(60):
        counts = generator.multinomial(300, shares)
        cells = np.column_stack([places, counts])[counts > 0]
        severity = metrics.distance_scores(cells, apart, resamples=200)["severity"]
        assert severity.low is not None
        assert severity.high is not None
        covered += severity.low <= truth <= severity.high
    assert 52 <= covered <= 60
