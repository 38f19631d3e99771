"""`edgetl search`: a budget in, a model out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.options import Json, RecipeArg, Set
from edgetl.cli.watch import require_train, watched

NOT_FOUND = 1
"""Exit code where nothing holds what was asked for, as of a gate that failed."""


def search(
    recipe: RecipeArg,
    latency_ms: Annotated[
        float,
        typer.Option(
            "--latency-ms",
            help="The most milliseconds that one image may take, in the median, on this machine.",
            show_default=False,
        ),
    ],
    size_mb: Annotated[
        float | None, typer.Option("--size-mb", help="The most megabytes (10^6 bytes) of the model's file.")
    ] = None,
    floor: Annotated[
        float | None,
        typer.Option(
            "--floor",
            help="The least score on the validation split, e.g. 0.95.",
            show_default="the teacher's less bundle.max_drop",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            help="For all of it, over all calls, the ordinary run at the end included.",
            show_default="60 without --trials",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", help="So many candidates learn; those over the budget do not count."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes that search on this machine.")] = 1,
    backbones: Annotated[
        str | None,
        typer.Option(
            "--backbones",
            metavar="NAME,NAME,...",
            help="What is cut: `teacher`, and names as in train.backbone.",
            show_default="the teacher, and smaller backbones whose weights are on this machine",
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="PX,PX,...",
            help="Sides of the student's input in pixels.",
            show_default="preprocess.size, three quarters and half of it",
        ),
    ] = None,
    depths: Annotated[
        str | None,
        typer.Option(
            "--depths",
            metavar="SHARE,SHARE,...",
            help="Shares of the residual blocks that are taken out whole, as in prune.depth.",
            show_default="0, and prune.depth or a half",
        ),
    ] = None,
    filters: Annotated[
        str | None,
        typer.Option(
            "--filters",
            metavar="NAME,NAME,...",
            help="Resize filters: nearest, bilinear, bicubic, lanczos. Each takes a teacher of its own.",
            show_default="preprocess.interpolation",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            help="Epochs that a candidate learns, where it keeps up.",
            show_default="distill.epochs, and 8 at most",
        ),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            "--sampler", help="How candidates are drawn: tpe, by what earlier ones gave, or random."
        ),
    ] = "tpe",
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL|FILE",
            help="Where the trials are kept, for workers on several machines: a database's URL (postgresql://...),"
            " Redis (redis://...), or a journal's file on a shared disk.",
            show_default="search.db in the search's folder",
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option("--study", help="The study's name in the storage.", show_default="the recipe's name"),
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway", help="Search although the machine is unfit to measure on: it is busy, or on battery."
        ),
    ] = False,
    settings: Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The search's folder.", show_default="runs/NAME-search")
    ] = None,
    json: Json = False,
) -> None:
    """Budget in, model out: search backbone, input size, width and depth for the best model inside a latency.

    The teacher is trained once. Each candidate is timed before it learns, and dropped in seconds where it is over the
    budget; the others learn for a few epochs, the better half of them longer. The best one goes through the ordinary
    run, whose bundle is the answer. The same command goes on where it stopped. Exit code 1 where nothing holds what
    was asked for.
    """
    require_train()
    from edgetl import config
    from edgetl.cli import output, values
    from edgetl.cli.progress import open_progress
    from edgetl.cli.root import typed
    from edgetl.files import write_text
    from edgetl.inputs.image import Interpolation
    from edgetl.report.page.search import render
    from edgetl.search import stage
    from edgetl.search.settings import PAGE, SearchConfig

    asked = SearchConfig(
        latency_ms=latency_ms,
        size_mb=size_mb,
        floor=floor,
        minutes=minutes,
        trials=trials,
        workers=workers,
        storage=storage,
        study=study,
        networks=None if backbones is None else values.names("--backbones", backbones),
        sizes=None if sizes is None else values.sides(sizes),
        depths=None if depths is None else values.numbers("--depths", depths),
        interpolations=None
        if filters is None
        else tuple(Interpolation(name) for name in _known("--filters", filters, tuple(Interpolation))),
        epochs=epochs,
        sampler=_known("--sampler", sampler, ("tpe", "random"))[0],
        anyway=anyway,
    )
    loaded = config.load(recipe, settings or [])
    folder = out or Path("runs") / f"{loaded.name}-search"
    with watched(typed()), open_progress() as progress:
        record = stage.run(asked, loaded, folder, progress=progress, resume_hint=typed())
    write_text(folder / PAGE, render(record))
    output.emit(record, json, "search")
    typer.echo(f"Wrote {folder / PAGE}.", err=True)
    if not record.holds:
        raise typer.Exit(NOT_FOUND)


def _known(option: str, text: str, names: tuple[str, ...]) -> tuple[str, ...]:
    from edgetl.cli import values
    from edgetl.errors import ConfigError

    given = values.names(option, text)
    if wrong := [name for name in given if name not in names]:
        raise ConfigError(f"{option}: got {wrong[0]!r}, expected {', '.join(names[:-1])} or {names[-1]}.")
    return given
