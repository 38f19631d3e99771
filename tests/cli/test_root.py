"""What was typed, which exit code each error has, and streams that lead nowhere."""

from __future__ import annotations

import errno
import inspect
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from edgetl import cli, errors
from edgetl.cli import app, root
from edgetl.errors import EdgetlError, Interrupted, MissingDependencyError
from edgetl.failures import explain
from tests.cli.typed import edgetl

ROOT = Path(__file__).parents[2]


def _every_error() -> Iterator[EdgetlError]:
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, MissingDependencyError):
            yield kind("x", "Install x.")
        elif issubclass(kind, EdgetlError):
            yield kind("why it is so")


def _commands() -> list[str]:
    group = typer.main.get_command(app)
    found = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found += [f"{name} {inner}".strip() for inner in getattr(command, "commands", {"": command})]
    return found


def _raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def examine() -> None:
        raise error

    monkeypatch.setattr("edgetl.runtime.doctor.examine", examine)


@pytest.mark.parametrize("error", list(_every_error()), ids=lambda error: type(error).__name__)
def test_each_class_of_the_error_tree_has_its_exit_code(
    error: EdgetlError, monkeypatch: pytest.MonkeyPatch
) -> None:
    _raising(error, monkeypatch)
    done = edgetl("doctor")
    assert done.returncode == (130 if isinstance(error, Interrupted) else 2) == type(error).exit_code
    assert str(error) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        *(
            (OSError(number, os.strerror(number), "a b/c"), "Error: a b/c: ")
            for number in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EMFILE, errno.ESTALE)
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Error: Its reader has gone."),
        (OSError(errno.EXDEV, "x", "a", None, "b"), "Error: a to b: it would move"),
        (OSError(511, "Something new", "x"), "Error: x: something new."),
        (ValueError("embedded null byte"), "Error: A name of a file holds a null character"),
        (RuntimeError("Could not determine home directory."), "Error: A home folder cannot be found"),
        (MemoryError(), "Error: Not enough memory."),
        (
            UnicodeEncodeError(sys.getfilesystemencoding(), "caf\udce9", 3, 4, "surrogates not allowed"),
            "cannot be the name of a file here",
        ),
    ],
    ids=repr,
)
def test_what_the_machine_refuses_is_one_sentence(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _raising(error, monkeypatch)
    done = edgetl("doctor")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "error", [KeyError("x"), OSError("a library's own"), EOFError("np"), ValueError("x")]
)
def test_a_bug_keeps_its_traceback_and_does_not_look_like_a_gate(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert explain(error) is None
    _raising(error, monkeypatch)
    done = edgetl("doctor")
    assert done.returncode == cli.BUG == 70
    assert "Traceback" in done.stderr


def test_ctrl_c_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _raising(KeyboardInterrupt(), monkeypatch)
    done = edgetl("doctor")
    assert (done.returncode, done.stderr) == (130, "Stopped.\n")


# --- what was typed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "script", "program"),
    [
        (["python", "-m", "edgetl", "run"], "/x/edgetl/__main__.py", ["python", "-m", "edgetl"]),
        (["py", "-X", "-m", "edgetl"], "x", ["py", "-X", "-m", "edgetl"]),
        (["python", "-m", "pytest"], "/x/pytest/__main__.py", ["edgetl"]),
        (["python", "/v/bin/edgetl", "run"], "/v/bin/edgetl", ["/v/bin/edgetl"]),
        (["python", "edgetl"], "edgetl", ["edgetl"]),
    ],
)
def test_the_program_is_named_as_it_was_started(words: list[str], script: str, program: list[str]) -> None:
    assert root._program(words, script) == program


def test_a_launcher_is_named_too() -> None:
    two = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}
    assert root._launcher({}) == []
    assert root._launcher(two) == ["torchrun", "--nproc-per-node", "2", "--no-python"]
    several = {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}
    assert root._launcher(several)[:3] == ["torchrun", "--nnodes", "2"]
    assert root._launcher({**two, "ACCELERATE_MIXED_PRECISION": "no"})[:2] == ["accelerate", "launch"]


# --- wrong words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _commands())
def test_a_slip_of_the_pen_is_answered_with_the_right_word(name: str) -> None:
    *group, last = name.split()
    done = edgetl(*group, f"{last[:-1]}x{last[-1]}")
    assert done.returncode == 2
    assert f"Did you mean '{last}'" in " ".join(done.stderr.split())
    done = edgetl(*name.split(), "--jsno")
    assert done.returncode == 2
    assert "No such option: --jsno" in " ".join(done.stderr.split())


def test_every_command_helps_in_twenty_columns_and_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {"COLUMNS": "20", "TERM": "dumb", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(variable, value)
    for name in ["", *_commands()]:
        done = edgetl(*name.split(), "--help")
        assert done.returncode == 0, name
        assert "Usage" in done.stdout


# --- streams --------------------------------------------------------------------------------------------------

ASCII = {
    "LANG": "C",
    "LC_ALL": "POSIX",
    "PYTHONIOENCODING": "ascii:strict",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "COLUMNS": "20",
}


def _shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'edgetl() {{ "{sys.executable}" -m edgetl "$@"; }}; {line}'],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("edgetl --help > /dev/full", "no space left on the device"),
        ("edgetl --version >&-", "it is closed"),
    ],
)
def test_a_standard_output_that_takes_nothing_is_an_error(line: str, said: str) -> None:
    done = _shell(line)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: Standard output cannot be written: {said}")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_gone_is_no_error() -> None:
    done = _shell("edgetl info --help | true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")


def test_a_reader_that_goes_between_two_lines_ends_the_command_and_what_it_had_open() -> None:
    from edgetl.cli import streams

    reading, writing = os.pipe()
    guard = streams._Output(io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True))
    guard.write("one\n")
    os.close(reading)
    with pytest.raises(SystemExit) as ended:
        guard.write("two\n")
    assert ended.value.code == 141
    guard.write("nowhere\n")
    guard.flush()
    guard.close()


def test_a_standard_error_that_takes_nothing_stops_nothing() -> None:
    done = _shell("edgetl info nope 2> /dev/full; one=$?; edgetl --version 2>&-; echo $one $?")
    assert done.stdout.split()[-2:] == ["2", "0"]


def test_streams_that_only_know_ascii() -> None:
    done = _shell(
        "edgetl info 'café/$(printf '\\xe9')'; edgetl run; edgetl --version; edgetl info --help", **ASCII
    )
    assert "Traceback" not in done.stderr
    assert "There is no bundle at caf" in done.stderr
    assert done.stdout.isascii()


def test_a_guard_takes_what_a_text_stream_takes() -> None:
    from edgetl.cli import streams

    inner = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    guard = streams._Output(inner)
    guard.writelines(["é", "\udce9\n"])
    guard.flush()
    assert inner.buffer.getvalue() == b"\\xe9\\udce9\n"  # type: ignore[attr-defined]
    assert (guard.encoding, guard.isatty()) == ("ascii", False)


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("torch", [True, False])
def test_a_process_with_torch_leaves_at_once_but_for_what_is_registered(torch: bool, code: int) -> None:
    program = f"""
import atexit, sys
from edgetl import cli
class Part:
    def __del__(self):
        print("taken apart")
def main():
    atexit.register(print, "the last word")
    print("the first word", end=" ")
    sys.exit({code})
part, cli.main = Part(), main
sys.modules.update({{"torch": sys}} if {torch} else {{}})
cli.process()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == "the first word the last word\n" + ("" if torch else "taken apart\n")
