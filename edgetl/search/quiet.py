"""One worker times while the others hold still: training next to it would be timed too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgetl.locks import turn
from edgetl.progress import Progress, ProgressTask

_STEP_S = 0.3
"""Within so much the others have mostly ended the step that they are in."""


class Quiet:
    """A lock that a worker holds while it times, and at which the others wait between two steps.

    Args:
        path: the lock's file; None where there is one worker, who waits for nobody.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._mine = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the others hold still inside the block."""
        if self._path is None:
            yield
            return
        with turn(self._path):
            self._mine = True
            try:
                time.sleep(_STEP_S)
                yield
            finally:
                self._mine = False

    def wait(self) -> None:
        """Hold still while another one times."""
        if self._path is not None and not self._mine:
            with turn(self._path):
                pass


class Bars:
    """Shows the bars of a trial's stages and keeps their words to itself; each step waits for those who time.

    Args:
        inner: where bars are shown.
        quiet: see `Quiet`.
    """

    def __init__(self, inner: Progress, quiet: Quiet) -> None:
        self._inner, self._quiet = inner, quiet

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        """See `Progress.task`."""
        with self._inner.task(description, total) as task:
            yield _Steps(task, self._quiet)

    def message(self, text: str) -> None:
        """See `Progress.message`."""

    def warning(self, text: str) -> None:
        """See `Progress.warning`."""


class _Steps:
    def __init__(self, inner: ProgressTask, quiet: Quiet) -> None:
        self._inner, self._quiet = inner, quiet

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._quiet.wait()
        self._inner.advance(steps, note)
