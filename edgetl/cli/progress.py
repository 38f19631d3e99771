"""Progress on standard error: bars with elapsed and remaining time on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from edgetl.progress import Progress, ProgressTask

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_SECONDS = 10.0
"""Away from a terminal, a task says how far it is at most so often."""
_WORTH_SAYING_SECONDS = 2.0


@contextmanager
def open_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Progress for a command: bars where `stream` (standard error unless given) is a terminal, else plain lines.

    No bar is left on the screen when the context closes, also by an exception.
    """
    stream = stream or sys.stderr
    if not stream.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        yield LineProgress(stream)
        return
    bars = BarProgress(stream)
    try:
        yield bars
    finally:
        bars.close()


class LineProgress:
    """Plain lines, rate-limited; for logs and pipes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        """See `Progress.task`."""
        task = _LineTask(description, total, self._write, self._clock)
        yield task
        task.finish()

    def message(self, text: str) -> None:
        """See `Progress.message`."""
        self._write(text)

    def warning(self, text: str) -> None:
        """See `Progress.warning`."""
        self._write(f"Warning: {text}")

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class _LineTask:
    def __init__(
        self, description: str, total: int, write: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._description, self._total, self._write, self._clock = description, total, write, clock
        self._done, self._note = 0, ""
        self._start = self._last = clock()
        self._lock = threading.Lock()

    def advance(self, steps: int = 1, note: str = "") -> None:
        with self._lock:
            self._done += steps
            self._note = note or self._note
            now = self._clock()
            if now - self._last < LINE_SECONDS or self._done >= self._total:
                return
            self._last = now
            elapsed = now - self._start
            left = elapsed * (self._total - self._done) / max(self._done, 1)
            times = f"{duration(elapsed)}, about {duration(left)} left"
            self._write(f"{self._description}: {self._done}/{self._total}, {times}{self._noted()}")

    def finish(self) -> None:
        """Say the end of what took long enough to be of interest."""
        elapsed = self._clock() - self._start
        if elapsed >= _WORTH_SAYING_SECONDS:
            self._write(
                f"{self._description}: {self._done}/{self._total} in {duration(elapsed)}{self._noted()}"
            )

    def _noted(self) -> str:
        return f", {self._note}" if self._note else ""


class BarProgress:
    """Bars on a terminal, drawn by rich only while a task is open, so that other output is not disturbed."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console: Console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._bars: Bars | None = None
        self._open = 0
        self._lock = threading.Lock()

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        """See `Progress.task`."""
        with self._lock:
            if self._bars is None:
                self._bars = _make_bars(self._console)
                self._bars.start()
            self._open += 1
            bars = self._bars
        number = bars.add_task(description, total=max(total, 1), note="")
        try:
            yield _BarTask(bars, number)
        finally:
            bars.remove_task(number)
            with self._lock:
                self._open -= 1
                if self._open == 0:
                    self._stop()

    def message(self, text: str) -> None:
        """See `Progress.message`."""
        self._console.print(text)

    def warning(self, text: str) -> None:
        """See `Progress.warning`."""
        from rich.text import Text

        self._console.print(Text("Warning: ", style="bold yellow").append(text, style="not bold default"))

    def close(self) -> None:
        """Take every bar off the screen."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class _BarTask:
    def __init__(self, bars: Bars, number: TaskID) -> None:
        self._bars, self._number = bars, number

    def advance(self, steps: int = 1, note: str = "") -> None:
        if note:
            self._bars.update(self._number, advance=steps, note=note)
        else:
            self._bars.update(self._number, advance=steps)


def _make_bars(console: Console) -> Bars:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=console,
        transient=True,
        redirect_stdout=False,
        refresh_per_second=8,
    )


def duration(seconds: float) -> str:
    """Whole seconds as `9 s`, `3:05`, `2:07:30`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
