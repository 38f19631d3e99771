"""Where requests for one model wait, and the threads that answer them in batches.

A request waits in a bounded queue, decoded by nobody. A worker takes its share of what waits, decodes it, runs the
model on all of it at once, and makes the answers. On the CPU there are as many workers as keep all cores busy, each on
one core, as in `edgetl.runtime.stream`; a request that comes alone gets all cores. On a GPU two workers take turns,
and what they took is decoded side by side.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgetl.deploy.server.answers import Answer, busy
from edgetl.deploy.server.metrics import Metrics
from edgetl.deploy.server.options import Batching
from edgetl.inputs.frame import Frame
from edgetl.process import usable_cores
from edgetl.runtime.engines.table import engine_of
from edgetl.runtime.session import Session
from edgetl.tasks.base import Outputs

_CPU_BATCH, _CPU_BATCH_S = 8, 0.004
"""Most images per call on a CPU, and how long they may take: it gains nothing from batches but fewer turns between
threads, which count beside small networks alone."""
_GPU_WORKERS = 2
_GPU_WAIT_MS = 2.0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a job asks of the model: images, all (S, S, 3) uint8 or all (3, S, S) float32, with frames of pictures."""

    images: Sequence[NDArray[Any]] = ()
    frames: Sequence[Frame] = ()


class Job(Protocol):
    """One request's work, in a worker."""

    def rows(self, session: Session) -> Rows:
        """Decode and check it.

        Raises:
            Refusal, EdgetlError: it cannot be done; the others of its batch go on.
        """

    def answer(self, session: Session, outputs: Outputs, rows: Rows) -> Answer:
        """What its rows' outputs say; the arrays are its own."""


@dataclass(eq=False)
class _Waiting:
    job: Job
    future: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop
    since: float
    result: Answer | None = None
    error: BaseException | None = None


class Lane:
    """A session with its queue and workers.

    Args:
        session: closed when the lane is.
        name: of the model, for metrics.
        batching: how requests become batches.
        metrics: where to count.
    """

    def __init__(self, session: Session, name: str, batching: Batching, metrics: Metrics) -> None:
        self.session, self._name, self._batching, self._metrics = session, name, batching, metrics
        self._on_cpu = engine_of(session.choice.target).on_cpu
        fixed = session.backend.input.shape[0]
        self.max_batch = fixed or batching.max_batch or (_CPU_BATCH if self._on_cpu else session.batch)
        self._by_time = self._on_cpu and not (fixed or batching.max_batch)
        self._alone = 1 if self._on_cpu and not fixed else self.max_batch
        wait = batching.max_wait_ms
        self._wait_s = (0.0 if self._on_cpu else _GPU_WAIT_MS) / 1e3 if wait is None else wait / 1e3
        self._count = session.workers if self._on_cpu else _GPU_WORKERS
        self._pool = None if self._on_cpu else ThreadPoolExecutor(usable_cores(), "edgetl-decode")
        self._queue: deque[_Waiting] = deque()
        self._ready = threading.Condition()
        self._coming = self._busy = 0
        self._closing = False
        self._seconds_each = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"edgetl-serve-{number}", daemon=True)
            for number in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @contextmanager
    def expected(self) -> Iterator[None]:
        """A request is being read; a batch may wait for it."""
        self._coming += 1  # In the server's own thread alone.
        try:
            yield
        finally:
            self._coming -= 1
            if self._wait_s:  # Who waited for it need not any more.
                with self._ready:
                    self._ready.notify_all()

    def submit(self, job: Job) -> asyncio.Future[Answer]:
        """Let a job wait its turn; called in the server's own thread.

        Raises:
            Refusal: too many wait.
        """
        loop = asyncio.get_running_loop()
        with self._ready:
            if len(self._queue) >= self._batching.queue:
                raise busy(
                    f"{len(self._queue)} requests wait for {self._name}, and no more may.",
                    self.seconds_to_wait(),
                )
            waiting = _Waiting(job, loop.create_future(), loop, time.perf_counter())
            self._queue.append(waiting)
            self._ready.notify()
        return waiting.future

    def seconds_to_wait(self) -> int:
        """How long those that wait now will take, rounded up."""
        return max(1, min(60, math.ceil(len(self._queue) * self._seconds_each / self._count)))

    def close(self) -> None:
        """Answer all that wait, then free the model."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()
        if self._pool is not None:
            self._pool.shutdown()
        self.session.close()

    # --- workers --------------------------------------------------------------------------------------

    def _work(self) -> None:
        engine = _Engine(self.session, {True: self.max_batch, False: self._alone})
        while taken := self._next():
            began = time.perf_counter()
            batch, beside = taken
            try:
                self._do(batch, engine, beside=beside)
            finally:
                spent = time.perf_counter() - began
                with self._ready:
                    self._busy -= 1
                    each = spent / len(batch)
                    self._seconds_each = (
                        each if not self._seconds_each else 0.9 * self._seconds_each + 0.1 * each
                    )
                self._metrics.worked.observe(spent, self._name)
                _deliver(batch)

    def _next(self) -> tuple[list[_Waiting], bool] | None:
        """A share of what waits, and whether others work meanwhile; None when the lane closes and nothing waits."""
        with self._ready:
            while True:
                while not self._queue:
                    if self._closing:
                        return None
                    self._ready.wait()
                self._wait_for_more()
                if self._queue:  # Others may have taken all meanwhile.
                    break
            batch = [self._queue.popleft() for _ in range(self._share())]
            beside = self._busy > 0 or len(self._queue) > 0
            self._busy += 1
            if self._queue:  # Another one sleeps perhaps, since it was this one that heard of them.
                self._ready.notify()
        now = time.perf_counter()
        for one in batch:
            self._metrics.waited.observe(now - one.since, self._name)
        return batch, beside

    def _share(self) -> int:
        """How many of those that wait one worker takes."""
        if not self._on_cpu:
            return min(self.max_batch, len(self._queue))
        most = self.max_batch
        if self._by_time:
            most = min(most, int(_CPU_BATCH_S / self._seconds_each)) if self._seconds_each else 1
        return max(1, min(most, math.ceil(len(self._queue) / self._count)))

    def _wait_for_more(self) -> None:
        """Wait for requests that are being read, as long as the first one may."""
        if not self._wait_s:
            return
        until = self._queue[0].since + self._wait_s
        while self._queue and len(self._queue) < self.max_batch and self._coming and not self._closing:
            if (left := until - time.perf_counter()) <= 0 or not self._ready.wait(left):
                break

    def _do(self, batch: Sequence[_Waiting], engine: _Engine, *, beside: bool) -> None:
        """Fill each one's result or error."""
        if self._pool is not None and len(batch) > 1:
            found = list(self._pool.map(self._rows, batch))
        else:
            found = [self._rows(one) for one in batch]
        usable = [(one, rows) for one, rows in zip(batch, found, strict=True) if rows is not None]
        try:
            outputs = engine.run([image for _, rows in usable for image in rows.images], beside=beside)
        except Exception as error:  # It is every one's, and no client's: what they sent was checked.
            for one, _ in usable:
                one.error = RuntimeError(f"the engine failed: {error}")
                one.error.__cause__ = error
            return
        at = 0
        for one, rows in usable:
            count = len(rows.images)
            own = {name: array[at : at + count] for name, array in outputs.items()} if count else {}
            at += count
            try:
                one.result = one.job.answer(self.session, own, rows)
                self._metrics.images.add(self._name, by=max(1, count))
            except Exception as error:
                one.error = error
        if at:
            self._metrics.batches.observe(at, self._name)

    def _rows(self, one: _Waiting) -> Rows | None:
        if one.future.cancelled():
            return None
        if time.perf_counter() - one.since > self._batching.seconds:
            one.error = busy(
                f"The request waited {self._batching.seconds:g} s for {self._name}, which has too much to do.",
                self.seconds_to_wait(),
            )
            return None
        try:
            return one.job.rows(self.session)
        except Exception as error:
            one.error = error
            return None


@dataclass(eq=False)
class _Engine:
    """One worker's buffers: on all cores for a request that is alone, on one beside other workers."""

    session: Session
    counts: Mapping[bool, int]
    _buffers: dict[bool, Any] = field(default_factory=dict)

    def run(self, images: Sequence[NDArray[Any]], *, beside: bool) -> Mapping[str, NDArray[np.float32]]:
        """The outputs of images, pictures and tensors alike, in their order; arrays that nobody overwrites."""
        parts, start = list[Outputs](), 0
        while start < len(images):
            kind = images[start].dtype
            end = start + 1
            while end < len(images) and end - start < self.counts[beside] and images[end].dtype == kind:
                end += 1
            parts.append(self._part(images[start:end], beside=beside))
            start = end
        if not parts:
            return {}
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _part(self, images: Sequence[NDArray[Any]], *, beside: bool) -> Outputs:
        if beside not in self._buffers:
            self._buffers[beside] = self.session.buffers(self.counts[beside], beside=beside)
        buffers = self._buffers[beside]
        found = buffers.outputs(images) if images[0].dtype == np.uint8 else buffers.tensors(images)
        return {name: np.array(array) for name, array in found.items()}


def _deliver(batch: Sequence[_Waiting]) -> None:
    """Give the results to the server's thread, in one step for those of one loop."""
    loop = batch[0].loop

    def settle() -> None:
        for one in batch:
            if one.future.done():
                continue
            if one.error is not None:
                one.future.set_exception(one.error)
            elif one.result is not None:
                one.future.set_result(one.result)
            else:
                one.future.cancel()

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # The server has stopped, and nobody waits.
        return
