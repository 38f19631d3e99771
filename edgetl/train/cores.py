"""Each of torch's threads on a core of its own, while a network trains or is scored on the CPU.

A training step wakes its threads some thousand times. Linux may wake a thread on the core of the one that wakes it;
where another process runs on the other cores, the two then stay together, and each waits out the other's share of time.
`make bench ONLY=finetune-speed` prints what it costs next to a busy process. The results are the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from edgetl.process import physical_cores

_CHOSEN = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
"""Environment variables with which the user binds the threads."""


@contextmanager
def own_cores(device: torch.device) -> Iterator[None]:
    """Bind torch's threads, the caller's among them, to a core each inside the block.

    Threads that the block starts would share the caller's core. Nothing is bound where there are fewer threads than
    cores, since another process may have chosen the same ones, where the user has bound them, and on systems other
    than Linux or with another OpenMP than GNU's, where none of this was seen.

    Args:
        device: what computes; nothing is bound where it is not the CPU.
    """
    if device.type != "cpu":
        yield
        return
    cores = physical_cores() if hasattr(os, "sched_setaffinity") else []
    if len(cores) < 2 or len(cores) != torch.get_num_threads() or any(name in os.environ for name in _CHOSEN):
        yield
        return
    allowed = os.sched_getaffinity(0)
    team = _team(len(cores))
    try:
        for thread, core in zip(team, cores, strict=False):
            _move(thread, {core})
        yield
    finally:
        for thread in team:
            _move(thread, allowed)


def _team(count: int) -> list[int]:
    """The native ids of the threads that torch's parallel regions run on, the caller's first.

    GNU's OpenMP keeps them from one region to the next, so they are those that take part in a region of ours.
    """
    found = next((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"), None)
    if found is None:
        return []
    openmp, ids = ctypes.CDLL(str(found)), dict[int, int]()  # loaded already: the same one

    def note(_: int | None) -> None:
        ids[openmp.omp_get_thread_num()] = threading.get_native_id()

    region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(note)
    openmp.GOMP_parallel(region, None, ctypes.c_uint(count), ctypes.c_uint(0))
    return [ids[number] for number in sorted(ids)]


def _move(thread: int, cores: set[int]) -> None:
    with contextlib.suppress(OSError):  # it has ended, or a container forbids it
        os.sched_setaffinity(thread, cores)
