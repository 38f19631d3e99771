"""Locks between processes, held by the system: they end with the process, and a file that is left locks nothing."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from edgetl.errors import BusyError
from edgetl.files import storage_errors

_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
"""What a file system without locks answers."""
_FAR = 1 << 30
"""Windows locks bytes, and nobody can read those that are locked: one far behind the text is taken."""


_LATE_S = 0.5
"""How long the holder of a lock may take to say who it is."""
_open_here: set[IO[bytes]] = set()


@contextmanager
def only_one(path: Path, *, place: Path, command: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Be the only process that works in `place`, or refuse at once.

    Args:
        path: the lock's file; it stays, and means nothing while nobody holds it.
        place: the folder, for messages.
        command: what works there, for the message of another process.
        warn: called where the file system has no locks; the work goes on.

    Raises:
        BusyError: another process works there; the message names it.
        StorageError: the file cannot be written.
    """
    with _opened(path) as file:
        try:
            taken = _take(file, wait=False)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            taken = True
            warn(f"{place} is on a file system without locks: make sure that nothing else works there.")
        if not taken:
            raise BusyError(
                f"Another process works in {place}: {_holder(file)}. Wait for it, stop it, or choose another folder."
            )
        _write(file, command)
        try:
            yield
        finally:
            with contextlib.suppress(OSError, ValueError):
                file.truncate(0)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait for the others, and be the only process in the block: for reading a file and writing it anew.

    Where the file system has no locks nobody waits.

    Raises:
        StorageError: the file cannot be written.
    """
    with _opened(path) as file:
        _wait(file)
        yield


@contextmanager
def turn_at(path: Path) -> Iterator[None]:
    """As `turn`, with the file itself as the lock: for one that stands there and is replaced in the block.

    Raises:
        OSError: the file cannot be opened.
    """
    while True:
        with path.open("rb", buffering=0) as file:
            _wait(file)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return
        # Another process replaced it meanwhile: that one's lock counts.


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The lock's file; closed at once in processes that are forked, since a lock lives as long as any copy is open."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file: IO[bytes] = path.open("a+b", buffering=0)
    _once_registered()
    _open_here.add(file)
    try:
        with file:
            yield file
    finally:
        _open_here.discard(file)


@functools.cache
def _once_registered() -> None:
    def close() -> None:
        for file in _open_here:
            file.close()
        _open_here.clear()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)


def _wait(file: IO[bytes]) -> None:
    try:
        _take(file, wait=True)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _take(file: IO[bytes], *, wait: bool) -> bool:
    """Take the lock; False where another holds it."""
    while True:
        try:
            if sys.platform == "win32":
                import msvcrt

                file.seek(_FAR)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in _HELD:
                raise
            if not wait:
                return False
            time.sleep(0.1)


def _write(file: IO[bytes], command: str) -> None:
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": now, "command": command}
    with contextlib.suppress(OSError):  # A full disk is reported when something is written that counts.
        file.truncate(0)
        file.write(json.dumps(about).encode())


def _holder(file: IO[bytes]) -> str:
    """Who holds it, by what is written in the file."""
    last = time.monotonic() + _LATE_S
    while True:
        try:
            file.seek(0)
            about = json.loads(file.read().decode())
            return f"{about['command']} (process {about['pid']} on {about['host']}, since {about['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() > last:
                return "which one, it does not say"
            time.sleep(0.02)
