"""One measurement at a time: processes of one user wait for each other, so that none slows another down."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from edgetl.files import cache_dir, storage_errors


@contextmanager
def alone() -> Iterator[None]:
    """Hold the user's measuring lock, waiting for it as long as it takes. A process that dies lets go of it.

    Raises:
        StorageError: the cache folder cannot be written.
    """
    path = cache_dir() / "measuring.lock"
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
