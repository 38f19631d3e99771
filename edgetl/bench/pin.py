"""One core per thread: the caller's on the first, the engine's on the others, so that the scheduler moves none.

Linux gives a new thread the cores of the thread that starts it, and lets every thread of a process be moved later. So
this works for any engine that keeps its threads, and what holds is read back from the system.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgetl.errors import ConfigError, MissingDependencyError
from edgetl.runtime.engines.onnxruntime import import_engine

_TASKS = Path("/proc/self/task")
# Python's own threads are not the engine's, and those that end just now are still listed for a moment.
_END_S = 0.05


class Pin:
    """The cores of a block under `pinned`."""

    def __init__(self, cores: Sequence[int]) -> None:
        self._cores, self._before = tuple(cores), _threads()

    def spread(self) -> tuple[int, ...]:
        """Give the caller the first core and each thread of the engine that started since the next, round and round.

        Returns:
            The core of the caller, then that of each thread, as the system reports them; empty without cores.
        """
        if not self._cores:
            return ()
        time.sleep(_END_S)
        ours = {thread.native_id for thread in threading.enumerate()}
        started = sorted(_threads() - self._before - ours)
        for place, thread in enumerate([0, *started]):
            _move(thread, {self._cores[place % len(self._cores)]})
        held = [os.sched_getaffinity(thread) for thread in [0, *started] if thread in {0, *_threads()}]
        return tuple(min(cores) for cores in held)


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[Pin]:
    """Keep the calling thread, and threads that it starts, on `cores` inside the block; everywhere where empty.

    Raises:
        ConfigError: the system cannot, or this process may not use such a core.
    """
    if not cores:
        yield Pin(())
        return
    if sys.platform != "linux":
        raise ConfigError(f"--pin needs Linux, this is {sys.platform}: leave it out.")
    allowed = os.sched_getaffinity(0)
    if missing := sorted(set(cores) - allowed):
        raise ConfigError(
            f"--pin: core {', '.join(map(str, missing))} is not among those that this process may use "
            f"({', '.join(map(str, sorted(allowed)))})."
        )
    with contextlib.suppress(MissingDependencyError):
        import_engine()  # It keeps an idle thread of its own from then on, which is none of the model's.
    os.sched_setaffinity(0, set(cores))
    try:
        yield Pin(cores)
    finally:
        os.sched_setaffinity(0, allowed)


def parse_cores(listed: str) -> tuple[int, ...]:
    """`0,2-3` as (0, 2, 3).

    Raises:
        ConfigError: it is not such a list, or names a core twice.
    """
    cores: list[int] = []
    try:
        for part in listed.split(","):
            first, dash, last = part.partition("-")
            cores += range(int(first), int(last if dash else first) + 1)
    except ValueError:
        cores = []
    if not cores or len(set(cores)) != len(cores) or not all(part.strip() for part in listed.split(",")):
        raise ConfigError(f"--pin: got {listed!r}, expected cores such as 0,1 or 2-3, each once.")
    return tuple(cores)


def _threads() -> set[int]:
    try:
        return {int(entry.name) for entry in _TASKS.iterdir()}
    except OSError:
        return set()


def _move(thread: int, cores: set[int]) -> None:
    try:
        os.sched_setaffinity(thread, cores)
    except ProcessLookupError:  # It has ended meanwhile.
        return
