"""The history file: one SQLite table, a row per benchmark, with its whole record next to the columns that are queried.

Writers lock the file for the moment of one insert and wait for each other, so that jobs may share it.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from edgetl._version import __version__
from edgetl.errors import HistoryError
from edgetl.records.bench import BenchRecord, HistoryRun
from edgetl.records.codec import to_json
from edgetl.shell import command

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6564676C  # "edgl": distinguishes this file from other SQLite files.
WAIT_S = 10.0
_SQLITE = b"SQLite format 3\0"
"""How SQLite's files begin. SQLite itself takes one of a few bytes for an empty one, and would write over it."""

_TABLE = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    git_commit TEXT NOT NULL,
    machine TEXT NOT NULL,
    name TEXT NOT NULL,
    variant TEXT NOT NULL,
    target TEXT NOT NULL,
    scenario TEXT NOT NULL,
    batch INTEGER NOT NULL,
    threads INTEGER NOT NULL,
    bundle_sha256 TEXT NOT NULL,
    metric TEXT NOT NULL,
    value REAL NOT NULL,
    p50_ms REAL NOT NULL,
    p90_ms REAL NOT NULL,
    p99_ms REAL NOT NULL,
    throughput REAL NOT NULL,
    load_ms REAL NOT NULL,
    peak_memory_bytes INTEGER NOT NULL,
    warnings INTEGER NOT NULL,
    record TEXT NOT NULL
)"""
_SUBJECT = ("machine", "name", "variant", "target", "scenario", "batch", "threads")
_FIGURES = (
    *("time", "git_commit", "bundle_sha256", "metric", "value", "p50_ms", "p90_ms", "p99_ms", "throughput"),
    *("load_ms", "peak_memory_bytes", "warnings"),
)

Subject = tuple[str, str, str, str, str, int, int]
"""Machine, name, variant, target, scenario, batch and threads: what must be equal for figures to be comparable."""


def append(
    path: Path, record: BenchRecord, *, now: datetime | None = None, commit: str | None = None
) -> None:
    """Add a benchmark to the history, which is made where there is none.

    Args:
        path: the history file.
        record: the benchmark.
        now: the time; that of the system's clock where unset.
        commit: the commit; that of the working folder where unset.

    Raises:
        HistoryError: the file is no history, of a newer edgetl, locked, or cannot be written.
    """
    timed, footprint = record.latency, record.footprint
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    row: dict[str, str | int | float] = {
        "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "git_commit": git_commit() if commit is None else commit,
        "machine": record.machine.fingerprint,
        "name": record.name,
        "variant": record.variant,
        "target": record.target,
        "scenario": record.scenario,
        "batch": timed.batch,
        "threads": timed.threads,
        "bundle_sha256": record.bundle_sha256,
        "metric": record.metric,
        "value": record.value,
        "p50_ms": timed.p50_ms,
        "p90_ms": timed.p90_ms,
        "p99_ms": timed.p99_ms,
        "throughput": timed.throughput,
        "load_ms": footprint.load_ms,
        "peak_memory_bytes": footprint.peak_memory_bytes,
        "warnings": len(record.warnings),
        "record": json.dumps(to_json(record), ensure_ascii=False, allow_nan=False),
    }
    with _opened(path, write=True) as database:
        database.execute("BEGIN IMMEDIATE")
        if not _version(database, path):
            database.execute(_TABLE)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        names, marks = ", ".join(row), ", ".join("?" for _ in row)
        database.execute(f"INSERT INTO runs ({names}) VALUES ({marks})", list(row.values()))
        database.execute("COMMIT")


def runs_by_subject(path: Path) -> dict[Subject, list[HistoryRun]]:
    """Every subject's runs, oldest first; subjects in the order of their latest run, the latest last.

    Raises:
        HistoryError: there is no such file, or it is no history, of a newer edgetl, or locked.
    """
    if not path.exists():
        raise HistoryError(
            f"There is no history at {path}. Write one with: {command('bench', 'BUNDLE', '--history', path)}"
        )
    found: dict[Subject, list[HistoryRun]] = {}
    with _opened(path, write=False) as database:
        if not _version(database, path):
            return {}
        columns = ", ".join((*_SUBJECT, *_FIGURES))
        for row in database.execute(f"SELECT {columns} FROM runs ORDER BY time, id"):
            subject, figures = row[: len(_SUBJECT)], row[len(_SUBJECT) :]
            values = dict(zip(_FIGURES, figures, strict=True))
            run = HistoryRun(commit=values.pop("git_commit"), **values)
            found.setdefault(subject, []).append(run)
    return dict(sorted(found.items(), key=lambda item: item[1][-1].time))


def git_commit() -> str:
    """The commit of the working folder, with `-dirty` where files differ from it; empty outside of git."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@contextmanager
def _opened(path: Path, *, write: bool) -> Iterator[sqlite3.Connection]:
    """Open the file, and say SQLite's errors in one sentence."""
    mode = "rwc" if write else "ro"
    try:
        if path.is_file() and not _SQLITE.startswith(_head(path)):
            raise sqlite3.DatabaseError("file is not a database")
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
        address = f"{path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=WAIT_S, isolation_level=None)) as database:
            yield database
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise HistoryError(
                f"The history {path} was locked by another program for {WAIT_S:g} s; nothing was written. Try again."
                if write
                else f"The history {path} was locked by another program for {WAIT_S:g} s. Try again."
            ) from error
        raise HistoryError(f"Cannot {'write' if write else 'read'} the history {path}: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise HistoryError(
            f"{path} is not a history, or a damaged one ({error}). Move it away; bench then starts a new one."
        ) from error
    except OSError as error:
        raise HistoryError(f"Cannot write the history {path}: {error.strerror}.") from error


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_SQLITE))


def _version(database: sqlite3.Connection, path: Path) -> int:
    """The file's schema version, 0 for a new file.

    Raises:
        HistoryError: it is another program's file, or a newer edgetl's.
    """
    (identity,), (version,) = (
        database.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and not identity:
        return 0
    if identity != APPLICATION_ID:
        raise HistoryError(
            f"{path} is another program's SQLite file, not a history of edgetl. Choose another name."
        )
    if version > SCHEMA_VERSION:
        raise HistoryError(
            f"{path} was written by a newer edgetl with schema {version}; edgetl {__version__} reads up to "
            f"{SCHEMA_VERSION}. Upgrade edgetl, or choose another file."
        )
    return int(version)
