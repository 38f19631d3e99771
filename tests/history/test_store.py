from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgetl.errors import HistoryError
from edgetl.history import append, read, spread, store
from edgetl.history.store import git_commit
from edgetl.records.bench import BenchRecord
from edgetl.records.codec import from_json
from tests.history.records import MACHINE, record, write


def test_a_run_comes_back_with_its_figures(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "bench.sqlite"
    append(path, record(5.0), now=datetime(2026, 11, 24, 13, 5, 59, tzinfo=UTC), commit="c" * 40)
    [trend] = read(path).trends
    assert (trend.machine, trend.name, trend.variant) == (MACHINE.fingerprint, "flowers", "int8")
    assert (trend.target, trend.scenario, trend.batch, trend.threads) == ("cpu", "single-stream", 1, 2)
    [run] = trend.runs
    assert (run.time, run.commit, run.bundle_sha256) == ("2026-11-24T13:05:59Z", "c" * 40, "a" * 64)
    assert (run.p50_ms, run.p90_ms, run.metric) == (5.0, pytest.approx(5.8), "p90_ms")
    assert (run.load_ms, run.peak_memory_bytes, run.warnings) == (80.0, 70_000_000, 1)


def test_the_whole_record_is_kept_with_its_raw_samples(tmp_path: Path) -> None:
    append(tmp_path / "h", record(5.0))
    with closing(sqlite3.connect(tmp_path / "h")) as database:
        [(text,)] = database.execute("SELECT record FROM runs").fetchall()
    assert from_json(BenchRecord, json.loads(text)) == record(5.0)


def test_subjects_are_kept_apart_and_runs_are_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "h"
    write(path, [2.0], start=5)
    write(path, [1.0], start=1)
    write(path, [7.0], variant="fp32")
    write(path, [8.0], threads=1)
    write(path, [9.0], scenario="offline")
    trends = read(path).trends
    assert len(trends) == 4
    assert [run.p50_ms for run in trends[-1].runs] == [1.0, 2.0]
    assert [len(trend.runs) for trend in read(path, last=1).trends] == [1, 1, 1, 1]


def test_the_commit_is_that_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() == ""
    me = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], [*me, "commit", "-qm", "one"]):
        subprocess.run(["git", *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert git_commit() == head.stdout.strip()
    (tmp_path / "file").write_text("2")
    assert git_commit() == f"{head.stdout.strip()}-dirty"
    monkeypatch.setenv("PATH", "")
    assert git_commit() == ""


_WRITER = """
import sys
from pathlib import Path
from tests.history.records import write
write(Path(sys.argv[1]), [float(sys.argv[2])] * 10)
"""


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "h"
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(number)], stderr=subprocess.PIPE)
        for number in (1, 2, 3)
    ]
    for writer in writers:
        _, stated = writer.communicate(timeout=120)
        assert writer.returncode == 0, stated
    [trend] = read(path).trends
    assert sorted(run.p50_ms for run in trend.runs) == [1.0] * 10 + [2.0] * 10 + [3.0] * 10


def test_a_file_locked_by_another_is_waited_for_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "h"
    append(path, record())
    monkeypatch.setattr(store, "WAIT_S", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            HistoryError, match=r"h was locked by another program for 0\.1 s; nothing was written"
        ):
            append(path, record())
        with pytest.raises(HistoryError, match=r"h was locked by another program for 0\.1 s\. Try again"):
            read(path)
    append(path, record())
    assert len(read(path).trends[0].runs) == 2


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    for use in (read, lambda path: spread(path, "m", "n", "v", "cpu")):
        with pytest.raises(
            HistoryError, match=r"There is no history at .*gone.* edgetl bench BUNDLE --history"
        ):
            use(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be read as one" * 20, b"x" * 99]
)
def test_another_kind_of_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "h"
    path.write_bytes(content)
    for use in (read, lambda path: append(path, record())):
        with pytest.raises(
            HistoryError, match=r"h is not a history, or a damaged one \(file is not a database\)"
        ):
            use(path)
    assert path.read_bytes() == content


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "h"
    write(path, [5.0] * 40)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * 4096 + whole[8192:])
    with pytest.raises(HistoryError, match="is not a history, or a damaged one"):
        read(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HistoryError, match="is not a history, or a damaged one"):
        read(path)


def test_another_program_s_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "h"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE runs (a)")
        database.commit()
    before = path.read_bytes()
    for use in (read, lambda path: append(path, record())):
        with pytest.raises(HistoryError, match="is another program's SQLite file, not a history of edgetl"):
            use(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h"
    append(path, record())
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 2")
        database.commit()
    for use in (read, lambda path: append(path, record())):
        with pytest.raises(
            HistoryError, match=r"written by a newer edgetl with schema 2; edgetl .* up to 1\."
        ):
            use(path)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        HistoryError, match=r"Cannot write the history .*file/h: (File exists|Not a directory)"
    ):
        append(tmp_path / "file" / "h", record())
    with pytest.raises(HistoryError, match="Cannot write the history"):
        append(tmp_path, record())


def test_an_empty_file_is_an_empty_history(tmp_path: Path) -> None:
    (tmp_path / "h").touch()
    assert read(tmp_path / "h").trends == ()
    append(tmp_path / "h", record())
    assert len(read(tmp_path / "h").trends) == 1
