"""The gate on real, tiny bundles."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgetl.bundle.archive import open_bundle
from edgetl.errors import BaselineError, BundleError, ConfigError, DataError, HistoryError
from edgetl.files import sha256_file
from edgetl.gate.baseline import load
from edgetl.gate.stage import gate_against, gate_baseline, make_baseline
from edgetl.records.bench import Footprint
from edgetl.records.codec import from_json, to_json
from edgetl.records.gate import GateReport
from edgetl.records.scores import BadImages, value
from edgetl.runtime.targets import EngineName
from tests.bench_stage.bundles import LABELS, colour_png, evaluation, keep_winner, write_bundle

CONFUSED = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]])


@pytest.fixture(scope="module", autouse=True)
def _quick_loads() -> Iterator[None]:
    """Fresh processes take a while; `test_loads.py` starts real ones."""
    footprint = Footprint(
        load_ms=300.0, first_ms=5.0, peak_memory_bytes=90_000_000, base_memory_bytes=60_000_000
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgetl.gate.loads.load_fresh", lambda *_, **__: footprint)
        yield


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
    assert made.accuracy.evaluation == evaluation(85).summary()
    assert (made.bundle, made.variant, made.labels) == ("good.edgetl", "fp32", LABELS)
    assert (made.latency.runs, made.latency.threads, made.latency.batch) == (20, 1, 1)
    assert made.size_bytes == (home / "good.onnx").stat().st_size


def test_accuracy_is_measured_on_the_test_split_of_a_folder(home: Path) -> None:
    made = make_baseline(home / "wrong.edgetl", threads=1, runs=5, data=home / "photos")
    assert made.accuracy.source == "measured"
    assert made.accuracy.evaluation.images == 12
    # Classes are read in the order of their paths: blue, green, red.
    assert made.accuracy.truth == (2,) * 4 + (1,) * 4 + (0,) * 4
    assert made.accuracy.predictions == (1,) * 4 + (2,) * 4 + (0,) * 4
    assert made.accuracy.paths[:2] == ("test/blue/0.png", "test/blue/1.png")


@pytest.mark.serial
def test_the_same_bundle_passes(home: Path) -> None:
    # The limit is wide: both runs are some milliseconds long on a machine that is doing other things.
    from edgetl.gate.compare import Limits

    report = gate_baseline(
        home / "good.edgetl", home / "baseline.json", limits=Limits(max_latency_increase=3.0)
    )
    assert report.passed, report.sentences()


@pytest.mark.serial
def test_a_slow_bundle_fails_on_latency_and_size_beside_the_good_one(home: Path) -> None:
    report = gate_against(home / "slow.edgetl", home / "good.edgetl", threads=1, seconds=30)
    assert {name for name, passed in _passed(report).items() if not passed} == {"latency", "size"}
    assert "rounds in turn" in report.checks[1].sentence
    assert report.checks[1].change > 0.5
    assert report.trial is not None
    assert report.trial.seconds < 30
    assert len(report.trial.baseline_ms) == len(report.trial.current_ms) >= 2 * report.trial.rounds
    assert from_json(GateReport, to_json(report)) == report


@pytest.mark.serial
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
    assert accuracy.sentence == (
        "Top-1 went from 100.0% to 33.3% on 12 images (8 right to wrong, 0 wrong to right): -66.7 points, exact "
        "McNemar p = 0.0039; a drop of 21.5 points is allowed, the least that so many images can settle: FAILS."
    )
    assert report.flips is not None
    assert (report.flips.lost, report.flips.won) == (8, 0)
    first = report.flips.images[0]
    assert (first.path, first.label, first.before, first.after) == (
        "test/blue/0.png",
        "blue",
        "blue",
        "green",
    )


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
    assert value(made.accuracy.evaluation, "top1") == 1.0


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


def test_images_without_a_class_of_the_bundle_are_refused(home: Path, tmp_path: Path) -> None:
    for label in ("red", "green"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.png").write_bytes(colour_png(LABELS.index(label)))
    with pytest.raises(DataError) as caught:
        make_baseline(home / "good.edgetl", threads=1, runs=3, data=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has no images of blue, which the bundle knows: a class without images could be lost unseen. Add "
        "images of it."
    )


def test_an_image_that_was_altered_is_not_the_same_set(home: Path, tmp_path: Path) -> None:
    for at, label in enumerate(LABELS):
        for number in range(4):
            path = tmp_path / "photos" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(colour_png(at, noise=10 * number + at))
    kept = tmp_path / "kept.json"
    make_baseline(home / "good.edgetl", threads=1, runs=3, data=tmp_path / "photos").save(kept)
    (tmp_path / "photos" / "red" / "2.png").write_bytes(colour_png(0, noise=99))
    with pytest.raises(BaselineError, match="on other images: the same names with another content or class"):
        gate_baseline(home / "good.edgetl", kept, data=tmp_path / "photos")
    (tmp_path / "photos" / "red" / "2.png").unlink()
    with pytest.raises(BaselineError, match=r"on other images: missing red/2.png, new none"):
        gate_baseline(home / "good.edgetl", kept, data=tmp_path / "photos")


def test_no_runs_are_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="Timing needs a call and a run: got 1 calls, 0 runs"):
        make_baseline(home / "good.edgetl", threads=1, runs=0)


def test_the_machine_s_own_history_tells_how_runs_differ(home: Path, tmp_path: Path) -> None:
    from edgetl.bench.machine import describe
    from tests.history.records import write

    stored = load(home / "baseline.json")
    name = open_bundle(home / "good.edgetl").manifest.name
    subject = {"name": name, "variant": stored.variant, "threads": 1, "machine": describe()}
    medians = [stored.latency.p50_ms * (1 + 0.001 * step) for step in range(6)]
    write(tmp_path / "h", medians, **subject)

    def sentence(history: Path | None) -> str:
        report = gate_baseline(home / "good.edgetl", home / "baseline.json", history=history)
        return next(check.sentence for check in report.checks if check.name == "latency")

    assert "differs from itself by 0.2% between runs, as its history says" in sentence(tmp_path / "h")
    assert "between runs, as others do" in sentence(None)
    with pytest.raises(HistoryError, match="nowhere"):
        gate_baseline(home / "good.edgetl", home / "baseline.json", history=tmp_path / "nowhere")


def test_engines_are_not_mixed_where_one_was_measured_as_faster_meanwhile(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: object, **__: object) -> None:
        raise AssertionError("it measured")

    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path))
    monkeypatch.setattr("edgetl.gate.stage.capture", measure)
    monkeypatch.setattr("edgetl.gate.stage.capture_pair", measure)
    keep_winner(home / "good.edgetl", EngineName.OPENVINO)
    with pytest.raises(
        BaselineError, match=r"on the target cpu, this on openvino\. Name the same one \(--target\)"
    ):
        gate_baseline(home / "good.edgetl", home / "baseline.json")
    with pytest.raises(
        BaselineError,
        match=r"auto runs slow\.edgetl on cpu and good\.edgetl on openvino, whose latencies do not compare\. Name one",
    ):
        gate_against(home / "good.edgetl", home / "slow.edgetl", threads=1)
    with pytest.raises(AssertionError, match="it measured"):
        gate_against(home / "good.edgetl", home / "slow.edgetl", threads=1, target="cpu")


def test_a_baseline_names_the_engine_that_auto_took(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path))
    keep_winner(home / "good.edgetl", EngineName.OPENVINO)
    assert make_baseline(home / "good.edgetl", threads=1, runs=10, warmup=1).target == "openvino"
    assert make_baseline(home / "good.edgetl", threads=2, runs=10, warmup=1).target == "cpu"


def test_bad_images_are_skipped_for_both_bundles_alike(home: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(home / "photos", tmp_path / "photos")
    (photos / "test" / "red" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 12 images cannot be used:\n.*1\.png"):
        make_baseline(home / "good.edgetl", threads=1, runs=3, data=photos)
    skip = BadImages.SKIP
    kept = tmp_path / "kept.json"
    make_baseline(home / "good.edgetl", threads=1, runs=60, data=photos, bad_images=skip).save(kept)
    report = gate_baseline(home / "good.edgetl", kept, data=photos, bad_images=skip)
    again = gate_against(
        home / "good.edgetl", home / "slow.edgetl", threads=1, seconds=0.1, data=photos, bad_images=skip
    )
    for found in (report, again):
        assert found.image_set is not None
        assert (found.image_set.images, [name for name, _ in found.image_set.skipped]) == (
            11,
            ["test/red/1.png"],
        )
        assert "accuracy" in _passed(found)


def test_both_bundles_are_scored_on_what_neither_was_trained_on(home: Path, tmp_path: Path) -> None:
    photos = home / "photos" / "test"
    hashes = [sha256_file(photos / label / "0.png") for label in LABELS]
    one = write_bundle(tmp_path / "one.edgetl", test=evaluation(85), splits={"train": hashes[:2]})
    other = write_bundle(tmp_path / "other.edgetl", test=evaluation(85), splits={"train": hashes[1:]})
    report = gate_against(one, other, threads=1, seconds=0.1, data=photos)
    taken = report.image_set
    assert taken is not None
    assert (taken.images, taken.trained_on, taken.left_out) == (9, 3, 3)
