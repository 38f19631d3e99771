"""What all trials share: the data, and one teacher for each resize filter, each made once by an ordinary run."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from edgetl import pipeline
from edgetl.config import DistillConfig, Recipe
from edgetl.data import index as indexes
from edgetl.data.index import DataIndex
from edgetl.data.relations import related
from edgetl.inputs.image import Interpolation
from edgetl.locks import turn
from edgetl.pipeline import Stage
from edgetl.progress import Progress
from edgetl.records.scores import Evaluation
from edgetl.records.train import TrainRecord
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.base import TrainingTask

RUN = "run"


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A teacher: the folder of its run, its checkpoint, its scores on the validation split."""

    run: Path
    checkpoint: Path
    val: Evaluation


class Teachers:
    """Makes what is not there yet; the first worker does, and the others wait for it.

    Args:
        recipe: the user's, resolved.
        out: the search's folder.
        progress: shows the stages.
    """

    def __init__(self, recipe: Recipe, out: Path, progress: Progress) -> None:
        self.recipe, self.out, self.progress = recipe, out, progress
        self._taught = functools.cache(self._teacher)
        self._index: DataIndex | None = None

    @property
    def index(self) -> DataIndex:
        """The images."""
        if self._index is None:
            outcome = self._run_until(self.recipe.preprocess.interpolation, Stage.DATA)
            path = outcome.run_dir / outcome.records[Stage.DATA].index
            self._index = related(indexes.load(path), self.recipe.labels)
        return self._index

    @property
    def task(self) -> TrainingTask:
        """What networks answer."""
        return training_task(self.index.task, self.recipe.task, self.recipe.labels)

    def taught(self, interpolation: str) -> Teacher:
        """The teacher with a resize filter, which learns only once."""
        return self._taught(Interpolation(interpolation))

    def folder(self, interpolation: str) -> Path:
        """The folder of the ordinary run with a resize filter."""
        own = interpolation == self.recipe.preprocess.interpolation
        return self.out / (RUN if own else f"{RUN}-{interpolation}")

    def _teacher(self, interpolation: Interpolation) -> Teacher:
        outcome = self._run_until(interpolation, Stage.ADAPT)
        record: TrainRecord = outcome.records[Stage.ADAPT] or outcome.records[Stage.TRAIN]
        return Teacher(run=outcome.run_dir, checkpoint=outcome.run_dir / record.checkpoint, val=record.val)

    def _run_until(self, interpolation: Interpolation, until: Stage) -> pipeline.Outcome:
        recipe = self.recipe.model_copy(
            update={
                "preprocess": self.recipe.preprocess.model_copy(update={"interpolation": interpolation}),
                "prune": self.recipe.prune.model_copy(update={"enabled": True}),
                "distill": self.recipe.distill.model_copy(update={"student": DistillConfig().student}),
            }
        )
        with turn(self.out / ".base.lock"):
            return pipeline.run(recipe, self.folder(interpolation), until=until, progress=self.progress)
