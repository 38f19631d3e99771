"""Settings of a process: for training on the CPU, memory and waiting threads; for a quick start, the collector.

None is about results: the same numbers come out.
"""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30
"""Bytes; smaller blocks are kept for the next step when they are freed."""
_SPINS = "100000"
"""Turns of a waiting thread before it sleeps: enough to bridge two layers of a single image."""
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def tune() -> None:
    """Tune this process; once, before torch is imported. What the user's environment sets stays as it is.

    A training step allocates and frees gigabytes of activations. glibc by default gives each large block back to
    the kernel and asks for it again in the next step, page by page; here it is kept until `release`. OpenMP's threads
    by default spin for milliseconds where they wait for each other, which costs most of the time where another process
    wants the cores; in addition, `edgetl.train.cores` gives each a core of its own. `make bench ONLY=finetune-speed`
    prints what all of it gains. A container's CPU quota, of which torch knows nothing, bounds the threads' number.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
        if (cores := usable_cores()) < len(physical_cores()):
            os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    if (mallopt := _libc("mallopt")) is not None:
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_MMAP_THRESHOLD, _KEPT)


def release() -> None:
    """Give free memory back to the kernel, where `tune` keeps it (glibc): a no-op elsewhere.

    Blocks of many sizes leave holes between those that live on. Kept for ever, they make the heap of a long training,
    whose steps differ in size, grow to several times of what a step takes.
    """
    trim = _libc("malloc_trim")
    if trim is not None:
        trim(0)


def _libc(name: str) -> Any:
    """A function of glibc; None where there is none, or the environment sets how memory is kept."""
    if not sys.platform.startswith("linux") or any(key.startswith("MALLOC_") for key in os.environ):
        return None
    import ctypes

    return getattr(ctypes.CDLL(None), name, None)


def usable_cores() -> int:
    """Cores that this process may use: its CPU affinity, cut by a container's CPU quota (cgroup v2)."""
    cores = len(_allowed())
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def physical_cores() -> list[int]:
    """Of the cores that this process may run on, the first of those that are one core's hardware threads.

    All of them where the system does not say which belong together.
    """
    first = dict[str, int]()
    for core in sorted(_allowed()):
        try:
            siblings = Path(_SIBLINGS.format(core)).read_text()
        except OSError:
            siblings = str(core)
        first.setdefault(siblings, core)
    return list(first.values())


def _allowed() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep the garbage collector off inside the block, for imports and loading: what these make lives on.

    Collecting in the midst of them finds nothing, and takes time of a device's start.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
