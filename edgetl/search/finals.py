"""The ordinary run of the best candidate, with all of the recipe's steps and gates. Only it is reported."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edgetl import config as recipes
from edgetl import pipeline
from edgetl.config import Recipe, Target
from edgetl.errors import ConfigError
from edgetl.files import write_text
from edgetl.models import checkpoint
from edgetl.pipeline import Stage
from edgetl.progress import Progress
from edgetl.records.scores import Score, score, value
from edgetl.records.search import Choice, FinalRun, SearchBudget, SearchTrial, TrialState
from edgetl.records.variants import MeasureRecord, VariantScore
from edgetl.report.run import shipped_variant
from edgetl.search.clock import Clock
from edgetl.search.settings import Prepared
from edgetl.search.space import final_recipe, rounded
from edgetl.search.study import TooSlow
from edgetl.search.teachers import Teachers
from edgetl.search.trials import LATER, best_variant, budget_problems, pruned_file
from edgetl.search.widths import AIM, Timing, macs_within, power_of
from edgetl.statistics import Z95
from edgetl.tasks.metrics import metric

RECIPE = "recipe.toml"
_MOST, _MOST_LATE = 3, 2
"""Candidates that are run to their end, where the first ones turn out too slow; and where the time is over."""
_SURE, _SLIGHTLY = 0.95, 1.1
"""A candidate above so much of the budget is run a little narrower, since ordinary runs take up to a tenth more than
trials; and a run up to so many times the budget is made again narrower, rather than that of another candidate."""
_CUTS = 3
"""A candidate is cut so often at most: anew and narrower, where it is too slow before it has learned."""


class _OverBudget(Exception):
    """The cut network is over the budget before it has learned."""


class Finals:
    """Runs candidates to their end until one holds the budget.

    Args:
        recipe: the user's, resolved.
        budget: what was asked for.
        known: what was prepared.
        teachers: whose runs go on.
        clock: times the cut network before it learns.
        slow: remembers what was too slow, so that the same search does not run it again.
        least: the smallest share of its network's multiply-accumulates that a candidate can have.
        epochs: of distillation.
        out: where the recipe of the last one is written.
        progress: shows the runs.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        budget: SearchBudget,
        known: Prepared,
        teachers: Teachers,
        clock: Clock,
        slow: TooSlow,
        least: Callable[[Choice], float],
        epochs: int,
        out: Path,
        progress: Progress,
    ) -> None:
        self.recipe, self.budget, self.known = recipe, budget, known
        self.teachers, self.clock, self.slow, self.least = teachers, clock, slow, least
        self.epochs, self.out, self.progress = epochs, out, progress
        self.done: list[FinalRun] = []
        self.trials: Sequence[SearchTrial] = ()

    def run(
        self, trials: Sequence[SearchTrial], late: Callable[[], bool] = lambda: False
    ) -> tuple[FinalRun, ...]:
        """Run the best of some trials; where it takes too long there, the next one that should not.

        Args:
            trials: of the search.
            late: whether the time is over, after which one more run is made at most.

        Raises:
            EdgetlError: as of an ordinary run.
            Interrupted: Ctrl-C.
        """
        self.trials = trials
        learned, factor = candidates(trials, self.known.teacher), 1.0
        while (
            len(self.done) < (_MOST_LATE if late() else _MOST)
            and (candidate := self._next(learned, factor)) is not None
        ):
            number, choice, ms = candidate
            last = self._final(number, choice)
            self.done.append(last)
            if last.latency_ms <= self.budget.latency_ms:
                break
            self.slow.add(last.choice, last.latency_ms)
            if ms is not None:
                factor = max(factor, last.latency_ms / ms)
            self.progress.message(
                f"The ordinary run took {last.latency_ms:.3g} ms, over {self.budget.latency_ms:g} ms"
            )
        return tuple(self.done)

    def _next(
        self, learned: Sequence[SearchTrial], factor: float
    ) -> tuple[int | None, Choice, float | None] | None:
        """What is run next.

        The best candidate that holds the budget if ordinary runs take `factor` times what trials took; a little
        narrower where it only just does. Before it comes one whose run was slightly too slow, as much narrower as it
        must be; after all, any other that was too slow.

        Returns:
            The trial's number where no run before was its, what is run, and what it took or would take in a trial.
        """
        budget, tried = self.budget.latency_ms, {final.trial for final in self.done}
        last = self.done[-1] if self.done else None
        narrower = None if last is None else self._narrower(last.choice, last.latency_ms)
        if last is not None and narrower is not None and last.latency_ms <= _SLIGHTLY * budget:
            return None, narrower, None
        for one in learned:
            if one.number in tried or one.ms is None or one.ms * factor > budget:
                continue
            sure = one.ms * factor <= _SURE * budget
            if sure or (choice := self._narrower(one.choice, one.ms * factor)) is None:
                return one.number, one.choice, one.ms
            return one.number, choice, AIM * budget / factor
        return None if narrower is None else (None, narrower, None)

    def _narrower(self, choice: Choice, ms: float) -> Choice | None:
        """A network that takes so long, at a width that should hold the budget; None where it cannot be narrower."""
        took = Timing(macs=choice.share, ms=ms)
        wanted = rounded(macs_within(AIM * self.budget.latency_ms, [took], self._power(choice)))
        share = max(wanted, self.least(choice))
        return replace(choice, share=share) if share < choice.share else None

    def _power(self, choice: Choice) -> float:
        """By which milliseconds grow with the width, as trials of the same kind were timed."""
        kind = replace(choice, share=0.0)
        timed = [
            Timing(macs=one.choice.share, ms=one.variant.ms)
            for one in self.trials
            if one.variant is not None and replace(one.choice, share=0.0) == kind
        ]
        if not timed:
            return self.known.power
        ends = [pick(timed, key=lambda one: one.macs) for pick in (min, max)]
        return power_of(ends[0], ends[1], self.known.power)

    def _final(self, number: int | None, choice: Choice) -> FinalRun:
        start = time.monotonic()
        for _ in range(_CUTS - 1):
            if choice not in self.slow:
                with contextlib.suppress(_OverBudget):
                    return self._judged(number, choice, self._run(choice, judged=True), start)
            ms = self.slow.ms(choice)
            if (narrower := self._narrower(choice, ms)) is None:
                break
            self.progress.message(
                f"Cut, {choice.name} takes {ms:.3g} ms, over {self.budget.latency_ms:g} ms, so it is cut anew,"
                " narrower"
            )
            choice = narrower
        return self._judged(number, choice, self._run(choice, judged=False), start)

    def _run(self, choice: Choice, *, judged: bool) -> pipeline.Outcome:
        """The ordinary run; raises _OverBudget where it is `judged` and the cut network is too slow, which is kept."""
        recipe = final_recipe(self.recipe, choice, allowed_drop(self.budget, self.known.teacher), self.epochs)
        folder = self.teachers.folder(choice.interpolation)
        self.progress.message(f"The ordinary run of {choice.name}")

        def begins(stage: Stage) -> None:
            if judged and stage is Stage.DISTILL:
                network, _ = checkpoint.load(pruned_file(folder))
                ms = best_variant(self.clock(network, choice.size), self.budget).ms
                if ms > self.budget.latency_ms:
                    self.slow.add(choice, ms)
                    raise _OverBudget

        try:
            outcome = pipeline.run(recipe, folder, progress=self.progress, begins=begins)
        except ConfigError as error:
            if "unfinished training" not in str(error):
                raise
            for name in LATER:  # of another candidate, in whose run a search was stopped
                shutil.rmtree(folder / name, ignore_errors=True)
            outcome = pipeline.run(recipe, folder, progress=self.progress, begins=begins)
        names = ["prune.network", "prune.target", "prune.depth"]
        if self.epochs != self.recipe.distill.epochs:
            names.append("distill.epochs")
        chosen = dict.fromkeys(names, f"by edgetl search, for {self.budget.latency_ms:g} ms")
        write_text(self.out / RECIPE, recipes.commented(recipe, chosen, full=False))
        return outcome

    def _judged(
        self, number: int | None, choice: Choice, outcome: pipeline.Outcome, start: float
    ) -> FinalRun:
        """What the run that began at `start` measured, and in which ways that is not what was asked for."""
        measured: MeasureRecord = outcome.records[Stage.MEASURE]
        name, floor = self.known.metric, measured.floor if self.budget.floor is None else self.budget.floor
        shipped = answers(measured, name, floor)
        val = score(shipped.val, name)
        problems = budget_problems(shipped.latency.p50_ms, shipped.size_bytes, self.budget)
        if val.value < floor:
            problems.append(
                f"{metric(name).title} {val.value:.1%} on the validation split, below {floor:.1%}"
            )
        assert outcome.bundle is not None
        return FinalRun(
            trial=number,
            choice=choice,
            variant=shipped.name,
            latency_ms=shipped.latency.p50_ms,
            size_bytes=shipped.size_bytes,
            val=val,
            test=None if shipped.test is None else score(shipped.test, name),
            bundle=outcome.bundle.relative_to(self.out).as_posix(),
            problems=tuple(problems),
            seconds=time.monotonic() - start,
        )


def allowed_drop(budget: SearchBudget, teacher: Score) -> float | None:
    """`bundle.max_drop` that stands for the floor, where one was named."""
    return None if budget.floor is None else round(max(teacher.value - budget.floor, 0.0), 6)


def answers(measured: MeasureRecord, metric_name: str, floor: float) -> VariantScore:
    """The variant that ships, or one for LiteRT that keeps the floor and is faster."""
    shipped = shipped_variant(measured)
    others = [
        one
        for one in measured.variants
        if one.target == Target.LITERT
        and value(one.val, metric_name) >= floor
        and one.latency.p50_ms < shipped.latency.p50_ms
    ]
    return min(others, key=lambda one: one.latency.p50_ms, default=shipped)


def candidates(trials: Sequence[SearchTrial], teacher: Score) -> list[SearchTrial]:
    """Trials that can be run to their end, the best first: those that were trained, and those that were stopped with a
    better score than all of these.

    Scores within one standard error of the best count as equal (the rule of Breiman et al. 1984); among these the least
    loss on the validation split is the best, since on few images a loss tells more apart than a score does.

    Args:
        trials: of the search.
        teacher: its score on the validation split, whose interval says how far a score is off.
    """
    trained = _learned(trials)
    equal = {one.number for one in equals(trials, teacher)}

    def place(one: SearchTrial) -> tuple[float, ...]:
        score, loss, ms = (math.inf if figure is None else figure for figure in (one.score, one.loss, one.ms))
        return (0, loss, -score, ms, one.number) if one.number in equal else (1, -score, loss, ms, one.number)

    return sorted(trained, key=place)


def equals(trials: Sequence[SearchTrial], teacher: Score) -> list[SearchTrial]:
    """Of those that can be run to their end, the ones within one standard error of the best; see `candidates`."""
    scores = {one.number: one.score for one in _learned(trials) if one.score is not None}
    error = 0.0 if teacher.interval is None else (teacher.interval[1] - teacher.interval[0]) / (2 * Z95)
    least = max(scores.values(), default=0.0) - error
    return [one for one in trials if scores.get(one.number, -math.inf) >= least]


def _learned(trials: Sequence[SearchTrial]) -> list[SearchTrial]:
    trained = [one.score for one in trials if one.state is TrialState.TRAINED and one.score is not None]
    best = max(trained, default=-math.inf)
    return [
        one
        for one in trials
        if one.score is not None and (one.state is TrialState.TRAINED or one.score > best)
    ]
