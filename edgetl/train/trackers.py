"""Curves for TensorBoard, Weights & Biases and MLflow, through accelerate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, assert_never

from edgetl.config import Tracker
from edgetl.errors import MissingDependencyError
from edgetl.packages import pip_install
from edgetl.records.train import EpochRecord
from edgetl.train.processes import join, launched


class Listener(Protocol):
    """Gets each finished epoch."""

    def __call__(self, record: EpochRecord) -> None:
        """Called after an epoch's state is saved; not for epochs of an earlier run."""


@contextmanager
def tracking(
    trackers: Sequence[Tracker], folder: Path, name: str, settings: Mapping[str, Any]
) -> Iterator[Listener]:
    """Open the trackers in the first process; the listener logs an epoch's figures as `PHASE/FIGURE`.

    Args:
        trackers: which.
        folder: where those that keep files write.
        name: of the run.
        settings: of the run, plain values.

    Raises:
        MissingDependencyError: a tracker is not installed.
    """
    opened = [_open(tracker, folder, name) for tracker in trackers] if launched().main else []
    for one in opened:
        one.store_init_configuration({k: v for k, v in settings.items() if isinstance(v, int | float | str)})

    def listen(record: EpochRecord) -> None:
        for one in opened:
            one.log(figures(record), step=record.epoch)

    try:
        yield listen
    finally:
        for one in opened:
            one.finish()


def figures(record: EpochRecord) -> dict[str, float]:
    """What is logged of an epoch."""
    values = {
        "loss": record.loss,
        "val_loss": record.val_loss,
        **{f"val_{name}": score.value for name, score in record.val.scores.items()},
        "learning_rate": record.learning_rate,
        "images_per_second": record.images_per_second,
    }
    return {f"{record.phase}/{name}": value for name, value in values.items()}


def _open(tracker: Tracker, folder: Path, name: str) -> Any:
    package = tracker.value
    if find_spec(package) is None:
        raise MissingDependencyError(
            package, f"Install it with: {pip_install(package)}, or take {package!r} out of train.trackers."
        )
    from accelerate import tracking as library
    from accelerate.state import PartialState

    join()  # the trackers ask accelerate's state whether they are in the first process
    PartialState()
    opened: Any
    match tracker:
        case Tracker.TENSORBOARD:
            opened = library.TensorBoardTracker(name, logging_dir=str(folder))
        case Tracker.WANDB:
            opened = library.WandBTracker(name, dir=str(folder))
        case Tracker.MLFLOW:
            opened = library.MLflowTracker(name, logging_dir=str(folder))
        case _:
            assert_never(tracker)
    opened.start()
    return opened
