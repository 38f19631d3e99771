"""Work on many images in threads: Pillow and hashing leave the interpreter's lock while they work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from edgetl.process import usable_cores
from edgetl.progress import Progress

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 64
"""Items a task: few enough for a lively progress bar, many enough that handing over costs nothing."""


def threads() -> int:
    """Threads that this process may use well: the cores that it may run on, at most 32."""
    return min(32, usable_cores())


def in_threads(
    work: Callable[[T], R], items: Sequence[T], *, description: str, progress: Progress, chunk: int = CHUNK
) -> Iterator[list[R]]:
    """Yield the results of `work` on each item, in order, a list for every `chunk` items.

    At most a few chunks are under way or waiting to be taken, so results of any size may be streamed. The
    first exception, or Ctrl-C, drops what has not begun.
    """

    def batch(start: int) -> list[R]:
        return [work(item) for item in items[start : start + chunk]]

    count = threads()
    pool = ThreadPoolExecutor(count)
    waiting: list[Future[list[R]]] = []
    starts = iter(range(0, len(items), chunk))
    try:
        with progress.task(description, len(items)) as task:
            while True:
                while len(waiting) < 2 * count and (start := next(starts, None)) is not None:
                    waiting.append(pool.submit(batch, start))
                if not waiting:
                    return
                results = waiting.pop(0).result()
                task.advance(len(results))
                yield results
    finally:
        # Not waited for: a generator that was left may be collected in a thread that is just starting.
        pool.shutdown(wait=False, cancel_futures=True)
