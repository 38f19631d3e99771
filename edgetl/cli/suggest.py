"""`edgetl suggest`: which backbone and input size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetl.cli.data import known_of
from edgetl.cli.options import DataArg, Json, Threads
from edgetl.cli.watch import require_train
from edgetl.shell import command

if TYPE_CHECKING:
    from edgetl.transfer.networks import Source


def suggest(
    source: DataArg,
    backbones: Annotated[
        str | None,
        typer.Option(
            "--backbones",
            metavar="NAME,NAME=FILE,...",
            help="Backbones to look at, as in train.backbone; NAME=FILE takes its weights from a .safetensors or .pth"
            " file.",
            show_default="small ones whose weights are on this machine",
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="PX,PX,...",
            help="Sides of the input in pixels.",
            show_default="128,160,224; of small images 48,64,96",
        ),
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=8, help="Look at no more training and validation images together.")
    ] = 1000,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            "--latency-ms", help="Mark what is slower in the median, and propose the best that is not."
        ),
    ] = None,
    threads: Threads = None,
    page: Annotated[Path | None, typer.Option("--page", help="Also write an HTML page with a plot.")] = None,
    json: Json = False,
) -> None:
    """Which backbone and input size: transferability to the data against latency on this machine. Nothing is trained
    but linear probes, and test images are not looked at."""
    require_train()
    from edgetl import config
    from edgetl.cli import output, values
    from edgetl.cli.progress import open_progress
    from edgetl.data import depth
    from edgetl.data.build import boxes_at, index_of
    from edgetl.data.sources import labelling_in
    from edgetl.data.suggest import look, suggest_preprocess
    from edgetl.transfer import stage

    check_budget(latency_ms)
    asked = stage.RankingConfig(
        sources=None if backbones is None else _sources(backbones),
        sizes=None if sizes is None else values.sides(sizes),
        images=images,
        latency_ms=latency_ms,
        threads=threads,
    )
    stage.check_names(asked)
    if boxes_at(source) is not None:
        raise stage.boxes_refused()
    labelling = labelling_in(source)
    with open_progress() as progress:
        known = known_of(source, labelling, progress)
        index = index_of(known.data, labelling=labelling, seed=0, sound=known.heard, progress=progress)
        stage.check_task(index.task)
        if index.skipped:
            unread = len(index.skipped)
            progress.warning(
                f"{unread} {known.data.input.named(unread)} cannot be read, see: {command('data', 'check', source)}"
            )
        preprocess = known.preprocess
        if known.heard is None:
            chosen = suggest_preprocess(look(index), depth.look(index, progress=progress))
            preprocess = config.parse({"preprocess": chosen}).preprocess
        record = stage.run(asked, index, preprocess, source=source, progress=progress)
    output.emit(record, json, "suggest")
    if page is not None:  # Afterwards, so that a page that cannot be written costs no figures.
        from edgetl.report.page.transfer import write_page

        write_page(record, page)
        typer.echo(f"Wrote {page}.", err=True)


def check_budget(latency_ms: float | None) -> None:
    """Raise ConfigError where a number of milliseconds is given that is none."""
    from edgetl.errors import ConfigError

    if latency_ms is not None and not 0 < latency_ms < float("inf"):
        raise ConfigError(f"--latency-ms: got {latency_ms:g}, expected milliseconds above 0.")


def _sources(text: str) -> tuple[Source, ...]:
    from edgetl.errors import ConfigError
    from edgetl.transfer.networks import Source

    parts = [part.strip().partition("=") for part in text.split(",")]
    if not all(name and bool(file) == bool(equals) for name, equals, file in parts):
        raise ConfigError(f"--backbones: got {text!r}, expected names parted by commas, or NAME=FILE.")
    found = [
        Source(backbone=name, weights=file) if file else Source(backbone=name) for name, _, file in parts
    ]
    return tuple(dict.fromkeys(found))
