"""`edgetl cascade`: two bundles as one, whose small model answers where it is sure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.options import Json, Threads
from edgetl.cli.watch import require_train

_WORSE = 1


def cascade(
    small: Annotated[
        Path, typer.Argument(help="The bundle of the model that is asked first.", show_default=False)
    ],
    large: Annotated[
        Path, typer.Argument(help="The bundle of the larger one, which answers the rest.", show_default=False)
    ],
    data: Annotated[
        Path,
        typer.Argument(
            help="Labelled images, CLASS/* or SPLIT/CLASS/*, or a CSV: the validation split, else what the models were"
            " validated with, else all; without what they were trained on.",
            show_default=False,
        ),
    ],
    output_path: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")] = Path(
        "cascade.edgetl"
    ),
    floor: Annotated[
        float | None,
        typer.Option(
            "--floor",
            metavar="SHARE",
            help="The least top-1, in 0..1, instead of the larger model's.",
            show_default="the larger model's",
        ),
    ] = None,
    small_variant: Annotated[
        str | None,
        typer.Option("--small-variant", help="Of the small model.", show_default="the one that runs here"),
    ] = None,
    large_variant: Annotated[
        str | None,
        typer.Option("--large-variant", help="Of the larger model.", show_default="the one that runs here"),
    ] = None,
    threads: Threads = None,
    runs: Annotated[int, typer.Option("--runs", min=100, help="Timed calls of each model.")] = 1000,
    json: Json = False,
) -> None:
    """Make one bundle of two: a small model answers where it is sure, and hands the other images to a larger one.

    Half of the images choose how sure it must be, so that the cascade is as often right as the larger model there; the
    other half judges that, by a paired test. Mean and p99 latency are those of your images, timed in turn with the
    larger model's. Exit code 1 where the cascade is worse than was asked, or not faster.
    """
    require_train()
    from edgetl.cascade import stage
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress

    config = stage.CascadeConfig(
        small=small,
        large=large,
        data=data,
        out=output_path,
        floor=floor,
        small_variant=small_variant,
        large_variant=large_variant,
        threads=threads,
        runs=runs,
    )
    with open_progress() as progress:
        record = stage.run(config, progress=progress)
    output.emit(record, json, "cascade")
    if not record.holds:
        raise typer.Exit(_WORSE)
