"""The search from a recipe and a budget to a model: one teacher, many short trials, and an ordinary run of the best.

Nothing is reported that the ordinary run did not prove: trials only say which recipe to run.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl import pipeline
from edgetl.bench.conditions import busy_now
from edgetl.bench.machine import describe
from edgetl.config import Recipe
from edgetl.errors import ConfigError, Interrupted
from edgetl.files import read_json, sha256_json, storage_errors, write_json
from edgetl.inputs.image import Interpolation
from edgetl.locks import only_one
from edgetl.packages import missing
from edgetl.process import tune, usable_cores
from edgetl.progress import SILENT, Progress
from edgetl.records.search import FinalRun, SearchRecord, SearchTrial, TrialState
from edgetl.search.settings import RECORD, Prepared, SearchConfig, check
from edgetl.tasks.metrics import metric

if TYPE_CHECKING:
    from optuna.study import Study

    from edgetl.search.finals import Finals
    from edgetl.search.guesses import Guesses
    from edgetl.search.networks import Networks

_SPENT, _TRIALS, _WORKERS = "spent.json", "trials", "workers"
_MOST_DRAWN = 20
"""Candidates that are drawn at most for each that learns."""
_RESERVED, _AROUND_S, LONGEST = 0.6, 90.0, 4
"""Of the time, the share that is kept at most for the ordinary run; seconds of that run that are no epochs; and by how
many times the recipe's epochs of distillation it may take, where the time is left."""
_LEAVE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a further worker is started with: `ends` is when the time is over, by the wall clock in seconds."""

    config: SearchConfig
    recipe: Recipe
    out: Path
    number: int
    ends: float


def run(
    config: SearchConfig,
    recipe: Recipe,
    out: Path,
    *,
    progress: Progress = SILENT,
    resume_hint: str = "",
) -> SearchRecord:
    """Search, run the best candidate to its end, and write `search.json` and `recipe.toml` to `out`.

    The ordinary run is in `out/run`. What was found before is kept: the same call goes on with it.

    Args:
        config: the budget, and how it is searched.
        recipe: whose teacher, data and settings all candidates share.
        out: the search's folder.
        progress: where to report.
        resume_hint: the command that goes on after an interruption, for the message.

    Raises:
        ConfigError: the budget is below what the fastest network takes, the floor is above what the teacher may reach,
            the study searches something else, or the machine is unfit to measure on.
        StorageError: the trials' storage cannot be reached.
        MissingDependencyError: Optuna is not installed.
        BusyError: another search works in `out`.
        EdgetlError: as of the ordinary run.
        Interrupted: Ctrl-C; the best candidate so far was made a bundle, where there is one.
    """
    if find_spec("optuna") is None:
        raise missing("optuna", purpose="to search")
    check(config)
    if not config.anyway and (faults := busy_now()):
        raise ConfigError(
            f"This machine is unfit to measure on. {' '.join(faults)} Or search all the same, with latencies in doubt:"
            " --anyway."
        )
    tune()
    recipe = pipeline.resolve(recipe)
    hint = resume_hint or "the same call"
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with only_one(out / ".search.lock", place=out, command=hint, warn=progress.warning):
        search = Search(config, recipe, out, progress)
        try:
            return search.to_the_end()
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(f"Stopped. {search.so_far()} Go on with: {hint}") from None
        finally:
            search.keep_spent()


def help_out(job: Job) -> None:
    """In a further process: try candidates until the search has enough of them."""
    tune()
    _share_cores(job.config)
    try:
        Search(job.config, job.recipe, job.out, SILENT, ends=job.ends).work(job.number)
    except (Interrupted, KeyboardInterrupt):
        return  # The first process says so.


class Search:
    """One call of `run`, or what a further worker does of it.

    Args:
        config, recipe, out, progress: as of `run`.
        ends: when the time is over, by the wall clock in seconds; for a further worker.
    """

    def __init__(
        self,
        config: SearchConfig,
        recipe: Recipe,
        out: Path,
        progress: Progress,
        ends: float | None = None,
    ) -> None:
        from edgetl.search.teachers import Teachers

        self.config, self.recipe, self.out, self.progress = config, recipe, out, progress
        self.started, self.before, self.first = time.time(), _spent(out), ends is None
        self.ends = self.started - self.before + config.seconds if ends is None else ends
        self.teachers = Teachers(recipe, out, progress)
        self._of_filter = functools.cache(self._networks)
        self.study: Study | None = None
        self.finals: tuple[FinalRun, ...] = ()
        self.said = set[int]()

    def to_the_end(self) -> SearchRecord:
        """See `run`."""
        from edgetl.search.prepare import prepare

        _share_cores(self.config)
        known = prepare(self.config, self.recipe, self.teachers, self.out, self.progress)
        self.study = self._opened(known, 0)
        self._all_trials(known, self.study)
        self.finals = self._finals(known, self.study).run(self._trials(), lambda: time.time() > self.ends)
        return self._written(known)

    def work(self, number: int) -> None:
        """As a further worker: try candidates until there are enough."""
        study = self.joined(number)
        self._try(self._known(), study)

    def joined(self, number: int) -> Study:
        """The study, as a further worker shares it, once the first process has prepared it."""
        self.study = self._opened(self._known(), number)
        return self.study

    def so_far(self) -> str:
        """After Ctrl-C: make a bundle of the best candidate so far, and say so in a sentence."""
        try:
            return self._run_best()
        except (Interrupted, KeyboardInterrupt):
            return "What was finished is saved."

    def keep_spent(self) -> None:
        """Save how long all calls took together."""
        if self.first:
            write_json(self.out / _SPENT, {"seconds": round(self._seconds(), 1)})

    # --- trials -----------------------------------------------------------------------------------------

    def _opened(self, known: Prepared, worker: int) -> Study:
        from edgetl.search.study import Sampler, open_study
        from edgetl.train.seeds import derive

        space = {
            "backbones": known.space.networks,
            "sizes": known.space.sizes,
            "depths": known.space.depths,
            "filters": known.space.interpolations,
            "epochs": known.epochs,
            "latency-ms": self.config.latency_ms,
            "size-mb": self.config.size_mb,
            "metric": known.metric,
            "teacher": self.recipe.train.backbone,
            "teacher's size": self.recipe.preprocess.size,
            "images": self.teachers.index.sha256,
            "settings": _settings(self.recipe),
            "machine": describe().fingerprint,
        }
        return open_study(
            self.config.storage,
            self.out,
            self.config.study or self.recipe.name,
            space,
            sampler=Sampler(self.config.sampler),
            seed=derive(self.recipe.seed, "search", worker) % 2**32,
        )

    def _guesses(self, known: Prepared) -> Guesses | None:
        """What is tried first; nothing in a random search."""
        from edgetl.search.guesses import Guesses
        from edgetl.search.study import Sampler

        if self.config.sampler != Sampler.TPE:
            return None
        own, searched = self.recipe.preprocess.interpolation, known.space.interpolations
        interpolation = own if own in searched else searched[0]
        return Guesses(
            known=known,
            networks=self.networks(interpolation),
            interpolation=interpolation,
            latency_ms=self.config.latency_ms,
        )

    def networks(self, interpolation: str) -> Networks:
        """What makes the candidates of a resize filter."""
        return self._of_filter(Interpolation(interpolation))

    def _networks(self, interpolation: Interpolation) -> Networks:
        from edgetl.search.networks import Networks

        return Networks(self.recipe, self.teachers.task, self.teachers.taught(interpolation).checkpoint)

    def _all_trials(self, known: Prepared, study: Study) -> None:
        """Try candidates, with the further workers, until there are enough and none is left behind."""
        from edgetl.search.study import revive

        revive(study)
        self.said = {one.number for one in self._trials()}
        if self._enough(study):
            return
        helpers, first = self._helpers(), True
        try:
            for helper in helpers:
                helper.start()
            while True:
                self._try(known, study, waits=first)
                first = False  # what is still running is of another machine, and may have been left behind
                for helper in helpers:
                    helper.join()
                self._report_finished(known)
                if not revive(study) and self._enough(study):
                    return
        finally:
            for helper in helpers:
                if helper.pid is not None:
                    helper.join(_LEAVE_S)
                    helper.terminate()

    def _helpers(self) -> list[SpawnProcess]:
        spawn = multiprocessing.get_context("spawn")
        jobs = [
            Job(config=self.config, recipe=self.recipe, out=self.out, number=number, ends=self.ends)
            for number in range(1, self.config.workers)
        ]
        return [spawn.Process(target=help_out, args=(job,)) for job in jobs]

    def _try(self, known: Prepared, study: Study, *, waits: bool = True) -> None:
        """Try candidates until there are enough; those that others are at work on count where it `waits` for them."""
        from edgetl.search.prepare import clock_of
        from edgetl.search.presence import present
        from edgetl.search.quiet import Quiet
        from edgetl.search.study import Sampler, revive
        from edgetl.search.trials import Trials

        if self._enough(study, started=waits):
            return
        quiet = Quiet(self.out / ".quiet.lock" if self.config.workers > 1 else None)
        guesses = self._guesses(known)

        def after(study: Study, _: object) -> None:
            self._report_finished(known)
            self.keep_spent()
            revive(study)
            if self._enough(study, started=waits):
                study.stop()
            elif guesses is not None:
                guesses.queue(study)

        with present(self.out / _WORKERS) as name:
            trials = Trials(
                recipe=self.recipe,
                base=lambda choice: self.teachers.taught(choice.interpolation).run,
                space=known.space,
                budget=self.config.budget,
                epochs=known.epochs,
                metric=known.metric,
                networks=lambda choice: self.networks(choice.interpolation),
                clock=clock_of(self.recipe, self.teachers, quiet, known.reference_ms),
                quiet=quiet,
                power=known.power,
                folder=self.out / _TRIALS,
                worker=name,
                late=self._late,
                nudges=self.config.sampler == Sampler.TPE,
                progress=self.progress,
            )
            if guesses is not None:
                guesses.queue(study)
            study.optimize(trials, callbacks=[after])

    def _report_finished(self, known: Prepared) -> None:
        """Say what the workers have finished since."""
        for one in self._trials():
            if one.number not in self.said:
                self.said.add(one.number)
                self.progress.message(_line(one, known.metric))

    def _known(self) -> Prepared:
        from edgetl.search.prepare import FILE

        return read_json(self.out / FILE, Prepared)

    def _trials(self) -> tuple[SearchTrial, ...]:
        from edgetl.search.trials import records

        return () if self.study is None else records(self.study)

    def _enough(self, study: Study, *, started: bool = False) -> bool:
        """Whether enough candidates have learned, or the time is over and one has; with those that are `started`."""
        from optuna.trial import TrialState as State

        found = self._trials()
        learned = [one for one in found if one.state in (TrialState.TRAINED, TrialState.STOPPED)]
        if self.config.trials is not None:
            running = len(study.get_trials(deepcopy=False, states=(State.RUNNING,))) if started else 0
            if len(learned) + running >= self.config.trials:
                return True
            if len(found) >= _MOST_DRAWN * self.config.trials:
                return True
        answered = any(one.state is TrialState.TRAINED for one in learned)
        return self._late() and (answered or len(found) >= _MOST_DRAWN)

    def _late(self) -> bool:
        """Whether what is left of the time is needed for the ordinary run."""
        if self.ends == math.inf:
            return False
        return time.time() > self.ends - min(self._reserve(), _RESERVED * self.config.seconds)

    def _reserve(self) -> float:
        """Seconds that the ordinary run takes at most, as far as is known."""
        return _AROUND_S if (best := self._best()) is None else self._run_seconds(best, LONGEST)

    def _best(self) -> SearchTrial | None:
        """Whose ordinary run would be next."""
        from edgetl.search.finals import candidates

        return next(iter(candidates(self._trials(), self._known().teacher)), None)

    def _run_seconds(self, best: SearchTrial, times: int) -> float:
        """Seconds of its ordinary run with so many times the recipe's epochs, by those that it has finished."""
        from edgetl.search.space import TEACHER

        prune, distill = self.recipe.prune, self.recipe.distill
        own = best.choice.network == TEACHER and best.choice.size == self.recipe.preprocess.size
        first = 0 if own else prune.start_epochs
        epochs = first + prune.steps * prune.recovery_epochs + times * distill.epochs
        return _AROUND_S + best.epoch_seconds * epochs

    def _epochs(self, study: Study) -> int:
        """Epochs of distillation in the ordinary run: as many times the recipe's as there is time for.

        Chosen once, so that the same call does not train again.
        """
        from edgetl.search.study import epochs_of, keep_epochs

        own, best = self.recipe.distill.epochs, self._best()
        if self.ends == math.inf or best is None:
            return own
        if (kept := epochs_of(study, self.config.minutes)) is not None:
            return kept
        left = self.ends - time.time()
        times = max([1, *(n for n in range(1, LONGEST + 1) if self._run_seconds(best, n) <= left)])
        if times > 1:
            self.progress.message(
                f"The time that is left is used: {times * own} epochs of distillation, the recipe has {own}"
            )
        keep_epochs(study, self.config.minutes, times * own)
        return times * own

    # --- what it comes to -------------------------------------------------------------------------------

    def _finals(self, known: Prepared, study: Study) -> Finals:
        from edgetl.search.finals import Finals
        from edgetl.search.prepare import clock_of
        from edgetl.search.quiet import Quiet
        from edgetl.search.study import TooSlow

        quiet = Quiet(None)  # all others have ended
        return Finals(
            recipe=self.recipe,
            budget=self.config.budget,
            known=known,
            teachers=self.teachers,
            clock=clock_of(self.recipe, self.teachers, quiet, known.reference_ms),
            slow=TooSlow(study),
            epochs=self._epochs(study),
            least=lambda choice: self.networks(choice.interpolation).least(choice),
            out=self.out,
            progress=self.progress,
        )

    def _run_best(self) -> str:
        from edgetl.search.finals import candidates
        from edgetl.search.space import trial_recipe
        from edgetl.search.trials import home

        trained = [one for one in self._trials() if one.state is TrialState.TRAINED]
        if not trained:
            return "No candidate has learned to its end yet; what was finished is saved."
        known = self._known()
        choice = candidates(trained, known.teacher)[0].choice
        recipe = trial_recipe(self.recipe, choice, known.epochs)
        folder = home(self.out / _TRIALS, recipe, choice)
        self._written(known)
        if not folder.is_dir():
            return "The best candidate so far was trained on another machine; what was finished is saved."
        self.progress.message("Making a bundle of the best so far; Ctrl-C again leaves it")
        outcome = pipeline.run(recipe, folder, progress=self.progress, student_tested=False)
        return f"The best so far, {choice.name}, is {outcome.bundle}."

    def _seconds(self) -> float:
        return self.before + time.time() - self.started

    def _written(self, known: Prepared) -> SearchRecord:
        """The record, also as a file."""
        from edgetl.search.finals import allowed_drop
        from edgetl.search.space import settings_of
        from edgetl.search.study import place_of
        from edgetl.search.trials import table_of

        assert self.study is not None
        table, last = table_of(self.study), self.finals[-1] if self.finals else None
        drop, settings = allowed_drop(self.config.budget, known.teacher), tuple[str, ...]()
        if last is not None:
            settings = settings_of(self.recipe, last.choice, drop, self._epochs(self.study))
        trials = with_frontier(self._trials())
        record = SearchRecord(
            name=self.recipe.name,
            budget=self.config.budget,
            metric=known.metric,
            teacher=known.teacher,
            least_ms=known.smallest.ms,
            least=known.least,
            trials=trials,
            finals=self.finals,
            holds=last is not None and last.holds,
            reason=_reason(last, trials, self.config.latency_ms, known),
            settings=settings,
            sampler=self.config.sampler,
            workers=self.config.workers,
            storage=place_of(self.config.storage, self.out),
            study=self.config.study or self.recipe.name,
            table_error=None if table is None else table.error,
            machine=describe(),
            seconds=self._seconds(),
        )
        write_json(self.out / RECORD, record)
        return record


def with_frontier(trials: Iterable[SearchTrial]) -> tuple[SearchTrial, ...]:
    """Trials with those marked that learned to the end, and than which no other such is as good and faster, or as fast
    and better."""
    found = tuple(trials)
    figures = {
        one.number: (one.score, one.ms)
        for one in found
        if one.state is TrialState.TRAINED and one.score is not None and one.ms is not None
    }

    def first(number: int) -> bool:
        if (own := figures.get(number)) is None:
            return False
        return not any(
            other != own and other[0] >= own[0] and other[1] <= own[1] for other in figures.values()
        )

    return tuple(replace(one, frontier=first(one.number)) for one in found)


def _reason(
    last: FinalRun | None, trials: tuple[SearchTrial, ...], latency_ms: float, known: Prepared
) -> str:
    """Why the last run is the answer, or why there is none, in a sentence."""
    from edgetl.search.finals import candidates, equals

    if last is None:
        times = [one.ms for one in trials if one.ms is not None]
        fastest = f"; the fastest took {min(times):.3g} ms" if times else ""
        return f"no candidate learned within {latency_ms:g} ms{fastest}"
    figures = (
        f"{metric(known.metric).title} {last.val.value:.1%} on the validation split in {last.latency_ms:.3g} ms and"
        f" {last.size_bytes / 1e6:.3g} MB"
    )
    if not last.holds:
        return f"none holds what was asked; {last.name}, comes nearest with {figures}: {'; '.join(last.problems)}"
    within = [one for one in trials if one.score is not None and (one.ms or math.inf) <= latency_ms]
    what = "the best of its trials"
    if last.trial is None:
        what = "narrower than a trial whose run took too long"
    elif last.trial != candidates(trials, known.teacher)[0].number:
        what = "the best of its trials but for those whose run takes too long"
    elif (alike := len(equals(trials, known.teacher))) > 1:
        what = f"the least loss of the {alike} trials whose scores are equal within one standard error"
    if any(one.number == last.trial and one.choice.share > last.choice.share for one in trials):
        what += ", a little narrower"
    return f"{last.name}, {what} ({len(within)} learned within {latency_ms:g} ms of {len(trials)} tried): {figures}"


def _line(trial: SearchTrial, name: str) -> str:
    """A trial in a line."""
    took = "" if trial.ms is None else f", {trial.ms:.3g} ms"
    kind = "" if trial.variant is None else f" in {trial.variant.kind}"
    said = [] if trial.score is None else [f"{metric(name).title} {trial.score:.1%}"]
    said += [trial.why] if trial.why else []
    return f"Trial {trial.number}: {trial.name}{took}{kind}: {', '.join(said)}"


def _settings(recipe: Recipe) -> str:
    """A short hash of all settings on which a trial depends, but for where the images lie."""
    usual = Recipe()
    same = {"name": usual.name, "data": usual.data, "bundle": usual.bundle}
    return sha256_json(recipe.model_copy(update=same).model_dump(mode="json"))[:12]


def _share_cores(config: SearchConfig) -> None:
    """Each worker trains on its part of the cores."""
    if config.workers > 1:
        import torch

        torch.set_num_threads(max(1, usable_cores() // config.workers))


def _spent(out: Path) -> float:
    try:
        return float(read_json(out / _SPENT, dict)["seconds"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0.0
