"""The gate on real, tiny bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetl.errors import BaselineError, BundleError, DataError
from edgetl.gate.stage import gate_against, gate_baseline, make_baseline
from edgetl.records import GateReport, from_json, to_json
from tests.bench_stage.bundles import LABELS, colour_png, evaluation, write_bundle

CONFUSED = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles: good, slow, confusing green with blue, without scores; and photos of the three classes."""
    home = tmp_path_factory.mktemp("gate")
    write_bundle(home / "good.edgetl", test=evaluation(85))
    write_bundle(home / "slow.edgetl", test=evaluation(85), layers=6)
    write_bundle(home / "wrong.edgetl", test=evaluation(50), weights=CONFUSED)
    write_bundle(home / "unscored.edgetl")
    write_bundle(home / "other-data.edgetl", test=evaluation(85), data_sha256="e" * 64)
    write_bundle(home / "other-labels.edgetl", test=evaluation(85), labels=("red", "green", "violet"))
    for at, label in enumerate(LABELS):
        for split, count in (("train", 2), ("test", 4)):
            folder = home / "photos" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.png").write_bytes(colour_png(at, noise=10 * number + at))
    make_baseline(home / "good.edgetl", threads=1, runs=60).save(home / "baseline.json")
    make_baseline(home / "good.edgetl", threads=1, runs=60, data=home / "photos").save(home / "measured.json")
    return home


def _passed(report) -> dict[str, bool]:
    return {check.name: check.passed for check in report.checks}


def test_a_baseline_holds_what_the_bundle_says_and_what_was_timed(home: Path) -> None:
    made = make_baseline(home / "good.edgetl", threads=1, runs=20, warmup=2)
    assert made.accuracy.source == "manifest"
    assert made.accuracy.evaluation == evaluation(85)
    assert (made.bundle, made.variant, made.labels) == ("good.edgetl", "fp32", LABELS)
    assert (made.latency.runs, made.latency.threads, made.latency.batch) == (20, 1, 1)
    assert made.size_bytes == (home / "good.onnx").stat().st_size


def test_accuracy_is_measured_on_the_test_split_of_a_folder(home: Path) -> None:
    made = make_baseline(home / "wrong.edgetl", threads=1, runs=5, data=home / "photos")
    assert made.accuracy.source == "measured"
    assert made.accuracy.evaluation.images == 12
    # Classes are read in the order of their paths: blue, green, red.
    assert made.accuracy.hits == "000000001111"
    assert made.accuracy.evaluation.confusion == ((4, 0, 0), (0, 0, 4), (0, 4, 0))


def test_the_same_bundle_passes(home: Path) -> None:
    # The limit is wide: both runs are some milliseconds long on a machine that is doing other things.
    from edgetl.gate.compare import Limits

    report = gate_baseline(
        home / "good.edgetl", home / "baseline.json", limits=Limits(max_latency_increase=3.0)
    )
    assert report.passed, report.sentences()


def test_a_slow_bundle_fails_on_latency_and_size_beside_the_good_one(home: Path) -> None:
    report = gate_against(home / "slow.edgetl", home / "good.edgetl", threads=1, seconds=30)
    assert _passed(report) == {"accuracy": True, "latency": False, "size": False}
    assert "rounds in turn" in report.checks[1].sentence
    assert report.checks[1].change > 0.5
    assert report.trial is not None
    assert report.trial.seconds < 30
    assert len(report.trial.baseline_ms) == len(report.trial.current_ms) >= 2 * report.trial.rounds
    assert from_json(GateReport, to_json(report)) == report


def test_a_bundle_beside_itself_passes_at_a_tight_limit(home: Path) -> None:
    from edgetl.gate.compare import Limits

    limits = Limits(max_latency_increase=0.25)
    report = gate_against(home / "good.edgetl", home / "good.edgetl", threads=1, limits=limits)
    assert report.passed, report.sentences()


def test_lost_accuracy_fails_on_the_bundles_own_scores(home: Path) -> None:
    report = gate_against(home / "wrong.edgetl", home / "good.edgetl", threads=1, seconds=0.1)
    assert not _passed(report)["accuracy"]


def test_lost_accuracy_fails_on_measured_images(home: Path) -> None:
    report = gate_baseline(
        home / "wrong.edgetl", home / "measured.json", data=home / "photos", allow_other_machine=True
    )
    assert not report.passed
    [accuracy, *_] = report.checks
    assert accuracy.sentence.startswith("Top-1 went from 100.0% to 33.3% on 12 images: -66.7 points")
    assert "McNemar p = 0.0078" in accuracy.sentence


def test_no_baseline_is_never_a_pass(home: Path) -> None:
    with pytest.raises(BaselineError, match="There is no baseline at"):
        gate_baseline(home / "good.edgetl", home / "nowhere.json")


def test_measured_is_not_compared_with_written(home: Path) -> None:
    with pytest.raises(BaselineError, match="Give both the same image set, or neither"):
        gate_baseline(home / "good.edgetl", home / "measured.json")


@pytest.mark.parametrize(
    ("bundle", "message"),
    [("other-data", "on other images"), ("other-labels", "missing blue, new violet")],
)
def test_bundles_of_other_data_are_refused(home: Path, bundle: str, message: str) -> None:
    with pytest.raises(BaselineError, match=message):
        gate_against(home / f"{bundle}.edgetl", home / "good.edgetl", threads=1, seconds=0.1)


def test_a_bundle_without_scores_needs_images(home: Path) -> None:
    with pytest.raises(
        BaselineError, match=r"Variant fp32 of unscored has no measured accuracy in its bundle"
    ):
        make_baseline(home / "unscored.edgetl", threads=1, runs=3)
    made = make_baseline(home / "unscored.edgetl", threads=1, runs=3, data=home / "photos")
    assert made.accuracy.evaluation.top1 == 1.0


def test_unknown_classes_are_named(home: Path) -> None:
    with pytest.raises(DataError, match="class 'blue', which the bundle does not know"):
        make_baseline(home / "other-labels.edgetl", threads=1, runs=3, data=home / "photos")


def test_images_of_a_flat_folder_are_all_taken(home: Path) -> None:
    made = make_baseline(home / "good.edgetl", threads=1, runs=3, data=home / "photos" / "test")
    assert made.accuracy.evaluation.images == 12
    split = make_baseline(home / "good.edgetl", threads=1, runs=3, data=home / "photos")
    assert made.accuracy.images_sha256 == split.accuracy.images_sha256
    with pytest.raises(DataError):
        make_baseline(home / "good.edgetl", threads=1, runs=3, data=home / "missing")


def test_a_missing_bundle_is_an_error(home: Path) -> None:
    with pytest.raises(BundleError):
        gate_baseline(home / "missing.edgetl", home / "baseline.json")
