from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgetl.bench.statistics import summarise
from edgetl.errors import BaselineError, ConfigError
from edgetl.gate.baseline import Accuracy, Baseline, Loads
from edgetl.gate.compare import Limits, compare
from edgetl.records.codec import from_json, to_json
from edgetl.records.gate import GateCheck, GateReport, LatencyTrial, Verdict
from edgetl.records.measured import Machine
from edgetl.tasks.base import Classification, MultiLabel
from edgetl.tasks.classification.scores import evaluate_predictions

LABELS = ("ant", "bee")
MACHINE = Machine(cpu="Test CPU", cores=2, memory_bytes=2**30, system="Linux x86_64", python="3.11.0")
OTHER = replace(MACHINE, cpu="Other CPU")


def accuracy(
    right: int, images: int = 1000, *, measured: bool = True, images_sha256: str = "i", **changes: object
) -> Accuracy:
    truth = np.arange(images) % 2
    predicted = np.where(np.arange(images) < right, truth, 1 - truth)
    values: dict = {
        "source": "measured" if measured else "manifest",
        "evaluation": evaluate_predictions(truth, predicted, LABELS).summary(),
        "images_sha256": images_sha256,
    }
    if measured:
        values |= {
            "paths": tuple(f"{LABELS[label]}/{at}.png" for at, label in enumerate(truth)),
            "truth": tuple(truth.tolist()),
            "predictions": tuple(predicted.tolist()),
        }
    return Accuracy(**{**values, **changes})


def loads(ms: float = 300.0, memory: int = 90_000_000, spread: float = 0.01) -> Loads:
    steps = [1 + spread * step for step in (-1, -0.5, 0, 0.5, 1)]
    return Loads(
        load_ms=tuple(ms * s for s in steps), peak_memory_bytes=tuple(round(memory * s) for s in steps)
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
        "task": Classification(labels=LABELS),
        "model_sha256": f"{right}-{size}",
        "variant": "int8",
        "size_bytes": size,
        "accuracy": accuracy(right),
        "latency": summarise(samples, scenario="single-stream", batch=1, threads=2, warmup=20),
        "loads": loads(),
        "layers": {"8": 50},
        "target": "cpu",
        "placement": {},
        "machine": MACHINE,
    }
    return Baseline(**{**values, **changes})


TRIAL = LatencyTrial(
    verdict=Verdict.PASS,
    limit=0.025,
    change=0.0,
    interval=(-0.01, 0.01),
    confidence=0.99,
    p99_change=None,
    p99_interval=None,
    rounds=10,
    seconds=1.0,
    seconds_needed=None,
    warmup=1,
    baseline_ms=(3.0, 3.0),
    current_ms=(3.0, 3.0),
    notes=(),
)


def held(before: Baseline, now: Baseline, limits: Limits | None = None, **options: object) -> GateReport:
    """`compare` on a machine whose runs differ little, so that latency is judged."""
    return compare(before, now, limits, spread=0.001, **options)


def not_passed(report: GateReport) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in report.checks if not check.passed}


def named(report: GateReport, name: str) -> GateCheck:
    return next(check for check in report.checks if check.name == name)


def test_equal_figures_pass() -> None:
    report = compare(figures(), figures(seed=1), spread=0.001)
    assert report.passed
    assert [check.name for check in report.checks] == [
        "accuracy",
        "macro-F1",
        "recall",
        "latency",
        "size",
        "memory",
        "load time",
        "precision",
    ]
    assert (report.baseline, report.current, report.variant) == ("model.edgetl", "model.edgetl", "int8")
    assert from_json(GateReport, to_json(report)) == report


@pytest.mark.parametrize(
    ("right", "verdict"),
    [(950, "pass"), (960, "pass"), (945, "pass"), (938, "unsure"), (930, "fail"), (800, "fail")],
)
def test_accuracy_has_three_verdicts(right: int, verdict: str) -> None:
    report = held(figures(), figures(right=right))
    assert named(report, "accuracy").verdict == verdict
    assert report.verdict == verdict


def test_the_accuracy_sentence_is_paired_and_says_how_sure_it_is() -> None:
    check = named(compare(figures(), figures(right=930)), "accuracy")
    assert check.sentence == (
        "Top-1 went from 95.0% to 93.0% on 1,000 images (20 right to wrong, 0 wrong to right): -2.0 points, exact "
        "McNemar p = 9.5e-07; a drop of 1.5 points is allowed, the least that so many images can settle: FAILS."
    )
    assert (check.baseline, check.current, check.limit) == (0.95, 0.93, 0.015)
    assert check.change == pytest.approx(-0.02)
    assert check.interval is not None
    assert check.interval[0] < -0.02 < check.interval[1] < 0


def test_scores_from_the_bundle_are_compared_unpaired() -> None:
    before = figures(accuracy=accuracy(950, measured=False))
    report = held(before, figures(right=945, accuracy=accuracy(945, measured=False)))
    assert [check.name for check in report.checks][:2] == ["accuracy", "latency"]
    check, *_ = report.checks
    assert check.verdict is Verdict.UNSURE
    assert "McNemar" not in check.sentence
    assert check.interval is not None
    assert check.interval[0] < -0.02
    assert check.interval[1] > 0.01
    assert report.flips is None
    assert held(before, figures(accuracy=accuracy(950, measured=False))).passed


def test_images_that_flipped_are_listed_lost_ones_first() -> None:
    now = accuracy(950, predictions=(1, *accuracy(950).predictions[1:-1], accuracy(950).truth[-1]))
    flips = compare(figures(), figures(accuracy=now)).flips
    assert flips is not None
    assert (flips.lost, flips.won) == (1, 1)
    lost, won = flips.images
    assert (lost.path, lost.label, lost.before, lost.after, lost.lost) == (
        "ant/0.png",
        "ant",
        "ant",
        "bee",
        True,
    )
    assert (won.path, won.label, won.before, won.after, won.lost) == (
        "bee/999.png",
        "bee",
        "ant",
        "bee",
        False,
    )


def test_no_more_flips_are_listed_than_a_report_can_bear() -> None:
    flips = compare(figures(), figures(right=500)).flips
    assert flips is not None
    assert (flips.lost, flips.won, len(flips.images)) == (450, 0, 200)


@pytest.mark.parametrize(
    ("ms", "verdict"), [(3.0, "pass"), (2.0, "pass"), (3.15, "unsure"), (3.6, "fail"), (9.0, "fail")]
)
def test_latency_of_another_run_is_judged_by_the_spread_between_runs(ms: float, verdict: str) -> None:
    # 1% between runs is 6.7% about a difference of two.
    limits = Limits(max_latency_increase=0.08)
    report = compare(figures(noise=0), figures(noise=0, ms=ms), limits, spread=0.01)
    assert named(report, "latency").verdict == verdict
    assert report.verdict == verdict


@pytest.mark.parametrize(("size", "passed"), [(900_000, True), (1_050_000, True), (1_050_001, False)])
def test_size_fails_beyond_the_limit(size: int, passed: bool) -> None:
    report = held(figures(), figures(size=size))
    assert set(not_passed(report)) == (set() if passed else {"size"})


def test_size_sentence() -> None:
    size = compare(figures(), figures(size=1_200_000)).checks[4]
    assert size.sentence == (
        "The model file went from 1,000,000 to 1,200,000 bytes: +20.0%; an increase of 5% is allowed: FAILS."
    )


def test_failed_sentences_come_first() -> None:
    report = compare(figures(), figures(size=2_000_000))
    assert report.sentences()[0].startswith("The model file")
    assert len(report.sentences()) == 8


def test_limits_are_the_callers() -> None:
    strict = Limits(max_accuracy_drop=0.0, max_latency_increase=0.0, max_size_increase=0.0)
    assert compare(figures(), figures(), strict, spread=0.0).passed
    report = compare(figures(), figures(right=949, ms=3.3, seed=1, size=1_000_001), strict, spread=0.01)
    assert set(not_passed(report)) == {"accuracy", "macro-F1", "latency", "size"}


def test_wrong_limits_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Limits(
            max_accuracy_drop=1.5,
            max_latency_increase=-0.1,
            max_size_increase=float("nan"),
            max_recall_drop=2,
        )
    assert caught.value.problems == (
        "max_accuracy_drop is 1.5, expected a share from 0 to 1.",
        "max_recall_drop is 2, expected a share from 0 to 1.",
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
    latency = named(report, "latency")
    assert (latency.judged, latency.passed, report.passed) == (False, True, True)
    assert latency.change > 8
    assert latency.sentence.endswith("not judged, since the machines differ.")
    failed = compare(figures(), figures(machine=OTHER, right=500), allow_other_machine=True)
    assert not failed.passed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task": Classification(labels=("ant", "wasp"))},
            "classes are not the baseline's: missing bee, new wasp",
        ),
        ({"task": Classification(labels=("bee", "ant"))}, "classes are not the baseline's: in another order"),
        (
            {"accuracy": accuracy(950, measured=False)},
            "baseline's accuracy is on an image set, the bundle's as written in the bundle",
        ),
        (
            {"accuracy": accuracy(950, images_sha256="j")},
            "accuracy was measured on other images: the same names with another content or class. Give the same image "
            "set, or write the baseline anew",
        ),
        (
            {"accuracy": accuracy(900, 999, images_sha256="j")},
            "accuracy was measured on other images: missing bee/999.png, new none",
        ),
        ({"target": "openvino"}, r"on the target cpu, this on openvino. Name the same one \(--target\)"),
        (
            {"task": MultiLabel(labels=LABELS)},
            "The baseline is of the task classification, the bundle of multilabel",
        ),
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
    parts = zip(report.checks[:3], verdicts.split(), judged, strict=True)
    report = replace(report, checks=tuple(replace(c, verdict=Verdict(v), judged=j) for c, v, j in parts))
    assert report.verdict is expected
    assert report.passed is (expected is Verdict.PASS)


def test_scores_of_other_images_are_refused_by_their_data_hash() -> None:
    before, now = (figures(accuracy=accuracy(950, measured=False, images_sha256=name)) for name in "ij")
    with pytest.raises(BaselineError, match="on other images: 1000 by another data hash; now 1000"):
        compare(before, now)


def test_memory_and_load_time_are_judged_by_rank() -> None:
    report = held(figures(), figures(loads=loads(ms=500, memory=120_000_000)), trial=TRIAL)
    assert not_passed(report) == {"memory": Verdict.FAIL, "load time": Verdict.FAIL}
    assert named(report, "memory").sentence == (
        "Peak memory went from 90.0 MB to 120.0 MB: +33.3% (medians of 5 and 5 fresh processes, 2% and 2% apart); an "
        "increase of 10% is allowed: FAILS."
    )
    near = held(figures(), figures(loads=loads(ms=450, spread=0.2)), trial=TRIAL)
    assert not_passed(near) == {"memory": Verdict.UNSURE, "load time": Verdict.UNSURE}
    assert named(near, "load time").sentence.endswith(
        "cannot tell, since the processes differ too much: repeat on a quieter machine."
    )


def test_load_time_of_another_time_is_shown_but_not_judged() -> None:
    check = named(held(figures(), figures(loads=loads(ms=900))), "load time")
    assert (check.judged, check.passed) == (False, True)
    assert check.sentence.endswith(
        "not judged: it was measured at another time; compare with a bundle (--against)."
    )


def test_memory_that_the_system_does_not_tell_is_not_judged() -> None:
    check = named(held(figures(), figures(loads=loads(memory=0))), "memory")
    assert (check.judged, check.passed) == (False, True)


def test_layers_that_fell_back_to_float_fail() -> None:
    report = held(figures(), figures(layers={"8": 49, "32": 1}))
    assert not_passed(report) == {"precision": Verdict.FAIL}
    assert named(report, "precision").sentence == (
        "Convolutions and matrix products compute in 8 bits (49), 32 bits (1), before in 8 bits (50) (by the model's "
        "graph); an increase of the mean by 0% is allowed: FAILS."
    )
    assert held(figures(), figures(layers={"8": 30})).passed
    assert held(figures(layers={"32": 50}), figures()).passed
    assert held(figures(), figures(layers={"8": 49, "32": 1}), Limits(max_bits_increase=0.1)).passed


def test_nodes_that_the_accelerator_leaves_to_the_cpu_are_judged() -> None:
    def placed(accelerator: int, cpu: int) -> Baseline:
        nodes = {"CUDAExecutionProvider": accelerator, "CPUExecutionProvider": cpu}
        return figures(target="cuda", placement=nodes)

    report = held(placed(50, 0), placed(47, 3))
    assert not_passed(report) == {"off accelerator": Verdict.FAIL}
    check = named(report, "off accelerator")
    assert (check.baseline, check.current) == (0.0, 0.06)
    assert check.sentence == (
        "3 of 50 nodes run off the accelerator, before 0 of 50; no larger share is allowed: FAILS."
    )
    assert held(placed(47, 3), placed(30, 1)).passed
    assert "off accelerator" not in {c.name for c in held(figures(), figures()).checks}
