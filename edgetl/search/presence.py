"""Which workers are alive: each holds a lock of its own, which the system lets go when the process ends."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgetl.errors import BusyError
from edgetl.locks import only_one


def _silent(_: str) -> None:
    pass


@contextmanager
def present(folder: Path) -> Iterator[str]:
    """Be known as alive inside the block; gives the worker's name, `HOST/FOLDER/ID`."""
    own = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path = folder / f"{own}.lock"
    with only_one(path, place=folder, command="edgetl search", warn=_silent):
        yield f"{socket.gethostname()}:{path.absolute()}"
    path.unlink(missing_ok=True)


def is_dead(name: str) -> bool:
    """Whether a worker of this machine has ended; False for those of other machines, of which nothing is known."""
    host, _, file = name.partition(":")
    path = Path(file)
    if host != socket.gethostname() or not path.parent.is_dir():
        return False
    if not path.exists():
        return True
    try:
        with only_one(path, place=path.parent, command="edgetl search", warn=_silent):
            pass
    except BusyError:
        return False
    path.unlink(missing_ok=True)
    return True
