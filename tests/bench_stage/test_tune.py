from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import edgetl
from edgetl.bench import tune as module
from edgetl.bench.statistics import summarise
from edgetl.bench.tune import Trial, TrialOutcome, TuneRecord, decide, tune
from edgetl.errors import BundleIntegrityError, ConfigError, ModelError, StorageError
from edgetl.records.codec import from_json, to_json
from edgetl.runtime import session
from edgetl.runtime.targets import Choice, EngineName
from tests.bench_stage.bundles import write_variants

OPENVINO = find_spec("openvino") is not None
TODAY = Choice(variant="int8", target=EngineName.CPU, reason="")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_variants(tmp_path_factory.mktemp("tune") / "colours.edgetl")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _quick(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and no pauses: what is faster here is faster by far."""
    monkeypatch.setenv("EDGETL_CACHE", str(cache))
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


@pytest.fixture(scope="module")
def record(bundle: Path, cache: Path) -> TuneRecord:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGETL_CACHE", str(cache))
        patch.setattr(module, "PAUSE_S", 0.0)
        return tune(bundle, threads=1, seconds=0.2)


def test_every_suited_variant_is_tried_on_every_engine(record: TuneRecord) -> None:
    found = {t.name: t for t in record.trials}
    assert found["fp32 on cpu"].outcome is TrialOutcome.TIMED
    assert found["wrong on cpu"].outcome is TrialOutcome.WRONG
    assert found["wrong on cpu"].note.startswith(
        "Variant wrong does not compute what was recorded: on 3 golden"
    )
    assert {t.outcome for t in record.trials if t.variant in ("worse", "unscored")} == {
        TrialOutcome.LESS_ACCURATE
    }
    assert found["worse on cpu"].note == "Its top-1 on the validation split is 93.3%, that of fp32 94.4%."
    assert (
        found["unscored on cpu"].note
        == "Its top-1 on the validation split is not recorded, that of fp32 94.4%."
    )
    assert {t.target for t in record.trials} == {*EngineName} - {EngineName.AUTO}
    if OPENVINO:
        assert found["fp32 on openvino"].outcome is TrialOutcome.TIMED
        assert found["wrong on openvino"].outcome is TrialOutcome.WRONG


def test_the_fastest_wins_among_those_that_are_right_and_as_accurate(record: TuneRecord) -> None:
    timed = {t.name: t.latency for t in record.trials if t.latency}
    assert {name.partition(" ")[0] for name in timed} == {"fp32", "quick"}
    samples = {len(latency.samples_ms) for latency in timed.values()}
    assert len(samples) == 1
    assert samples.pop() >= 30
    assert record.variant == "quick"
    [chosen] = [t for t in record.trials if t.outcome is TrialOutcome.CHOSEN]
    assert (chosen.variant, chosen.target) == (record.variant, record.target)
    assert record.reason.startswith(
        f"quick on {record.target} was the fastest of {len(timed)} measured here on 20"
    )
    assert record.reason.endswith(" ms of fp32 on cpu")
    assert from_json(TuneRecord, json.loads(json.dumps(to_json(record)))) == record


def test_load_runs_what_was_found_and_says_why(record: TuneRecord, bundle: Path) -> None:
    with edgetl.load(bundle, threads=1) as opened:
        assert (opened.choice.variant, opened.choice.target) == (record.variant, record.target)
        assert opened.choice.measured_here
        assert opened.choice.reason == record.reason
        assert opened.verify().passed
    kept = json.loads(Path(record.saved).read_text())
    assert list(kept["by_threads"]) == ["1"]
    assert kept["by_threads"]["1"]["versions"] == record.versions


def test_an_engine_that_is_absent_is_one_line_with_its_remedy(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "openvino", None)
    made = tune(bundle, threads=1, seconds=0.01)
    [absent] = [t for t in made.trials if t.target is EngineName.OPENVINO]
    assert (absent.outcome, absent.variant, absent.name) == (TrialOutcome.ABSENT, "", "openvino")
    assert absent.note == "openvino is not available. Install it with: pip install openvino"
    assert (made.variant, made.target) == ("quick", EngineName.CPU)


def test_an_engine_that_breaks_is_named_and_the_rest_goes_on(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = session.load

    def load(path: Path, *, target: EngineName, variant: str, **others: object) -> session.Session:
        if target is EngineName.CUDA:
            raise RuntimeError("the device fell off\nat line 1")
        if variant == "quick" and target is EngineName.OPENVINO:
            raise ModelError("Its operator Foo is not known.")
        return real(path, target=target, variant=variant, **others)  # type: ignore[arg-type]

    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path))
    monkeypatch.setattr(session, "load", load)
    found = {t.name: t for t in tune(bundle, threads=1, seconds=0.01).trials}
    assert found["fp32 on cuda"].outcome is TrialOutcome.FAILED
    assert found["fp32 on cuda"].note == "the device fell off"
    assert found["quick on openvino"].note == "Its operator Foo is not known."
    assert found["fp32 on cpu"].outcome is TrialOutcome.TIMED


def test_where_nothing_runs_every_reason_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise ModelError("It is cursed.")

    monkeypatch.setattr(session, "load", load)
    with pytest.raises(
        ModelError, match=r"No variant of colours runs here as recorded \(fp32 on cpu: It is cursed; q"
    ):
        tune(bundle, threads=1)


def test_where_no_number_is_asked_for_one_thread_and_all_are_tried(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    found = tune(bundle, seconds=0.1)
    timed = [t for t in found.trials if t.latency is not None]
    both = [{t.latency.threads, t.other_latency.threads} for t in timed if t.latency and t.other_latency]
    assert both == [{1, 2}] * len(timed)
    [chosen] = [t for t in timed if t.outcome is TrialOutcome.CHOSEN]
    assert chosen.latency is not None
    assert (found.threads, found.best_threads) == (2, chosen.latency.threads)
    number = f"{found.best_threads} thread{'s' if found.best_threads > 1 else ''}"
    assert found.reason.startswith(f"{chosen.name} with {number} was ")
    with edgetl.load(bundle) as opened:
        assert (opened.choice.measured_here, opened.backend.threads) == (True, found.best_threads)


def test_stopping_keeps_what_was_kept_before(
    record: TuneRecord, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = Path(record.saved).read_bytes()
    monkeypatch.setattr(module, "time_threads", stop)
    with pytest.raises(KeyboardInterrupt):
        tune(bundle, threads=1, seconds=0.01)
    assert Path(record.saved).read_bytes() == before
    assert [path.name for path in Path(record.saved).parent.glob("*.json")] == [Path(record.saved).name]


def test_what_cannot_be_kept_is_told_before_anything_is_measured(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("it measured")

    monkeypatch.setattr(session, "load", load)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=f"Cannot write {tmp_path}/file/tuned"):
        tune(bundle, threads=1)
    monkeypatch.delenv("EDGETL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", _no_home)
    with pytest.raises(StorageError, match=r"no home folder\. Set EDGETL_CACHE"):
        tune(bundle, threads=1)


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_an_altered_bundle_and_wrong_settings_are_refused(bundle: Path, tmp_path: Path) -> None:
    content = bytearray(bundle.read_bytes())
    content[content.index(b"identity") + 1] ^= 1
    (tmp_path / "altered.edgetl").write_bytes(content)
    with pytest.raises(BundleIntegrityError, match="was altered"):
        tune(tmp_path / "altered.edgetl", threads=1)
    for threads, seconds in ((1, 0.0), (0, 1.0), (1, float("nan"))):
        with pytest.raises(ConfigError, match="expected above 0 and at least 1"):
            tune(bundle, threads=threads, seconds=seconds)


def _trial(variant: str, target: EngineName, median_ms: float, seed: int = 0) -> Trial:
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.01, 61))
    latency = summarise(
        list(median_ms * noise / np.median(noise)), scenario="s", batch=1, threads=2, warmup=0
    )
    return Trial(variant=variant, target=target, outcome=TrialOutcome.TIMED, latency=latency)


def test_what_runs_today_stays_where_it_is_as_fast() -> None:
    today, other = _trial("int8", EngineName.CPU, 1.01), _trial("fp32", EngineName.OPENVINO, 1.0, seed=1)
    chosen, reason = decide([other, today], TODAY, "2026-11-24")
    assert chosen is today
    assert reason == (
        "int8 on cpu was as fast as the fastest of 2 measured here on 2026-11-24: 1.01 ms against 1 ms of "
        "fp32 on openvino"
    )


def test_what_is_faster_beyond_the_measurement_takes_its_place() -> None:
    today, other = _trial("int8", EngineName.CPU, 1.21), _trial("fp32", EngineName.OPENVINO, 0.93)
    third = _trial("fp32", EngineName.CPU, 1.1)
    chosen, reason = decide([today, third, other], TODAY, "2026-11-24")
    assert chosen is other
    assert reason == (
        "fp32 on openvino was the fastest of 3 measured here on 2026-11-24: 0.93 ms against 1.21 ms of int8 on cpu"
    )


def test_what_runs_today_is_held_against_the_next_where_it_is_the_fastest() -> None:
    today, other = _trial("int8", EngineName.CPU, 1200.0), _trial("fp32", EngineName.OPENVINO, 2400.0)
    slow = _trial("fp32", EngineName.CPU, 9000.0)
    chosen, reason = decide([slow, today, other], TODAY, "2026-11-24")
    assert chosen is today
    assert reason.endswith("2026-11-24: 1200 ms against 2400 ms of fp32 on openvino")
    assert decide([slow, other], None, "2026-11-24")[0] is other
    assert decide([other], TODAY, "2026-11-24")[1] == (
        "fp32 on openvino was the only one that could be measured here on 2026-11-24: 2400 ms"
    )
