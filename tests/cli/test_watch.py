"""A stage that dies by a signal is named, with what to try; the exit code is the signal's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl.failures import death

PROGRAM = """
import os, sys, signal
from edgetl.cli.watch import watched
with watched("edgetl run 'a b.toml'") as begins:
    begins("data")
    begins("train")
    child = os.fork() if "child" in sys.argv else 1
    if child == 0:
        os.execvp("sleep", ["sleep", "0"]) if "exec" in sys.argv else os._exit(0)
    how = sys.argv[1]
    if how == "crash":
        import ctypes
        ctypes.string_at(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "raise":
        raise ValueError("a bug")
"""


def _end(*how: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *how], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("child", [(), ("child",)])
def test_a_crash_of_native_code_names_the_stage_and_the_place(child: tuple[str, ...]) -> None:
    code, stated = _end("crash", *child)
    assert code == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in stated
    assert 'File "<string>"' in stated
    assert (
        "Error: edgetl died in the stage train (Segmentation fault): native code of a library crashed."
        in stated
    )
    assert stated.rstrip().endswith("go on with: edgetl run 'a b.toml'")


def test_a_kill_names_the_stage_and_the_likely_reason() -> None:
    code, stated = _end("kill")
    assert code == -signal.SIGKILL
    assert "edgetl was killed in the stage train" in stated
    assert "train.batch_size" in stated


def test_nothing_is_said_of_a_process_that_ends_by_itself() -> None:
    assert _end("end") == (0, "")
    code, stated = _end("raise")
    assert code == 1
    assert stated.rstrip().endswith("ValueError: a bug")


def test_a_stage_of_a_run_that_dies(tmp_path: Path) -> None:
    """The command line itself, with a backbone whose making kills the process."""
    (tmp_path / "r.toml").write_text('[data]\nsource = "digits"\n')
    program = (
        "import os, signal, sys\n"
        "from edgetl import pipeline\n"
        "from edgetl.cli import process\n"
        "pipeline.flow.resolve = lambda recipe: recipe\n"
        "pipeline.flow.Run._data = lambda self: os.kill(os.getpid(), signal.SIGABRT)\n"
        "sys.argv = ['edgetl', 'finetune', 'r.toml', '--set', 'train.epochs=2']\n"
        "process()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == -signal.SIGABRT
    assert "edgetl died in the stage data (Aborted)" in done.stderr
    assert done.stderr.rstrip().endswith("go on with: edgetl finetune r.toml --set train.epochs=2")


def test_how_a_child_ended() -> None:
    assert (death(-9), death(-11), death(-123), death(3)) == (
        "signal SIGKILL",
        "signal SIGSEGV",
        "signal 123",
        "exit code 3",
    )
