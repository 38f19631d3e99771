"""One trial: time the candidate, cut it, time it again, and teach it for as long as it keeps up with the others."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial
from optuna.trial import TrialState as State

from edgetl import config as recipes
from edgetl import pipeline
from edgetl.config import Recipe
from edgetl.errors import Interrupted, ModelError, StorageError, TrainingError
from edgetl.files import sha256_json, write_text
from edgetl.keys import sources
from edgetl.models import checkpoint
from edgetl.pipeline import Stage
from edgetl.progress import Progress
from edgetl.prune.latency import LatencyTable, fit_table
from edgetl.prune.stage import CHECKPOINT
from edgetl.records.codec import from_json, to_json
from edgetl.records.scores import value
from edgetl.records.search import Choice, SearchBudget, SearchTrial, TimedVariant, TrialState
from edgetl.records.train import EpochRecord, TrainRecord
from edgetl.search.clock import Clock
from edgetl.search.networks import Networks
from edgetl.search.quiet import Bars, Quiet
from edgetl.search.space import Space, trial_recipe
from edgetl.search.study import WORKER
from edgetl.search.widths import AIM, Timing, macs_within

LATER = frozenset({*list(Stage)[list(Stage).index(Stage.PRUNE) :], "calibration"})
"""Folders of a run that are a candidate's own; those before them are the same for all."""
_CHOICE, _STATE, _VARIANT, _PREDICTED, _WORK, _WHY, _EPOCHS, _EPOCH_S, _SCORE, _LOSS, _SECONDS = (
    "choice",
    "state",
    "variant",
    "predicted_ms",
    "work",
    "why",
    "epochs",
    "epoch_seconds",
    "score",
    "loss",
    "seconds",
)
_ENOUGH = 8
"""Candidates that a latency table is fitted to, at least."""
_DOUBT = 0.25
"""A table refuses what it puts so far above the budget, and three times its own error; the rest is timed."""
_ROUGH = 0.2
"""A candidate is timed first as it is cut by the size of its weights, then as the recipe's importance cuts it. That may
be so much faster, so at first only what is further above the budget is refused."""
_ROOMY, _NUDGES, _NEAR = 0.85, 3, 0.1
"""The width that should just hold the budget is tried in place of candidates over it, or below so much of it, for each
network, size and depth so often at most, and where none is so near."""


class _Refused(Exception):
    """A candidate does not learn; the text says why."""

    state: TrialState


class OverBudget(_Refused):
    """It costs too much."""

    state = TrialState.OVER_BUDGET


class TooNarrow(_Refused):
    """It costs so little that a wider one is tried in its place."""

    state = TrialState.TOO_NARROW


class Trials:
    """What a study calls for each candidate.

    Args:
        recipe: the user's.
        base: the finished run, up to its teacher, of each resize filter.
        space, budget, epochs: what is searched, within what, and how long a candidate learns.
        metric: the score.
        networks: makes the candidates of each filter.
        clock: times them.
        quiet: see `edgetl.search.quiet`.
        power: by which milliseconds mostly grow with the multiply-accumulates, see `edgetl.search.widths`.
        folder: where candidates are trained.
        worker: this one's name.
        late: whether the time is over.
        nudges: whether a candidate that missed the budget, or left much of it, has a better one tried.
        progress: shows bars, and a line a trial.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        base: Callable[[Choice], Path],
        space: Space,
        budget: SearchBudget,
        epochs: int,
        metric: str,
        networks: Callable[[Choice], Networks],
        clock: Clock,
        quiet: Quiet,
        power: float,
        folder: Path,
        worker: str,
        late: Callable[[], bool],
        nudges: bool,
        progress: Progress,
    ) -> None:
        self.recipe, self.base, self.space, self.budget, self.epochs = recipe, base, space, budget, epochs
        self.metric, self.networks, self.clock, self.quiet = metric, networks, clock, quiet
        self.power, self.folder, self.worker, self.late = power, folder, worker, late
        self.nudges, self.progress = nudges, progress

    def __call__(self, trial: Trial) -> float:
        """The candidate's score; see `optuna.study.Study.optimize`.

        Raises:
            optuna.TrialPruned: it is over the budget or far within, impossible, or does not keep up.
            Interrupted: Ctrl-C; the candidate is queued again.
            EdgetlError: what would stop every trial.
        """
        start = time.monotonic()
        trial.set_user_attr(WORKER, self.worker)
        choice = self.space.suggest(trial)
        trial.set_user_attr(_CHOICE, to_json(choice))
        try:
            return self._tried(trial, choice)
        except _Refused as refused:
            trial.set_user_attr(_STATE, refused.state)
            trial.set_user_attr(_WHY, str(refused))
            raise optuna.TrialPruned(str(refused)) from None
        except (ModelError, TrainingError) as error:
            trial.set_user_attr(_STATE, TrialState.IMPOSSIBLE)
            trial.set_user_attr(_WHY, str(error))
            raise optuna.TrialPruned(str(error)) from error
        except (Interrupted, KeyboardInterrupt) as stop:
            if trial.params:
                trial.study.enqueue_trial(dict(trial.params))
            raise Interrupted(str(stop) or "Stopped.") from None
        finally:
            trial.set_user_attr(_SECONDS, round(time.monotonic() - start, 2))

    def _tried(self, trial: Trial, asked: Choice) -> float:
        candidate = self.networks(asked).cut(asked)
        choice = candidate.choice
        trial.set_user_attr(_CHOICE, to_json(choice))
        trial.set_user_attr(_WORK, list(candidate.work))
        self._wider(trial, choice)
        self._predicted(trial, choice, candidate.work)
        self._timed(trial, choice, self.clock(candidate.model, choice.size), rough=True)
        recipe = trial_recipe(self.recipe, choice, self.epochs)
        folder = home(self.folder, recipe, choice)
        link_stages(self.base(choice), folder)
        write_text(folder / "recipe.toml", recipes.dump(recipe))

        def begins(stage: Stage) -> None:
            if stage is Stage.DISTILL:
                network, _ = checkpoint.load(pruned_file(folder))
                self._timed(trial, choice, self.clock(network, choice.size))

        history: list[EpochRecord] = []

        def after_epoch(record: EpochRecord) -> None:
            history.append(record)
            loss = min(one.val_loss for one in history)
            trial.report(-loss, record.epoch)  # successive halving maximizes, as the study does
            trial.set_user_attr(_EPOCHS, record.epoch)
            trial.set_user_attr(_EPOCH_S, statistics.median(one.seconds for one in history))
            trial.set_user_attr(_SCORE, max(value(one.val, self.metric) for one in history))
            trial.set_user_attr(_LOSS, loss)
            if record.epoch == self.epochs:
                return
            if trial.should_prune():
                trial.set_user_attr(_WHY, f"worse than others after {_epochs(record.epoch)}")
                raise optuna.TrialPruned
            if self.late() and any(one.state is TrialState.TRAINED for one in records(trial.study)):
                trial.set_user_attr(_WHY, f"the time was over after {_epochs(record.epoch)}")
                raise optuna.TrialPruned

        bars = Bars(self.progress, self.quiet)
        try:
            outcome = pipeline.run(
                recipe,
                folder,
                until=Stage.DISTILL,
                progress=bars,
                begins=begins,
                listen=after_epoch,
                student_tested=False,
            )
        except (optuna.TrialPruned, _Refused):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        student: TrainRecord = outcome.records[Stage.DISTILL]
        trial.set_user_attr(_EPOCHS, len(student.epochs))
        trial.set_user_attr(_LOSS, min(one.val_loss for one in student.epochs))
        return value(student.val, self.metric)

    def _wider(self, trial: Trial, choice: Choice) -> None:
        """Raises OverBudget where a narrower network of the same kind was too slow."""
        for one in self._same(trial, choice):
            if one.state is not TrialState.OVER_BUDGET:
                continue  # its time may be the first one, which is not the last word
            if one.variant and one.variant.ms > self.budget.latency_ms and one.choice.share <= choice.share:
                raise OverBudget(
                    f"wider than trial {one.number}, which took {one.variant.ms:.3g} ms, over"
                    f" {self.budget.latency_ms:g} ms"
                )

    def _same(self, trial: Trial, choice: Choice) -> list[SearchTrial]:
        """Candidates that came to an end, of the same network, size, depth and filter."""
        kind = replace(choice, share=0.0)
        return [one for one in records(trial.study) if replace(one.choice, share=0.0) == kind]

    def _predicted(self, trial: Trial, choice: Choice, work: Sequence[float]) -> None:
        """Raises OverBudget where a latency table leaves no doubt that a candidate is too slow."""
        table = table_of(trial.study)
        if table is None:
            return
        ms = table.of_work(work)
        trial.set_user_attr(_PREDICTED, ms)
        if ms > self.budget.latency_ms * (1 + _DOUBT + 3 * table.error):
            self._nudge(trial, choice, ms)
            raise OverBudget(f"{ms:.3g} ms by the latency table, over {self.budget.latency_ms:g} ms")

    def _timed(
        self, trial: Trial, choice: Choice, variants: Sequence[TimedVariant], *, rough: bool = False
    ) -> None:
        """Keep what a candidate takes.

        Raises:
            OverBudget: that is too much, in a `rough` timing far too much.
            TooNarrow: it leaves so much of the budget that a wider one is tried.
        """
        variant, most, size = best_variant(variants, self.budget), self.budget.latency_ms, self.budget.size_mb
        trial.set_user_attr(_VARIANT, to_json(variant))
        ms = min(variant.ms, most) if rough and variant.ms <= (1 + _ROUGH) * most else variant.ms
        if problems := budget_problems(ms, variant.size_bytes, self.budget):
            if ms > most:
                self._nudge(trial, choice, ms)
            raise OverBudget("; ".join(problems))
        roomy = replace(
            self.budget, latency_ms=_ROOMY * most, size_mb=None if size is None else _ROOMY * size
        )
        if budget_problems(ms, variant.size_bytes, roomy):
            return
        wider = self._nudge(trial, choice, ms)
        if wider is not None and wider > choice.share:
            raise TooNarrow(f"well within {most:g} ms, so {100 * wider:.3g}% is tried in its place")

    def _nudge(self, trial: Trial, choice: Choice, ms: float) -> float | None:
        """Have the same network tried at the width that should just hold the budget.

        Args:
            trial: of the candidate.
            choice: what it is.
            ms: what it takes.

        Returns:
            The share that is tried, or None where it is not another, or where there were enough.
        """
        if not self.nudges:
            return None
        same = self._same(trial, choice)
        timed = [Timing(macs=one.choice.share, ms=one.variant.ms) for one in same if one.variant]
        timed.append(Timing(macs=choice.share, ms=ms))
        wanted = macs_within(AIM * self.budget.latency_ms, timed, self.power)
        better = replace(choice, share=self.networks(choice).within(choice, wanted))
        # What was too narrow did not learn, so another one near it must.
        shares = [choice.share, *(one.choice.share for one in same if one.state is not TrialState.TOO_NARROW)]
        near = any(abs(share / better.share - 1) < _NEAR for share in shares)
        if near or len(same) >= _NUDGES:
            return None
        trial.study.enqueue_trial(dict(self.space.parameters(better)), skip_if_exists=True)
        return better.share


def pruned_file(run: Path) -> Path:
    """The cut network of a run, before it has learned."""
    return run / str(Stage.PRUNE) / CHECKPOINT


def home(folder: Path, recipe: Recipe, choice: Choice) -> Path:
    """Where a candidate is trained by a recipe: the same folder whenever and by whomever it is tried again."""
    key = sha256_json([recipes.dump(recipe), sources()])
    network = choice.network.replace("/", "-")
    return folder / f"{network}-{choice.size}px-{choice.share:g}-{key[:8]}"


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def best_variant(variants: Sequence[TimedVariant], budget: SearchBudget) -> TimedVariant:
    """The fastest variant whose file is small enough; the smallest where none is."""
    fitting = [one for one in variants if budget.size_mb is None or one.size_bytes <= 1e6 * budget.size_mb]
    if fitting:
        return min(fitting, key=lambda one: one.ms)
    return min(variants, key=lambda one: one.size_bytes)


def budget_problems(ms: float, size_bytes: int, budget: SearchBudget) -> list[str]:
    """In which ways a model is over the budget, each as a part of a sentence."""
    problems = []
    if ms > budget.latency_ms:
        problems.append(f"{ms:.3g} ms, over {budget.latency_ms:g} ms")
    if budget.size_mb is not None and size_bytes > 1e6 * budget.size_mb:
        problems.append(f"{size_bytes / 1e6:.3g} MB, over {budget.size_mb:g} MB")
    return problems


def link_stages(base: Path, folder: Path) -> None:
    """Have a run in `folder` find the finished stages of `base` before pruning: links, of which nothing is copied.

    Raises:
        StorageError: the file system has no links.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stage in sorted(path for path in base.iterdir() if path.is_dir() and path.name not in LATER):
        try:
            with contextlib.suppress(FileExistsError):
                (folder / stage.name).symlink_to(
                    os.path.relpath(stage, folder.resolve()), target_is_directory=True
                )
        except OSError as error:
            raise StorageError(
                f"Cannot link {folder / stage.name} to {stage}: {error.strerror}. A search shares its teacher by"
                " symbolic links: name a folder with --out whose file system has them (on Windows in developer mode)."
            ) from error


def table_of(study: Study) -> LatencyTable | None:
    """A latency table fitted to the candidates that were timed; None where they are too few."""
    timed = [
        (trial.user_attrs[_WORK], trial.user_attrs[_VARIANT]["ms"])
        for trial in study.get_trials(deepcopy=False)
        if _WORK in trial.user_attrs and _VARIANT in trial.user_attrs
    ]
    if len(timed) < _ENOUGH:
        return None
    return fit_table([work for work, _ in timed], [ms for _, ms in timed])


def records(study: Study) -> tuple[SearchTrial, ...]:
    """Every candidate that came to an end."""
    found = []
    for trial in study.get_trials(deepcopy=False, states=(State.COMPLETE, State.PRUNED)):
        if (record := _record(trial)) is not None:
            found.append(record)
    return tuple(found)


def _record(trial: FrozenTrial) -> SearchTrial | None:
    attrs: Mapping[str, Any] = trial.user_attrs
    if _CHOICE not in attrs:
        return None
    variant = from_json(TimedVariant, attrs[_VARIANT]) if _VARIANT in attrs else None
    score = trial.value if trial.state is State.COMPLETE else attrs.get(_SCORE)
    how = TrialState.TRAINED if trial.state is State.COMPLETE else TrialState.STOPPED
    return SearchTrial(
        number=trial.number,
        choice=from_json(Choice, attrs[_CHOICE]),
        state=TrialState(attrs.get(_STATE, how)),
        why=str(attrs.get(_WHY, "")),
        variant=variant,
        predicted_ms=attrs.get(_PREDICTED),
        score=score,
        loss=attrs.get(_LOSS),
        epochs=int(attrs.get(_EPOCHS, 0)),
        epoch_seconds=float(attrs.get(_EPOCH_S, 0.0)),
        seconds=float(attrs.get(_SECONDS, 0.0)),
    )
