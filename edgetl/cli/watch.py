"""A crash of native code, or a kill, leaves a process no word: another, small one says what it was doing.

It holds the other end of a pipe, and hears that the process ended, and what Python's fault handler wrote at the end.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ours: list[bool] = []
"""Not empty where `report_crashes` switched the fault handler on."""
_STAGE, _DONE = b"\x01stage ", b"\x01done"

# Without imports of ours, isolated and without site: it starts in milliseconds and takes little memory.
_WATCHER = r"""
import sys
stage, done, fault = "", False, ""
for line in sys.stdin.buffer:
    if line.startswith(b"\x01stage "):
        stage = line[7:].strip().decode()
    elif line.startswith(b"\x01done"):
        done = True
    else:
        text = line.decode("utf-8", "backslashreplace")
        if text.startswith("Fatal Python error: "):
            fault = text[20:].strip()
        sys.stderr.write(text)
if not done:
    where = "in the stage " + stage if stage else "before its first stage"
    if fault:
        said = "edgetl died %s (%s): native code of a library crashed. Try another network (train.backbone) or image " \
            "size, train.compile = false, or one thread (OMP_NUM_THREADS=1)." % (where, fault)
    else:
        said = "edgetl was killed %s, by the system or by a person. Most often memory ran out: try a smaller " \
            "train.batch_size or preprocess.size." % where
    sys.stderr.write("\nError: %s Finished work is saved; go on with: %s\n" % (said, sys.argv[1]))
    sys.stderr.flush()
"""


@contextmanager
def watched(command: str) -> Iterator[Callable[[str], None]]:
    """Have it said on standard error if this process dies inside the block; gives a function that takes the stage.

    Args:
        command: what goes on afterwards.
    """
    reading, writing = os.pipe()
    watcher: subprocess.Popen[bytes] | None = None
    with contextlib.suppress(OSError):
        # A session of its own: Ctrl-C is for this process.
        watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _WATCHER, command],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    os.close(reading)
    # The user's own (PYTHONFAULTHANDLER), or a test's, stays where it is.
    owner, taken = os.getpid(), not faulthandler.is_enabled() or bool(_ours)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _close_copy(writing, owner, still))
    still = [True]
    if taken:
        faulthandler.enable(writing)
    try:
        yield lambda stage: _say(writing, _STAGE + stage.encode())
    finally:
        if taken:
            faulthandler.disable()
            report_crashes()
        if still[0] and os.getpid() == owner:
            _say(writing, _DONE)
            os.close(writing)
            if watcher is not None:
                watcher.wait()
        still[0] = False


def report_crashes() -> None:
    """Have Python say where it was when native code crashes, on standard error."""
    if not faulthandler.is_enabled():
        with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):
            faulthandler.enable(sys.__stderr__)  # type: ignore[arg-type]
            _ours.append(True)


def require_train() -> None:
    """What every command that makes models does first.

    Raises:
        MissingDependencyError: packages of the extra `train` are not installed.
    """
    from edgetl.packages import missing_host

    report_crashes()
    if (error := missing_host()) is not None:
        raise error


def _say(writing: int, line: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(writing, line + b"\n")


def _close_copy(writing: int, owner: int, still: list[bool]) -> None:
    """In a forked child: as long as its copy is open the watcher would wait for it."""
    if still[0] and os.getpid() != owner:
        still[0] = False
        faulthandler.disable()
        with contextlib.suppress(OSError):
            os.close(writing)
