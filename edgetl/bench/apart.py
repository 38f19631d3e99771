"""Timing by a process that has done nothing else.

A process that has trained for minutes has a heap full of holes, and where a network's memory comes from all over it,
every call takes longer than in the process of a user, who only runs the model: eager torch most, the engines too. So
what is timed during a run is timed by a process of its own, which runs this module.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from edgetl.errors import EdgetlError, ModelError, from_plain, to_plain
from edgetl.files import read_json, write_json
from edgetl.process import tune
from edgetl.progress import SILENT, Progress, ProgressTask

J = TypeVar("J")
R = TypeVar("R")
_JOB, _RESULT, _ERROR, _SAID = "job.json", "result.json", "error.json", "said.txt"
_MARK = "edgetl:"
"""Begins each line of progress, so that what a library prints is not taken for one."""


def run_apart(work: Callable[[J, Progress], R], job: J, progress: Progress = SILENT) -> R:
    """Have another process do `work(job, progress)`.

    Args:
        work: a function of a module, with annotations: the job and what it returns are records.
        job: what it takes.
        progress: shows its bars.

    Raises:
        EdgetlError: as the work raised it there.
        ModelError: that process ended without a result.
    """
    with tempfile.TemporaryDirectory(prefix="edgetl-timing-") as name:
        folder = Path(name)
        write_json(folder / _JOB, job)
        # It finds the packages where this process does, wherever that was started.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with (
            (folder / _SAID).open("w") as said,
            subprocess.Popen(
                [sys.executable, "-m", __name__, work.__module__, work.__name__, name],
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                encoding="utf-8",
                errors="replace",
            ) as process,
        ):
            try:
                assert process.stdout is not None
                _show(process.stdout, progress)
            except BaseException:
                process.kill()
                raise
        if (folder / _ERROR).is_file():
            raise from_plain(json.loads((folder / _ERROR).read_text(encoding="utf-8")))
        if process.returncode:
            lines = (folder / _SAID).read_text(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"it ended with code {process.returncode}"
            raise ModelError(f"Nothing could be timed in a process of its own: {reason}")
        result: R = read_json(folder / _RESULT, typing.get_type_hints(work)["return"])
        return result


def _show(lines: Iterator[str], progress: Progress) -> None:
    """Draw the bars that the process tells of."""
    with contextlib.ExitStack() as bar:
        task = bar.enter_context(progress.task("Starting a process to time in", 1))
        for line in lines:
            if not line.startswith(_MARK):
                continue
            event = json.loads(line.removeprefix(_MARK))
            if "total" in event:
                bar.close()
                task = bar.enter_context(progress.task(event["title"], event["total"]))
            else:
                task.advance(event["steps"], event["note"])


class _Lines:
    """A progress that writes a line for each step; see `edgetl.progress.Progress`."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        _say({"title": description, "total": total})
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        _say({"steps": steps, "note": note})

    def message(self, text: str) -> None:
        """Timing says nothing."""

    def warning(self, text: str) -> None:
        """Timing warns of nothing."""


def _say(event: dict[str, Any]) -> None:
    sys.stdout.write(f"{_MARK}{json.dumps(event)}\n")
    sys.stdout.flush()


def _main(module: str, function: str, folder: Path) -> None:
    tune()
    work = getattr(importlib.import_module(module), function)
    job = read_json(folder / _JOB, typing.get_type_hints(work)["job"])
    try:
        write_json(folder / _RESULT, work(job, _Lines()))
    except EdgetlError as error:
        write_json(folder / _ERROR, to_plain(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
