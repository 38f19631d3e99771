"""The stages' names, and what a run of them gives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgetl.report.run import RunReport
    from edgetl.train.starts import Pretrained


class Stage(StrEnum):
    """The stages, in order."""

    DATA = "data"
    PRETRAIN = "pretrain"
    TRAIN = "train"
    ADAPT = "adapt"
    PRUNE = "prune"
    DISTILL = "distill"
    EXPORT = "export"
    QUANTIZE = "quantize"
    MEASURE = "measure"
    BUNDLE = "bundle"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Training that all launched processes share: the stage, the data's index, the folder, and what else is read.

    `other` is the source's index, which pretraining reads, and `first` the backbone that training may begin with.
    """

    stage: Stage
    index: str
    out: str
    other: str = ""
    first: Pretrained | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run gave: the records of the stages that were asked for, and the report where all were."""

    run_dir: Path
    records: dict[Stage, Any]
    cached: tuple[Stage, ...]
    report: RunReport | None

    @property
    def bundle(self) -> Path | None:
        """The bundle's path, where the run went to its end."""
        record = self.records.get(Stage.BUNDLE)
        return self.run_dir / record.path if record else None
