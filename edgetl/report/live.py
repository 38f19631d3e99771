"""What a run is doing, kept as it goes on and written to its page: which stage, since when, how far, what came out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never

from edgetl import files
from edgetl.errors import StorageError
from edgetl.progress import Progress, ProgressTask
from edgetl.records.adapt import NO_METHOD, AdaptRecord
from edgetl.records.prune import PruneRecord
from edgetl.records.scores import value
from edgetl.records.train import DataRecord, EpochRecord, PretrainRecord, TrainRecord
from edgetl.records.variants import BundleRecord, ExportRecord, MeasureRecord, QuantizeRecord
from edgetl.report import units
from edgetl.report.run import ratio, shipped_variant

_SELDOM_S = 5.0
"""The page is written at most so often, but for the begin and the end of a stage."""
_MESSAGES = 40
NOT_ASKED = "not asked for"
"""What came out of a stage that the recipe leaves out."""


@dataclass(frozen=True, kw_only=True)
class LiveStage:
    """One stage: when its work began, how long it took (None while it runs), and what came out in a few words.

    `begun` is None where nothing had to be done.
    """

    name: str
    begun: datetime | None = None
    seconds: float | None = None
    came_to: str = ""


@dataclass(frozen=True, kw_only=True)
class LiveTask:
    """One bar: `done` of `total` steps since `begun`, and the short figure beside it."""

    description: str
    done: int
    total: int
    begun: datetime
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class LiveRun:
    """A run that is under way, or ended before its report.

    Attributes:
        name: the run's name.
        stages: all that were begun, in order.
        left: names of those that are still to come.
        tasks: open bars, the outer ones first.
        epochs: of training that this process did.
        messages: the latest, oldest first.
        warnings: all of them.
        begun: when the run began.
        written: when this was so.
        ended: why it does not go on, in a sentence; empty while it does.
    """

    name: str
    begun: datetime
    written: datetime
    stages: tuple[LiveStage, ...] = ()
    left: tuple[str, ...] = ()
    tasks: tuple[LiveTask, ...] = ()
    epochs: tuple[EpochRecord, ...] = ()
    messages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ended: str = ""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class LivePage:
    """A progress that passes everything on and keeps the run's page up to date.

    Nothing is written before a stage has work to do, so that a run of which all is up to date leaves its report alone.

    Attributes:
        inner: the progress that is passed on to.
        path: of the page.
        render: makes the page of what is known.
        known: what is.
        clock: seconds, for how seldom it is written.
        now: the time of day.
    """

    inner: Progress
    path: Path
    render: Callable[[LiveRun], str]
    known: LiveRun
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = _now
    _works: bool = field(default=False, init=False)
    _last: float = field(default=float("-inf"), init=False)
    _tasks: dict[int, LiveTask] = field(default_factory=dict, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def begins(self, stage: str) -> None:
        """A stage is looked at; whether it has work to do is known later."""
        left = tuple(name for name in self.known.left if name != stage)
        self._change(stages=(*self.known.stages, LiveStage(name=stage)), left=left)

    def works(self, _: str) -> None:
        """The stage that was begun, or a part of it, has work to do."""
        *before, stage = self.known.stages
        self._works = True
        self._change(stages=(*before, replace(stage, begun=stage.begun or self.now())))
        self._write(at_once=True)

    def done(self, seconds: float, came_to: str) -> None:
        """The stage that was begun is done; `seconds` of work, of this run or of an earlier one."""
        *before, stage = self.known.stages
        self._change(stages=(*before, replace(stage, seconds=seconds, came_to=came_to)))
        self._write(at_once=True)

    def ends(self, why: str) -> None:
        """The run does not go on, and has no report; the page no longer loads itself again."""
        self._tasks.clear()
        self._change(ended=why)
        self._write(at_once=True)

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        """See `Progress.task`."""
        with self.inner.task(description, total) as inner:
            own = _Counted(self, inner)
            with self._lock:
                self._tasks[id(own)] = LiveTask(
                    description=description, done=0, total=total, begun=self.now()
                )
            try:
                yield own
            finally:
                with self._lock:
                    self._tasks.pop(id(own), None)

    def message(self, text: str) -> None:
        """See `Progress.message`."""
        self.inner.message(text)
        self._change(messages=(*self.known.messages, text)[-_MESSAGES:])
        self._write()

    def warning(self, text: str) -> None:
        """See `Progress.warning`."""
        self.inner.warning(text)
        self._change(warnings=tuple(dict.fromkeys((*self.known.warnings, text))))
        self._write()

    def epoch(self, record: EpochRecord) -> None:
        """See `edgetl.progress.TakesEpochs`."""
        self._change(epochs=(*self.known.epochs, record))
        self._write()

    def advanced(self, own: int, steps: int, note: str) -> None:
        """A bar moved on."""
        with self._lock:
            if (task := self._tasks.get(own)) is not None:
                self._tasks[own] = replace(task, done=task.done + steps, note=note or task.note)
        self._write()

    def _change(self, **fields: object) -> None:
        with self._lock:
            self.known = replace(self.known, **fields)  # type: ignore[arg-type]

    def _write(self, *, at_once: bool = False) -> None:
        with self._lock:
            now = self.clock()
            if not self._works or (now - self._last < _SELDOM_S and not at_once):
                return
            self._last = now
            known = replace(self.known, tasks=tuple(self._tasks.values()), written=self.now())
            try:
                files.write_text(self.path, self.render(known))
            except StorageError as error:  # the run matters more than its page
                self._works = False
                self.inner.warning(f"The page of the running run is no longer written. {error}")


class _Counted:
    """A bar that is passed on and counted."""

    def __init__(self, page: LivePage, inner: ProgressTask) -> None:
        self._page, self._inner = page, inner

    def advance(self, steps: int = 1, note: str = "") -> None:
        """See `ProgressTask.advance`."""
        self._inner.advance(steps, note)
        self._page.advanced(id(self), steps, note)


StageRecord = (
    DataRecord
    | PretrainRecord
    | TrainRecord
    | AdaptRecord
    | PruneRecord
    | ExportRecord
    | QuantizeRecord
    | MeasureRecord
    | BundleRecord
)
"""What the stages of a run return."""


def came_to(record: StageRecord | None) -> str:
    """What came out of a stage, in a few words; None where it was not asked for."""
    match record:
        case None:
            return NOT_ASKED
        case DataRecord():
            classes = units.counted(len(record.labels), "class")
            return f"{units.counted(record.images(), 'image')} of {classes}"
        case PretrainRecord():
            taught = units.counted(record.images, "image")
            before, after = (units.percent(one) for one in (record.probe.before, record.probe.after))
            return f"{record.kind}, {taught}: linear probe {before} to {after}"
        case TrainRecord():
            name, found = next(iter(record.val.scores.items()))
            return f"{units.metric(name)} {units.percent(found.value)} on validation"
        case AdaptRecord():
            kept = "the teacher stays as it was" if record.method == NO_METHOD else record.method
            name, found = next(iter(record.val.scores.items()))
            return f"{kept}, {units.metric(name)} {units.percent(found.value)} on validation"
        case PruneRecord():
            if record.note or not record.steps:
                return record.note
            left = units.percent(ratio(record.after.macs, record.before.macs), 0)
            score = f"{units.metric(record.metric)} {units.percent(record.steps[-1].score)}"
            return f"{left} of the multiply-accumulates left, {score}"
        case ExportRecord():
            return f"{units.bytes_(record.size_bytes)}, the same answers as torch on {units.percent(record.same)}"
        case QuantizeRecord():
            return units.counted(len(record.variants), "variant")
        case MeasureRecord():
            shipped = shipped_variant(record)
            score = f"{units.metric(record.metric)} {units.percent(value(shipped.val, record.metric))}"
            return f"{shipped.name} ships: {units.milliseconds(shipped.latency.p50_ms)}, {score}"
        case BundleRecord():
            return f"{record.path}, {units.bytes_(record.size_bytes)}"
        case _:
            assert_never(record)
