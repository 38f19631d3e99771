"""One measurement at a time: processes of one user wait for each other, so that none slows another down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgetl.files import cache_dir
from edgetl.locks import turn


@contextmanager
def alone() -> Iterator[None]:
    """Hold the user's measuring lock, waiting for it as long as it takes. A process that dies lets go of it.

    Raises:
        StorageError: the cache folder cannot be written.
    """
    with turn(cache_dir() / "measuring.lock"):
        yield
