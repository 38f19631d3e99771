import dataclasses
import json

import pytest

from edgetl import files
from edgetl.records.codec import from_json, to_json
from edgetl.records.scores import value
from edgetl.report.page.run import write_report
from edgetl.report.run import RunReport, headline, remarks, shipped_variant
from edgetl.report.tasks.confusion import class_order, confused_pairs
from edgetl.tasks.all import detail_of
from edgetl.tasks.classification.scores import evaluate_predictions
from tests.report.conftest import evaluation, make_report


def test_report_survives_json(report):
    assert from_json(RunReport, json.loads(json.dumps(to_json(report)))) == report


def test_report_without_pruning_and_quantization_survives_json(report):
    plain = dataclasses.replace(report, prune=None, quantize=None)
    assert from_json(RunReport, json.loads(json.dumps(to_json(plain)))) == plain


def test_write_report_leaves_two_files_and_no_others(report, tmp_path):
    json_path, html_path = write_report(report, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert files.read_json(json_path, RunReport) == report
    assert html_path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_report_that_cannot_be_drawn_writes_nothing(report, tmp_path):
    broken = dataclasses.replace(report, measure=dataclasses.replace(report.measure, default="int4"))
    with pytest.raises(ValueError, match="int4"):
        write_report(broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_headline_compares_on_test(report):
    head = headline(report)
    measure = report.measure
    assert head.split == "test"
    assert head.shipped is measure.variants[1]
    assert head.points == pytest.approx(
        100 * (value(measure.variants[1].test, "top1") - value(measure.teacher_test, "top1"))
    )
    assert head.latency_ratio == pytest.approx(measure.teacher_latency.p50_ms / head.shipped.latency.p50_ms)
    assert head.latency_interval[0] < head.latency_ratio < head.latency_interval[1]
    assert head.size_ratio == pytest.approx(13_700_000 / 1_317_220)


def test_headline_falls_back_to_validation_and_to_no_interval(report):
    measure = report.measure
    bare = dataclasses.replace(measure.teacher_latency, samples_ms=())
    measure = dataclasses.replace(measure, teacher_test=None, teacher_latency=bare)
    head = headline(dataclasses.replace(report, measure=measure))
    assert head.split == "val"
    assert head.teacher is measure.teacher_val
    assert head.student is measure.variants[1].val
    assert head.latency_interval is None


def test_unknown_default_is_named(report):
    measure = dataclasses.replace(report.measure, default="int4")
    with pytest.raises(
        ValueError, match=r"measure\.default is 'int4', expected one of: fp32, int8-cpu-x86, int8-tensorrt"
    ):
        shipped_variant(measure)


def test_remarks_tell_the_default_the_slow_and_the_bad(report):
    fp32, default, slow = report.measure.variants
    assert remarks(report.measure, fp32) == ()
    assert remarks(report.measure, default) == ("default",)
    assert remarks(report.measure, slow) == ("1.78x slower than float", "below the floor")


def test_a_default_that_is_slower_than_float_says_both(report):
    measure = dataclasses.replace(report.measure, default="int8-tensorrt", floor=0.5)
    assert remarks(measure, measure.variants[2]) == ("default", "1.78x slower than float")


def test_class_order_puts_empty_classes_last():
    detail = detail_of(evaluation(("a", "b", "c"), 0.9))
    recalls = (0.0, 0.9, 0.5)
    classes = tuple(
        dataclasses.replace(c, recall=r, support=0 if r == 0 else 40)
        for c, r in zip(detail.classes, recalls, strict=True)
    )
    assert class_order(dataclasses.replace(detail, classes=classes)) == (2, 1, 0)


def test_confused_pairs_are_the_most_frequent():
    predicted = [0] * 8 + [1] * 2 + [0] * 5 + [1] * 15 + [0] * 2 + [2] * 2
    truth = [0] * 10 + [1] * 20 + [2] * 4
    scores = detail_of(evaluate_predictions(truth, predicted, ("a", "b", "c")))
    assert confused_pairs(scores, 2) == (("b", "a", 5, 0.25), ("c", "a", 2, 0.5))
    assert len(confused_pairs(scores, 10)) == 3


def test_fixture_is_deterministic(report):
    assert make_report() == report
