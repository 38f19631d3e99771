"""Progress is injected: a stage reports to this interface and never meets the terminal.

`SILENT` is the default for library users. The command line injects one that draws bars with an estimate.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from edgetl.records.train import EpochRecord


class ProgressTask(Protocol):
    """One bar."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move on by `steps`; `note` is a short figure shown next to the bar, e.g. `loss 0.31`."""


class Progress(Protocol):
    """Where a stage reports what it is doing."""

    def task(self, description: str, total: int) -> AbstractContextManager[ProgressTask]:
        """Open a bar of `total` steps; closing the context removes it."""

    def message(self, text: str) -> None:
        """Say one thing worth keeping, e.g. the accuracy at an epoch's end."""

    def warning(self, text: str) -> None:
        """Say something that the user should act on, though the run goes on."""


@runtime_checkable
class TakesEpochs(Protocol):
    """A progress that wants the figures of training, too."""

    def epoch(self, record: EpochRecord) -> None:
        """Take a finished epoch; of a training that goes on also those that an earlier process finished."""


class _SilentTask:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass


class SilentProgress:
    """Shows nothing."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        """See `Progress.task`."""
        yield _SilentTask()

    def message(self, text: str) -> None:
        """See `Progress.message`."""

    def warning(self, text: str) -> None:
        """See `Progress.warning`."""


SILENT: Progress = SilentProgress()
