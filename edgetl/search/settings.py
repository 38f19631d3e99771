"""What a search is asked for, and what is known before its first trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgetl.errors import ConfigError
from edgetl.inputs.image import Interpolation
from edgetl.records.scores import Score
from edgetl.records.search import SearchBudget
from edgetl.search.space import Space
from edgetl.search.widths import Timing, power_of

RECORD, PAGE = "search.json", "search.html"
MINUTES = 60.0
"""Where neither minutes nor trials are named."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What is asked for, and how it is searched.

    Attributes:
        latency_ms: the most milliseconds that one image may take, in the median, on this machine.
        size_mb: the most megabytes (10^6 bytes) of the model's file; None for no bound.
        floor: the least score on the validation split; where None, the teacher's less `bundle.max_drop`.
        minutes: for all of it, over all calls, the ordinary run at the end included; where neither these nor `trials`
            are named, 60.
        trials: candidates that learn.
        workers: processes on this machine.
        storage, study: as in `edgetl.search.study.open_study`; the recipe's name where `study` is None.
        networks, sizes, depths, interpolations: as in `edgetl.search.space.space_of`.
        epochs: that a candidate learns at most; where None, those of the recipe, and no more than 8.
        sampler: `tpe` or `random`.
        anyway: search although the machine is unfit to measure on.
    """

    latency_ms: float
    size_mb: float | None = None
    floor: float | None = None
    minutes: float | None = None
    trials: int | None = None
    workers: int = 1
    storage: str | None = None
    study: str | None = None
    networks: tuple[str, ...] | None = None
    sizes: tuple[int, ...] | None = None
    depths: tuple[float, ...] | None = None
    interpolations: tuple[Interpolation, ...] | None = None
    epochs: int | None = None
    sampler: str = "tpe"
    anyway: bool = False

    @property
    def budget(self) -> SearchBudget:
        """What the model may cost, and must reach."""
        return SearchBudget(latency_ms=self.latency_ms, size_mb=self.size_mb, floor=self.floor)

    @property
    def seconds(self) -> float:
        """For all of it; infinite where trials alone are counted."""
        if self.minutes is None and self.trials is not None:
            return math.inf
        return 60 * (self.minutes or MINUTES)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known before the first trial, and is the same for all workers.

    Attributes:
        key: of all that the times depend on.
        metric: of all scores.
        teacher: its score on the validation split.
        space: what is searched.
        reference_ms: the median of the uncut teacher on one thread in float32, against which all are timed.
        whole, smallest: the same network, and the fastest one that there could be, as they would ship.
        least: the name of the fastest one.
        epochs: that a candidate learns.
    """

    key: str
    metric: str
    teacher: Score
    space: Space
    reference_ms: float
    whole: Timing
    smallest: Timing
    least: str
    epochs: int

    @property
    def power(self) -> float:
        """By which milliseconds grow with the multiply-accumulates, from the smallest network to the whole one."""
        return power_of(self.whole, self.smallest)


def check(config: SearchConfig) -> None:
    """Refuse what cannot be searched, all of it at once.

    Raises:
        ConfigError: a figure is out of its range.
    """
    problems = []
    for name, figure in (
        ("--latency-ms", config.latency_ms),
        ("--size-mb", config.size_mb),
        ("--minutes", config.minutes),
    ):
        if figure is not None and not 0 < figure < math.inf:
            problems.append(f"{name}: got {figure:g}, expected a number above 0.")
    if config.floor is not None and not 0 < config.floor <= 1:
        problems.append(f"--floor: got {config.floor:g}, expected a score above 0 and at most 1, as in 0.95.")
    for name, count in (
        ("--trials", config.trials),
        ("--workers", config.workers),
        ("--epochs", config.epochs),
    ):
        if count is not None and count < 1:
            problems.append(f"{name}: got {count}, expected 1 or more.")
    problems += [
        f"--depths: got {depth:g}, expected shares from 0 to 1, as in 0,0.5."
        for depth in config.depths or ()
        if not 0 <= depth <= 1
    ]
    if problems:
        raise ConfigError(problems)
