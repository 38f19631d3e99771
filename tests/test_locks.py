"""Locks and shared files, each with two real processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgetl import locks
from edgetl.errors import BusyError
from edgetl.locks import only_one, turn, turn_at

HOLD = """
import sys, time
from pathlib import Path
from edgetl.locks import only_one
with only_one(Path(sys.argv[1]), place=Path("runs/a"), command="edgetl run 'a b.toml'", warn=print):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def _take(path: Path) -> None:
    with only_one(path, place=path.parent, command="edgetl run", warn=pytest.fail):
        pass


def test_a_second_process_is_refused_and_told_which_is_the_first(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holding(path) as process:
        with pytest.raises(BusyError) as caught:
            _take(path)
        text = str(caught.value)
        assert (
            f"works in {tmp_path}: edgetl run 'a b.toml' (process {process.pid} on {os.uname().nodename}, since 2"
            in text
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.read_text()  # what is left behind locks nothing
        _take(path)
    assert path.read_text() == ""


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    reading, writing = os.pipe()
    ready, say_ready = os.pipe()
    with only_one(path, place=tmp_path, command="x", warn=pytest.fail):
        child = os.fork()
        if child == 0:
            os.write(say_ready, b".")
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        os.read(ready, 1)
    _take(path)
    os.close(writing)
    os.waitpid(child, 0)


def test_where_a_file_system_has_no_locks_that_is_said_and_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    said: list[str] = []
    with only_one(tmp_path / ".lock", place=tmp_path, command="x", warn=said.append):
        pass
    assert said == [f"{tmp_path} is on a file system without locks: make sure that nothing else works there."]
    with turn(tmp_path / ".lock"):
        pass


def test_a_holder_that_does_not_say_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_LATE_S", 0.0)
    path = tmp_path / ".lock"
    with holding(path):
        path.write_text("[")
        with pytest.raises(BusyError, match="which one, it does not say"):
            _take(path)


def test_a_turn_at_a_file_that_is_replaced_is_one_at_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    run_two(
        """
        import os, sys
        from pathlib import Path
        from edgetl.files import write_text
        from edgetl.locks import turn_at
        path = Path(sys.argv[1])
        for _ in range(50):
            with turn_at(path):
                write_text(path, str(int(path.read_text()) + 1))
        """,
        path,
    )
    assert path.read_text() == "100"
    with pytest.raises(FileNotFoundError), turn_at(tmp_path / "none"):
        pass


def run_two(source: str, *arguments: object) -> list[str]:
    """Run a program in two processes at once; what each printed. Both must end well."""
    import textwrap

    command = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
    started = [
        subprocess.Popen([*command, number], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in "12"
    ]
    ended = [process.communicate(timeout=120) for process in started]
    assert [p.returncode for p in started] == [0, 0], [error[-2000:] for _, error in ended]
    return [out for out, _ in ended]
