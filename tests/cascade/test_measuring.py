"""A cascade is timed on images, since its time depends on them: by `bench`, `gate` and `report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetl.bench.scenarios import BenchOptions
from edgetl.bench.stage import BenchInputs, run
from edgetl.comparison import stage as comparison
from edgetl.errors import ImageError
from edgetl.gate import stage as gate
from edgetl.gate.compare import Limits
from edgetl.progress import SilentProgress
from edgetl.records.bench import Footprint
from edgetl.records.cascade import CascadeRecord
from edgetl.records.gate import GateCheck, GateReport
from tests.cli.typed import edgetl as typed


class Heard(SilentProgress):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(autouse=True)
def _quick_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    footprint = Footprint(load_ms=300.0, first_ms=5.0, peak_memory_bytes=10**8, base_memory_bytes=10**7)
    monkeypatch.setattr("edgetl.gate.loads.load_fresh", lambda *_, **__: footprint)
    monkeypatch.setattr("edgetl.bench.stage.measure_fresh", lambda *_, **__: footprint)


def _files(place: Path, pattern: str) -> tuple[Path, ...]:
    return tuple(sorted((place / "set").glob(pattern)))


def test_bench_takes_given_images_in_turn(place: Path, made: CascadeRecord) -> None:
    options = BenchOptions(runs=60, warmup=5, threads=1, end_to_end=False)
    images = _files(place, "val/*/*.png")
    record = run(options, BenchInputs(bundle=Path(made.path), images=images))
    assert record.handed_on is not None
    assert record.handed_on == pytest.approx(made.cascade.handed_on, abs=0.2)
    assert not any("golden" in warning for warning in record.warnings)
    # The larger model is many times slower, so both ways are in the samples.
    assert record.latency.p99_ms > 3 * min(record.latency.samples_ms)


def test_bench_says_that_golden_images_are_not_the_user_s(made: CascadeRecord) -> None:
    record = run(
        BenchOptions(runs=30, warmup=5, threads=1, end_to_end=False), BenchInputs(bundle=Path(made.path))
    )
    [said] = [warning for warning in record.warnings if "cascade" in warning]
    assert said.startswith(
        "cascade is a cascade, whose time depends on the images: these are the bundle's golden ones"
    )
    assert said.endswith("name your own to time it on them.")


def test_one_model_is_timed_as_ever(place: Path) -> None:
    images = _files(place, "test/*/*.png")
    inputs = BenchInputs(bundle=place / "small.edgetl", images=images)
    record = run(BenchOptions(runs=20, warmup=2, threads=1, end_to_end=False), inputs)
    assert record.handed_on is None
    assert not any("golden" in warning for warning in record.warnings)


def test_the_command_takes_images(place: Path, made: CascadeRecord) -> None:
    words = ("bench", made.path, place / "set" / "test", "--runs", "20", "--threads", "1")
    done = typed(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert 0 <= json.loads(done.stdout)["handed_on"] <= 1
    assert "of the images" in typed(*words).stdout
    nothing = typed("bench", made.path, place / "nowhere")
    assert nothing.returncode == 2


def _latency(report: GateReport) -> GateCheck:
    return next(check for check in report.checks if check.name == "latency")


def test_a_gate_holds_means_against_each_other(place: Path, made: CascadeRecord) -> None:
    heard = Heard()
    report = gate.gate_against(
        Path(made.path), place / "large.edgetl", data=place / "set", threads=1, seconds=1, progress=heard
    )
    found = _latency(report)
    assert found.sentence.startswith("Mean latency went from")
    assert "24 images" in found.sentence
    assert found.change < 0
    assert not any("golden" in warning for warning in heard.warnings)


def test_a_baseline_holds_means(place: Path, made: CascadeRecord, tmp_path: Path) -> None:
    heard = Heard()
    stored = gate.make_baseline(Path(made.path), threads=1, runs=40, progress=heard)
    assert stored.handed_on is not None
    assert heard.warnings == [
        "A cascade's time depends on the images, and these are its golden ones; time it on yours with --data."
    ]
    stored.save(tmp_path / "baseline.json")
    report = gate.gate_baseline(
        Path(made.path), tmp_path / "baseline.json", limits=Limits(max_latency_increase=9.0)
    )
    assert _latency(report).sentence.startswith("Mean latency went from")


def test_a_comparison_times_both_on_its_images(place: Path, made: CascadeRecord) -> None:
    config = comparison.ComparisonConfig(data=place / "set", seconds=1, threads=1)
    found = comparison.run(place / "large.edgetl", Path(made.path), config)
    assert found.trial is not None
    assert found.trial.images == 24
    assert found.trial.change < 0


def test_an_image_that_cannot_be_timed_is_named(place: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"torn")
    inputs = BenchInputs(bundle=place / "small.edgetl", images=(tmp_path / "torn.png",))
    with pytest.raises(ImageError, match=r"torn\.png: is not an image"):
        run(BenchOptions(runs=2, warmup=0), inputs)
