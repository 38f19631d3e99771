"""`edgetl run`, its stages one by one, and `edgetl extend`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetl.cli.init import portable
from edgetl.cli.options import Json, RecipeArg, RunDir, Set
from edgetl.cli.outcome import end_by
from edgetl.cli.root import typed
from edgetl.cli.watch import require_train, watched
from edgetl.shell import command

if TYPE_CHECKING:
    from edgetl.config import Recipe
    from edgetl.pipeline import Outcome


def run(recipe: RecipeArg, settings: Set = None, out: RunDir = None, json: Json = False) -> None:
    """The whole way: train, prune, distill, export, quantize, measure, bundle, report. Goes on where it stopped."""
    _show_run(_through(recipe, settings, out, "bundle"), json)


def finetune(
    recipe: RecipeArg,
    settings: Set = None,
    out: RunDir = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds", min=2, help="Cross-validate instead: train once a fold, without the test split."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train the teacher: a pretrained backbone with a new head. With --folds, estimate how well a recipe does."""
    if folds is None:
        _stage(recipe, settings, out, json, "train")
        return
    require_train()
    from edgetl import config, pipeline
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.errors import ConfigError
    from edgetl.train import processes

    if processes.launched().count > 1:
        raise ConfigError("--folds trains in one process; start it without torchrun or accelerate launch.")
    loaded = config.load(recipe, settings or [])
    run_dir = out or Path("runs") / loaded.name
    with watched(typed()) as begins, open_progress() as progress:
        begins("train")
        record = pipeline.cross_validate(loaded, run_dir, folds, progress=progress, resume_hint=typed())
    output.emit(record, json, "folds")


def prune(recipe: RecipeArg, settings: Set = None, out: RunDir = None, json: Json = False) -> None:
    """Remove channels from the teacher, in steps; the run up to and including pruning."""
    _stage(recipe, settings, out, json, "prune")


def distill(recipe: RecipeArg, settings: Set = None, out: RunDir = None, json: Json = False) -> None:
    """Train the student on the teacher's soft targets; the run up to and including distillation."""
    _stage(recipe, settings, out, json, "distill")


def export(recipe: RecipeArg, settings: Set = None, out: RunDir = None, json: Json = False) -> None:
    """Export the student to ONNX and check it; the run up to and including export."""
    _stage(recipe, settings, out, json, "export")


def quantize(recipe: RecipeArg, settings: Set = None, out: RunDir = None, json: Json = False) -> None:
    """Quantize the exported model to INT8; the run up to and including quantization."""
    _stage(recipe, settings, out, json, "quantize")


def extend(
    earlier: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a finished run.", show_default=False)
    ],
    added: Annotated[
        str,
        typer.Option(
            "--add",
            metavar="DATA",
            help="Labelled images, as for `edgetl init`: of new classes, of known ones under new conditions, or both.",
            show_default=False,
        ),
    ],
    settings: Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The new run's folder.", show_default="RUN-extended")
    ] = None,
    json: Json = False,
) -> None:
    """Teach a finished run's network new classes or conditions, beside exemplars of what it knows. Then the whole way,
    as `run`. A paired test on the old run's validation images says what became of the known classes: ends with 1 where
    they got worse, 3 where it cannot tell.
    """
    require_train()
    from edgetl import config
    from edgetl.data.walk import place
    from edgetl.errors import ConfigError

    run_before = place(str(earlier)).absolute()
    folder = out or run_before.with_name(f"{run_before.name}-extended")
    if os.path.normpath(folder.absolute()) == os.path.normpath(run_before):
        raise ConfigError(f"--out: {folder} is the run that goes on; give the new one a folder of its own.")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).lstrip("._-") or "extended"
    recipe = config.extended(run_before, portable(added, Path.cwd() / "recipe.toml"), name, settings or [])
    _show_run(_run(recipe, folder, "bundle"), json)


def _stage(recipe: Path, settings: list[str] | None, out: Path | None, json: bool, stage: str) -> None:
    from edgetl.cli import output
    from edgetl.errors import ConfigError
    from edgetl.pipeline import Stage

    outcome = _through(recipe, settings, out, Stage.ADAPT if stage == Stage.TRAIN else stage)
    record = outcome.records[Stage(stage)]
    if stage == Stage.TRAIN:
        record = outcome.records[Stage.ADAPT] or record
    if record is None:
        raise ConfigError(f"The recipe turns {stage} off; set {stage}.enabled = true, or run another stage.")
    output.emit(record, json, "stage")


def _through(recipe: Path, settings: list[str] | None, out: Path | None, stage: str) -> Outcome:
    require_train()
    from edgetl import config

    loaded = config.load(recipe, settings or [])
    return _run(loaded, out or Path("runs") / loaded.name, stage)


def _run(loaded: Recipe, run_dir: Path, stage: str) -> Outcome:
    from edgetl import pipeline
    from edgetl.cli.progress import open_progress
    from edgetl.train import processes

    last = pipeline.Stage(stage)
    if not processes.launched().main:
        pipeline.follow(loaded, run_dir)
        raise typer.Exit
    with watched(typed()) as begins, open_progress() as progress:
        return pipeline.run(
            loaded, run_dir, until=last, progress=progress, resume_hint=typed(), begins=begins
        )


def _show_run(outcome: Outcome, json: bool) -> None:
    """Show a whole run; end with 1 where what ships is worse than allowed, with 3 where that cannot be decided."""
    from edgetl.cli import output
    from edgetl.records.gate import Verdict

    assert outcome.report is not None
    output.emit(outcome.report, json, "run")
    assert outcome.bundle is not None
    typer.echo(f"Bundle: {outcome.bundle}\nReport: {outcome.run_dir / 'report.html'}", err=True)
    typer.echo(f"Try it: {command('predict', outcome.bundle, 'IMAGE')}", err=True)
    kept = outcome.report.teacher.kept
    verdict = Verdict.PASS if kept is None else kept.verdict
    if not outcome.report.measure.floor_met:
        typer.echo(f"Gate failed: {outcome.report.measure.reason}.", err=True)
    if kept is not None and verdict is not Verdict.PASS:
        typer.echo(
            f"Gate {'failed' if verdict is Verdict.FAIL else 'cannot tell'}: {kept.sentence}", err=True
        )
    end_by(verdict if outcome.report.measure.floor_met else Verdict.FAIL)
