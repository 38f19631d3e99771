"""Trials that many workers share: none is lost, and what does not belong together is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")

from optuna.study import Study
from optuna.trial import TrialState

from edgetl.errors import ConfigError, StorageError
from edgetl.records.search import Choice
from edgetl.search import study as studies
from edgetl.search.presence import is_dead, present
from edgetl.search.study import (
    WORKER,
    Sampler,
    TooSlow,
    epochs_of,
    keep_epochs,
    open_study,
    place_of,
    requeue,
    revive,
)

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # trials are asked for one by one here
SPACE = {"sizes": (32, 48), "latency-ms": 3.0}
WORK = """
import sys, time
from pathlib import Path
from edgetl.search.presence import present
from edgetl.search.study import WORKER, Sampler, open_study, revive

folder, wanted, wait_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
study = open_study(None, folder, "one", {"sizes": (32, 48), "latency-ms": 3.0}, sampler=Sampler.RANDOM, seed=wanted)

def finished():
    return sum(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False))

with present(folder / "workers") as name:
    def tried(trial):
        trial.set_user_attr(WORKER, name)
        share = trial.suggest_float("share", 0.1, 0.9)
        time.sleep(wait_s)
        return share

    def after(study, _):
        revive(study)
        if finished() >= wanted:
            study.stop()

    study.optimize(tried, callbacks=[after])
"""


def opened(folder: Path, storage: str | None = None, **space: object) -> Study:
    return open_study(storage, folder, "one", {**SPACE, **space}, sampler=Sampler.RANDOM, seed=0)


def started(folder: Path, wanted: int, wait_s: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORK, str(folder), str(wanted), str(wait_s)])


def test_a_worker_that_is_killed_loses_no_trial(tmp_path: Path) -> None:
    study = opened(tmp_path)
    killed, other = started(tmp_path, 100, 60.0), started(tmp_path, 4, 0.1)
    try:
        deadline = time.monotonic() + 300
        while not any(
            f"{os.sep}{killed.pid}-" in trial.user_attrs.get(WORKER, "") and "share" in trial.params
            for trial in study.get_trials(deepcopy=False)
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before = {t.number: t.value for t in study.get_trials() if t.state is TrialState.COMPLETE}
        [lost] = [t for t in study.get_trials() if f"{os.sep}{killed.pid}-" in t.user_attrs.get(WORKER, "")]
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        if other.wait(timeout=300):
            raise AssertionError("the other worker failed")
    finally:
        for process in (killed, other):
            process.kill()
            process.wait()
    revive(study)  # where the other one was through before
    trials = study.get_trials()
    assert {t.number: t.value for t in trials if t.number in before} == before
    assert trials[lost.number].state is TrialState.FAIL
    again = [t for t in trials if t.number != lost.number and lost.params["share"] in _shares(t)]
    assert [t.state for t in again] in ([TrialState.COMPLETE], [TrialState.WAITING])
    assert sum(t.state is TrialState.COMPLETE for t in trials) >= 4
    assert not any(t.state is TrialState.RUNNING for t in trials)


def _shares(trial: object) -> list[float]:
    fixed = trial.system_attrs.get("fixed_params", {})
    return [value for value in (trial.params.get("share"), fixed.get("share")) if value is not None]


def test_a_trial_of_a_dead_worker_is_tried_again(tmp_path: Path) -> None:
    study = opened(tmp_path)
    with present(tmp_path / "workers") as name:
        trial = study.ask()
        trial.set_user_attr(WORKER, name)
        share = trial.suggest_float("share", 0.1, 0.9)
        assert not is_dead(name)
        assert revive(study) == 0
    assert is_dead(name)
    assert revive(study) == 1
    assert revive(study) == 0
    assert not requeue(study, study.get_trials()[trial.number])
    assert study.ask().suggest_float("share", 0.1, 0.9) == share


def test_a_worker_of_another_machine_is_left_alone() -> None:
    assert not is_dead("elsewhere:/tmp/workers/1.lock")


def test_all_who_share_a_study_search_the_same(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path)  # the same again
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, sizes=(32, 64))
    assert str(caught.value) == (
        f"The study one in {tmp_path / 'search.db'} searches something else (sizes: [32, 48] there, [32, 64] here)."
        " Take the change back to go on with it, or give this search a study of its own: another --out, or another"
        " --study in a shared storage."
    )


def test_a_journal_s_file_keeps_trials_too(tmp_path: Path) -> None:
    study = opened(tmp_path, str(tmp_path / "trials.journal"))
    study.optimize(lambda trial: trial.suggest_float("share", 0.1, 0.9), n_trials=2)
    assert [t.value for t in opened(tmp_path, str(tmp_path / "trials.journal")).get_trials()] == [
        t.value for t in study.get_trials()
    ]


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("sqlite:////no/such/folder/trials.db", "sqlite:////no/such/folder/trials.db: unable to open"),
        ("postgresql://me:secret@127.0.0.1:1/trials", "postgresql://me@127.0.0.1:1/trials: "),
        ("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0: "),
        ("/no/such/folder/trials.journal", "/no/such/folder/trials.journal: "),
        ("nonsense://x", "nonsense://x: "),
    ],
)
def test_a_storage_that_cannot_be_reached(storage: str, shown: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        opened(tmp_path, storage)
    assert str(caught.value).startswith(f"Cannot reach the storage {shown}")
    assert "secret" not in str(caught.value)
    assert str(caught.value).endswith("or leave it out to keep the trials in the search's folder.")


def test_where_trials_are_kept_is_told_without_the_password(tmp_path: Path) -> None:
    assert place_of(None, tmp_path) == str(tmp_path / studies.DATABASE)
    assert place_of("mysql://me:s3cret@host/db", tmp_path) == "mysql://me@host/db"
    assert place_of("postgresql://host/db", tmp_path) == "postgresql://host/db"


def test_a_call_that_goes_on_draws_something_else(tmp_path: Path) -> None:
    storage = str(tmp_path / "trials.journal")
    drawn = [opened(tmp_path, storage).ask().suggest_float("share", 0.1, 0.9) for _ in range(3)]
    assert len(set(drawn)) == 3


def test_what_was_too_slow_is_remembered(tmp_path: Path) -> None:
    choice = Choice(network="teacher", size=64, share=0.2, depth=0.5, interpolation="bicubic")
    TooSlow(opened(tmp_path)).add(choice, 1.5)
    kept = TooSlow(opened(tmp_path))
    assert choice in kept
    assert kept.ms(choice) == 1.5
    assert replace(choice, share=0.3) not in kept


def test_epochs_are_chosen_once_for_so_many_minutes(tmp_path: Path) -> None:
    assert epochs_of(opened(tmp_path), 10.0) is None
    keep_epochs(opened(tmp_path), 10.0, 30)
    assert [epochs_of(opened(tmp_path), minutes) for minutes in (10.0, 20.0, None)] == [30, None, None]


def test_samplers_differ_by_their_seed(tmp_path: Path) -> None:
    drawn = set()
    for seed in (0, 1):
        study = open_study(None, tmp_path, f"s{seed}", SPACE, sampler=Sampler.TPE, seed=seed)
        drawn.add(study.ask().suggest_float("share", 0.1, 0.9))
    assert len(drawn) == 2


def test_candidates_are_stopped_after_four_epochs_by_what_came_so_far(tmp_path: Path) -> None:
    study = opened(tmp_path)

    def epochs_of(loss: float) -> int:
        trial = study.ask()
        for epoch in range(1, 9):
            trial.report(-loss, epoch)
            if epoch < 8 and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return epoch
        study.tell(trial, -loss)
        return 8

    assert [epochs_of(loss) for loss in (1.0, 1.5, 1.2, 1.1, 0.9)] == [8, 4, 4, 8, 8]
