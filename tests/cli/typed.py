"""A command as a user types it, run in this process."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from dataclasses import dataclass

import pytest

from edgetl.cli import main


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def edgetl(*arguments: object) -> Done:
    """Run a command in this process: starting one with torch takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["edgetl", *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as leave:
                code = leave.code
    return Done(int(code or 0), out.getvalue(), err.getvalue())


def hears_ctrl_c() -> None:
    """For `preexec_fn`: a shell's background jobs ignore the signal, and so would a child of one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
