"""`edgetl bench`, `tune` and `history`: how fast a bundle is on this machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetl.cli.options import BundleArg, EngineTarget, Json, RequireSignature, Threads, Variant
from edgetl.shell import command

if TYPE_CHECKING:
    from edgetl.progress import Progress


class ScenarioName(StrEnum):
    """The load, as MLPerf Inference names them."""

    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"
    OFFLINE = "offline"
    SERVER = "server"


def bench(
    bundle: BundleArg,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images to time it on: files, folders or globs; a cascade's time depends on them.",
            show_default="the golden images",
        ),
    ] = None,
    scenario: Annotated[
        ScenarioName, typer.Option("--scenario", help="The load.")
    ] = ScenarioName.SINGLE_STREAM,
    runs: Annotated[int, typer.Option("--runs", min=10, help="Samples.")] = 200,
    warmup: Annotated[
        int | None,
        typer.Option(
            "--warmup",
            min=0,
            help="Calls before the first sample, to repeat another tool's protocol.",
            show_default="until steady",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Images per call, offline only.", show_default="32")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Arrivals a second, server only.", show_default="half of capacity"),
    ] = None,
    bound_ms: Annotated[float, typer.Option("--bound-ms", help="Bound on p99 in ms, server only.")] = 15.0,
    pin: Annotated[
        str | None,
        typer.Option(
            "--pin",
            metavar="CORES",
            help="One core per thread, e.g. 0,1 or 2-3; Linux only. Sets --threads too.",
        ),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also the time of each layer, from the engine's profiler.")
    ] = False,
    roofline: Annotated[
        bool,
        typer.Option(
            "--roofline",
            help="Also this machine's own peaks, in float, in INT8 and in memory, and what share of them each layer and"
            " the model reach.",
        ),
    ] = False,
    loadgen: Annotated[
        bool, typer.Option("--loadgen", help="Also run MLPerf's load generator (the extra `loadgen`).")
    ] = False,
    history_path: Annotated[
        Path | None,
        typer.Option("--history", metavar="FILE", help="Add the figures to this file, for `edgetl history`."),
    ] = None,
    target: EngineTarget = "auto",
    variant: Variant = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Measure latency, throughput, load time and peak memory on this machine."""
    from edgetl.bench.pin import parse_cores
    from edgetl.bench.scenarios import BenchOptions, Scenario
    from edgetl.bench.stage import BenchInputs, run
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress

    options = BenchOptions(
        scenario=Scenario(scenario.value),
        runs=runs,
        warmup=warmup,
        threads=threads,
        batch=batch,
        rate=rate,
        bound_ms=bound_ms,
        pin=parse_cores(pin) if pin else (),
    )
    if history_path is not None and history_path.exists():
        from edgetl.history import read

        read(history_path)  # What cannot be added to is reported before the measurement.
    with open_progress() as progress:
        inputs = BenchInputs(
            bundle=bundle,
            images=_timed_on(images, bundle, progress),
            variant=variant,
            target=target,
            require_signature=require_signature,
        )
        record = run(
            options,
            inputs,
            profiled=profile,
            against_peaks=roofline,
            with_loadgen=loadgen,
            progress=progress,
        )
    if json:  # The tables show them.
        for warning in record.warnings:
            typer.echo(f"Warning: {warning}", err=True)
    output.emit(record, json, "bench")
    if history_path is not None:
        from edgetl.history import append

        append(history_path, record)
        typer.echo(f"Added to {history_path}. Show it with: {command('history', history_path)}", err=True)


def _timed_on(images: list[str] | None, bundle: Path, progress: Progress) -> tuple[Path, ...]:
    if not images:
        return ()
    from edgetl.bundle.archive import open_bundle
    from edgetl.runtime.inputs import find_images

    return find_images(images, kind=open_bundle(bundle).manifest.preprocess.kind, progress=progress)


def tune(
    bundle: BundleArg,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=1.0, help="Time for the timing; more time distinguishes closer ones."),
    ] = 10.0,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Find the fastest variant and engine on this machine, and run that from now on wherever no target is named.

    Every variant is tried on every engine that works here: it must give the golden images' outputs, and its accuracy
    must be no lower than the default variant's. What is found is saved in your cache folder.
    """
    from edgetl.bench.tune import tune as measure
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress

    with open_progress() as progress:
        record = measure(
            bundle, threads=threads, seconds=seconds, require_signature=require_signature, progress=progress
        )
    output.emit(record, json, "tune")


def history(
    file: Annotated[Path, typer.Argument(help="A file of `edgetl bench --history`.", show_default=False)],
    last: Annotated[
        int, typer.Option("--last", min=1, max=400, help="Runs of each subject, the latest.")
    ] = 400,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write the trends as a page.")
    ] = None,
    json: Json = False,
) -> None:
    """Show how latency went over many runs, and where its level moved."""
    from edgetl.cli import output
    from edgetl.history import read

    record = read(file, last=last)
    if html is not None:
        from edgetl import files
        from edgetl.report.page.trend import render

        files.write_text(html, render(record))
        typer.echo(f"Wrote {html}.", err=True)
    output.emit(record, json, "history")
