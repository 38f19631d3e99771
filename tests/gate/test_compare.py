from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgetl.bench.statistics import summarise
from edgetl.errors import BaselineError, ConfigError
from edgetl.gate.baseline import Accuracy, Baseline
from edgetl.gate.compare import Limits, compare
from edgetl.metrics import evaluate_predictions
from edgetl.records import GateReport, Machine, Verdict, from_json, to_json

LABELS = ("ant", "bee")
MACHINE = Machine(cpu="Test CPU", cores=2, memory_bytes=2**30, system="Linux x86_64", python="3.11.0")
OTHER = replace(MACHINE, cpu="Other CPU")


def accuracy(right: int, images: int = 1000, *, measured: bool = True, images_sha256: str = "i") -> Accuracy:
    labels = np.arange(images) % 2
    hits = np.arange(images) < right
    return Accuracy(
        source="measured" if measured else "manifest",
        evaluation=evaluate_predictions(labels, np.where(hits, labels, 1 - labels), LABELS),
        images_sha256=images_sha256,
        hits="".join("1" if hit else "0" for hit in hits) if measured else "",
    )


def figures(
    *,
    right: int = 950,
    ms: float = 3.0,
    size: int = 1_000_000,
    noise: float = 0.02,
    seed: int = 0,
    **changes: object,
) -> Baseline:
    samples = ms * np.random.default_rng(seed).lognormal(0, noise, 200)
    values: dict = {
        "bundle": "model.edgetl",
        "bundle_sha256": "0" * 64,
        "variant": "int8",
        "labels": LABELS,
        "size_bytes": size,
        "accuracy": accuracy(right),
        "latency": summarise(samples, scenario="single-stream", batch=1, threads=2, warmup=20),
        "machine": MACHINE,
    }
    return Baseline(**{**values, **changes})


def checks(report: GateReport) -> dict[str, bool]:
    return {check.name: check.passed for check in report.checks}


def test_equal_figures_pass() -> None:
    report = compare(figures(), figures(seed=1), spread=0.001)
    assert report.passed
    assert checks(report) == {"accuracy": True, "latency": True, "size": True}
    assert (report.baseline, report.current, report.variant) == ("model.edgetl", "model.edgetl", "int8")
    assert from_json(GateReport, to_json(report)) == report


@pytest.mark.parametrize(
    ("right", "passed"), [(950, True), (960, True), (940, True), (939, False), (800, False)]
)
def test_accuracy_fails_beyond_the_limit_alone(right: int, passed: bool) -> None:
    report = compare(figures(), figures(right=right), spread=0.001)
    assert checks(report) == {"accuracy": passed, "latency": True, "size": True}
    assert report.passed is passed


def test_the_accuracy_sentence_is_paired_and_says_how_sure_it_is() -> None:
    [check, *_] = compare(figures(), figures(right=930)).checks
    assert check.sentence == (
        "Top-1 went from 95.0% to 93.0% on 1000 images: -2.0 points "
        "(95% interval -2.9 to -1.1, McNemar p = 1.9e-06); a drop of 1 point is allowed: FAILS."
    )
    assert (check.baseline, check.current, check.limit) == (0.95, 0.93, 0.01)
    assert check.change == pytest.approx(-0.02)
    assert check.interval is not None
    assert check.interval[0] < -0.02 < check.interval[1] < 0


def test_scores_from_the_bundle_are_compared_unpaired() -> None:
    before = figures(accuracy=accuracy(950, measured=False))
    [check, *_] = compare(before, figures(accuracy=accuracy(945, measured=False))).checks
    assert check.passed
    assert "McNemar" not in check.sentence
    assert check.interval is not None
    assert check.interval[0] < -0.02
    assert check.interval[1] > 0.01


@pytest.mark.parametrize(
    ("ms", "verdict"), [(3.0, "pass"), (2.0, "pass"), (3.15, "unsure"), (3.6, "fail"), (9.0, "fail")]
)
def test_latency_of_another_run_is_judged_by_the_spread_between_runs(ms: float, verdict: str) -> None:
    # 1% between runs is 6.7% about a difference of two.
    limits = Limits(max_latency_increase=0.08)
    report = compare(figures(noise=0), figures(noise=0, ms=ms), limits, spread=0.01)
    assert report.checks[1].verdict == verdict
    assert report.verdict == verdict


@pytest.mark.parametrize(("size", "passed"), [(900_000, True), (1_050_000, True), (1_050_001, False)])
def test_size_fails_beyond_the_limit(size: int, passed: bool) -> None:
    report = compare(figures(), figures(size=size), spread=0.001)
    assert checks(report) == {"accuracy": True, "latency": True, "size": passed}


def test_size_sentence() -> None:
    size = compare(figures(), figures(size=1_200_000)).checks[2]
    assert size.sentence == (
        "The model file went from 1,000,000 to 1,200,000 bytes: +20.0%; an increase of 5% is allowed: FAILS."
    )


def test_failed_sentences_come_first() -> None:
    report = compare(figures(), figures(size=2_000_000))
    assert report.sentences()[0].startswith("The model file")
    assert len(report.sentences()) == 3


def test_limits_are_the_callers() -> None:
    strict = Limits(max_accuracy_drop=0.0, max_latency_increase=0.0, max_size_increase=0.0)
    assert compare(figures(), figures(), strict, spread=0.0).passed
    report = compare(figures(), figures(right=949, ms=3.3, seed=1, size=1_000_001), strict, spread=0.01)
    assert checks(report) == {"accuracy": False, "latency": False, "size": False}


def test_wrong_limits_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Limits(max_accuracy_drop=1.5, max_latency_increase=-0.1, max_size_increase=float("nan"))
    assert caught.value.problems == (
        "max_accuracy_drop is 1.5, expected a share from 0 to 1.",
        "max_latency_increase is -0.1, expected a share from 0 up.",
        "max_size_increase is nan, expected a share from 0 up.",
    )


def test_another_machine_is_refused() -> None:
    with pytest.raises(BaselineError) as caught:
        compare(figures(), figures(machine=OTHER))
    assert str(caught.value).startswith(
        "The baseline was measured on another machine (Test CPU x2, Linux x86_64; "
        "this is Other CPU x2, Linux x86_64)"
    )
    assert "--allow-other-machine" in str(caught.value)


def test_another_machine_is_shown_but_not_judged_when_allowed() -> None:
    report = compare(figures(), figures(machine=OTHER, ms=30.0), allow_other_machine=True)
    latency = report.checks[1]
    assert (latency.judged, latency.passed, report.passed) == (False, True, True)
    assert latency.change > 8
    assert latency.sentence.endswith("not judged, since the machines differ.")
    failed = compare(figures(), figures(machine=OTHER, right=500), allow_other_machine=True)
    assert not failed.passed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("ant", "wasp")}, "classes are not the baseline's: missing bee, new wasp"),
        ({"labels": ("bee", "ant")}, "classes are not the baseline's: in another order"),
        (
            {"accuracy": accuracy(950, measured=False)},
            "baseline's accuracy is on an image set, the bundle's as written in the bundle",
        ),
        ({"accuracy": accuracy(950, images_sha256="j")}, "accuracy was measured on other images"),
        (
            {"latency": summarise([3.0], scenario="single-stream", batch=8, threads=2, warmup=0)},
            "latency was measured with batch 1, this one with 8",
        ),
        (
            {"latency": summarise([3.0], scenario="single-stream", batch=1, threads=4, warmup=0)},
            "latency was measured with threads 2, this one with 4",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(BaselineError, match=message):
        compare(figures(), figures(**changes))


@pytest.mark.parametrize(
    ("verdicts", "judged", "expected"),
    [
        ("pass pass pass", (True, True, True), Verdict.PASS),
        ("pass unsure pass", (True, True, True), Verdict.UNSURE),
        ("unsure unsure fail", (True, True, True), Verdict.FAIL),
        ("pass fail unsure", (True, False, False), Verdict.PASS),
    ],
)
def test_a_report_fails_before_it_is_unsure(
    verdicts: str, judged: tuple[bool, ...], expected: Verdict
) -> None:
    report = compare(figures(), figures(seed=1))
    parts = zip(report.checks, verdicts.split(), judged, strict=True)
    report = replace(report, checks=tuple(replace(c, verdict=Verdict(v), judged=j) for c, v, j in parts))
    assert report.verdict is expected
    assert report.passed is (expected is Verdict.PASS)
