"""`edgetl init`: look at the data and write a recipe."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.data import by_section, sound_settings
from edgetl.cli.options import DataArg
from edgetl.cli.suggest import check_budget
from edgetl.cli.watch import require_train
from edgetl.shell import command


def init(
    source: DataArg,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the recipe.")] = Path(
        "recipe.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a recipe that is there.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Write every setting, those that keep their defaults as comments.")
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--suggest",
            help="Also choose backbone and size by linear probes and this machine's clock, as `edgetl suggest` does;"
            " takes minutes.",
        ),
    ] = False,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            "--latency-ms", help="With --suggest: the best that is not slower in the median, uncut."
        ),
    ] = None,
) -> None:
    """Look at the data and write a recipe: what it chose and why, and the settings that people change most."""
    require_train()
    from edgetl import config
    from edgetl.cli.progress import open_progress
    from edgetl.data import depth
    from edgetl.data.build import index_of
    from edgetl.data.sources import labelling_in
    from edgetl.data.suggest import (
        FEW_STEPS,
        batch_size,
        default_name,
        look,
        suggest,
        suggest_detector,
        suggest_target,
        suggest_task,
        suggest_window,
    )
    from edgetl.data.walk import counted
    from edgetl.errors import ConfigError
    from edgetl.files import write_text
    from edgetl.tasks.base import Detection

    taken = ConfigError(
        f"{output} is there already; overwrite it with --force or choose another name with -o."
    )
    if output.exists() and not force:
        raise taken
    if latency_ms is not None and not probe:
        raise ConfigError("--latency-ms chooses a backbone and size: give --suggest too.")
    check_budget(latency_ms)
    labelling = labelling_in(source)
    with open_progress() as progress:
        of_sound = sound_settings(source, labelling, progress)
        known = config.parse(by_section(of_sound, {"data": {"source": source, "bad_images": "skip"}}))
        sound = known.heard
        index = index_of(known.data, labelling=labelling, seed=0, sound=sound, progress=progress)
        numbers = depth.look(index, progress=progress) if sound is None else depth.Depth(images=0)
    seen = look(index)
    boxes = isinstance(index.task, Detection)
    suited = suggest_detector(index) if boxes else [*suggest_task(labelling), *suggest(seen)]
    suited = [*of_sound, *(item for item in suited if item.key not in {one.key for one in of_sound})]
    chosen = [*suited, *suggest_window(numbers), *suggest_target()]
    if probe:
        from edgetl.transfer.proposal import proposed_settings

        with open_progress() as progress:
            preprocess = config.parse(by_section(chosen, {"data": {"source": source}})).preprocess
            found = proposed_settings(index, preprocess, latency_ms=latency_ms, progress=progress)
        others = {one.key for one in found} | {"distill.size"}  # which went with the size that was guessed
        chosen = [*(item for item in chosen if item.key not in others), *found]
    values = by_section(chosen, {"data": {"source": portable(source, output)}})
    name = default_name(source, _RunsOf(Path("runs"), source))
    recipe = config.parse({"name": name, **values})
    try:
        text = config.commented(recipe, {item.key: item.reason for item in chosen}, full=full)
        write_text(output, text, new=not force)
    except FileExistsError:  # another process wrote it meanwhile
        raise taken from None
    kind = known.data.input.plural
    side = f", median side {seen.median_side} px" if sound is None else ""
    typer.echo(
        f"{seen.train_images} training {kind}, {seen.classes} classes{side}"
        + (
            f"; {len(index.skipped)} {kind} cannot be read, see: {command('data', 'check', source)}"
            if index.skipped
            else ""
        )
        + (f"; besides them {counted(index.others)}" if index.others else "")
    )
    batch, steps = batch_size(seen.train_images)
    if steps < FEW_STEPS:
        typer.echo(
            f"Warning: an epoch has {steps} step{'' if steps == 1 else 's'} of {batch} {kind}, too few to train well.",
            err=True,
        )
    for item in chosen:
        typer.echo(f"  {item.key} = {item.value}: {item.reason}")
    for problem in numbers.with_proposed().problems():
        typer.echo(f"  {problem}")
    typer.echo(f"Wrote {output}. Next: {command('run', output)}")


class _RunsOf(Container[str]):
    """Names under which another data set was run."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder, self._source = folder, source

    def __contains__(self, name: object) -> bool:
        from edgetl.pipeline import other_source

        return other_source(self._folder / str(name), self._source) is not None


def portable(source: str, recipe: Path) -> str:
    """The source as the recipe should name it: relative to the recipe where it lies below it, else absolute."""
    from edgetl.data.walk import place

    path = place(source)
    if not path.exists():
        return source
    folder = recipe.resolve().parent
    resolved = path.resolve()
    return str(resolved.relative_to(folder)) if resolved.is_relative_to(folder) else str(resolved)
