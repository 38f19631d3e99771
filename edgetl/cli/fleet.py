"""`edgetl fleet`: the same commands over SSH, on many devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetl.cli.options import BundleArg, Json, Threads
from edgetl.errors import ConfigError

if TYPE_CHECKING:
    from edgetl.deploy.fleet.config import Fleet
    from edgetl.deploy.fleet.record import FleetRecord
    from edgetl.deploy.fleet.run import Work

PANEL = "Many devices"

FleetArg = Annotated[
    Path,
    typer.Argument(
        metavar="FLEET", help="The file of devices (TOML); see `edgetl guide fleet`.", show_default=False
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Only this device. Repeatable.", show_default="all of them"),
]
KeepOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Keep each device's record there; the same command again asks only devices that gave none.",
    ),
]
DataThere = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Labelled images on the devices, from the folder there, that the gate scores; else the bundles' figures.",
    ),
]
PageOption = Annotated[
    Path | None, typer.Option("--page", metavar="FILE", help="Also write the devices side by side as a page.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app, in the order of their use."""
    fleet = typer.Typer(
        help="Many devices over OpenSSH: install, deploy, prove, measure, and bring home what they kept.",
        no_args_is_help=True,
    )
    examples: dict[Callable[..., None], str] = {
        init: "edgetl fleet init fleet.toml --wheels wheels/",
        deploy: "edgetl fleet deploy fleet.toml photos.edgetl --max-ms 20",
        status: "edgetl fleet status fleet.toml",
        verify: "edgetl fleet verify fleet.toml",
        bench: "edgetl fleet bench fleet.toml --page fleet.html",
        gate: "edgetl fleet gate fleet.toml new.edgetl",
        tune: "edgetl fleet tune fleet.toml --only line-1",
        capture: "edgetl fleet capture fleet.toml -o captured/",
        rollback: "edgetl fleet rollback fleet.toml --only line-1",
    }
    for function, example in examples.items():
        fleet.command(function.__name__, epilog=f"Example: {example}")(function)
    app.add_typer(fleet, name="fleet", rich_help_panel=PANEL)


def init(
    fleet: FleetArg,
    only: Only = None,
    wheel: Annotated[
        Path | None,
        typer.Option("--wheel", metavar="FILE", help="edgetl's wheel.", show_default="the newest in dist/"),
    ] = None,
    wheels: Annotated[
        Path | None,
        typer.Option(
            "--wheels",
            metavar="DIR",
            help="A folder of wheels that are carried there; then a device needs no network. Where one of another"
            " processor or Python lacks some, it says which.",
            show_default="the device fetches packages itself",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Install edgetl and one engine on every device, in an environment of its own. The old one stays until it runs."""
    from edgetl.deploy.fleet.install import install, installation

    known = _known(fleet, only)
    wanted = installation(wheel, wheels, signed=known.require_signature is not None)
    _emit(_run(known, "init", lambda place, reporter: install(place, wanted, reporter)), json)


def deploy(
    fleet: FleetArg,
    bundle: BundleArg,
    only: Only = None,
    max_ms: Annotated[
        float | None,
        typer.Option("--max-ms", min=0.0, metavar="MS", help="Refuse it where its median there is longer."),
    ] = None,
    gated: Annotated[
        bool,
        typer.Option(
            "--gate", help="Hold it to the bundle that runs there, as `edgetl gate --against` does."
        ),
    ] = False,
    data: DataThere = None,
    runs: Annotated[int, typer.Option("--runs", min=10, help="Calls that are timed there.")] = 100,
    other_task: Annotated[
        bool, typer.Option("--other-task", help="Let it take the place of a bundle for another task.")
    ] = False,
    json: Json = False,
) -> None:
    """Bring a bundle to every device and let it run there, once it is proven there: else the old one stays.

    It is uploaded (an upload that broke goes on where it stopped), its hashes and signature are checked, its golden
    images are replayed, it is measured, and then one link is switched. Exit code 1 where a device computes something
    else or is too slow, 2 where one is away or refuses, 3 where a gate cannot tell.
    """
    from edgetl.deploy.fleet.deploy import deploy as put
    from edgetl.deploy.fleet.deploy import deployment

    known = _known(fleet, only)
    wanted = deployment(
        bundle,
        known.require_signature,
        runs=runs,
        max_ms=max_ms,
        gate=gated,
        data=data,
        other_task=other_task,
    )
    record = _run(known, "deploy", lambda place, reporter: put(place, wanted, reporter), bundle=str(bundle))
    _emit(record, json)


def status(fleet: FleetArg, only: Only = None, json: Json = False) -> None:
    """Say what stands on every device: versions, which bundle runs, disk, clock, kept images."""
    from edgetl.deploy.fleet.ask import status as ask

    _emit(_run(_known(fleet, only), "status", ask), json)


def verify(fleet: FleetArg, only: Only = None, keep: KeepOption = None, json: Json = False) -> None:
    """Does every device compute what was recorded in the bundle that runs there? Exit code 1 where one does not."""
    from edgetl.deploy.fleet.ask import verify as ask

    known = _known(fleet, only)
    key = known.require_signature.read_bytes() if known.require_signature else None
    record = _run(
        known, "verify", lambda place, reporter: ask(place, key, reporter), keep=keep, question="verify"
    )
    _emit(record, json)


def bench(
    fleet: FleetArg,
    only: Only = None,
    scenario: Annotated[
        str,
        typer.Option("--scenario", help="The load: single-stream, multi-stream, offline or server."),
    ] = "single-stream",
    runs: Annotated[int, typer.Option("--runs", min=10, help="Samples.")] = 200,
    threads: Threads = None,
    keep: KeepOption = None,
    page: PageOption = None,
    json: Json = False,
) -> None:
    """Measure the bundle that runs on every device there, side by side in one table."""
    from edgetl.deploy.fleet.ask import Timing
    from edgetl.deploy.fleet.ask import bench as ask

    known = _known(fleet, only)
    scenarios = ("single-stream", "multi-stream", "offline", "server")
    if scenario not in scenarios:
        raise ConfigError(f"--scenario: got {scenario!r}, expected one of {', '.join(scenarios)}.")
    timing = Timing(runs=runs, scenario=scenario, threads=threads)
    record = _run(
        known,
        "bench",
        lambda place, reporter: ask(place, timing, reporter),
        keep=keep,
        question=("bench", timing),
    )
    _write_page(record, page)
    _emit(record, json)


def gate(
    fleet: FleetArg,
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="A bundle that is carried there and held to the one that runs; without it, that one is held to the one"
            " before.",
            show_default=False,
        ),
    ] = None,
    only: Only = None,
    data: DataThere = None,
    max_latency_increase: Annotated[
        float, typer.Option(help="Allowed growth of the median latency, as a share.")
    ] = 0.025,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=1.0, help="Longest time for the timing; it stops when it can tell."),
    ] = 60.0,
    keep: KeepOption = None,
    page: PageOption = None,
    json: Json = False,
) -> None:
    """Gate a bundle on every device, timed in turn with the one that runs there; nothing is switched.

    Exit code 1 where it got worse on one, 3 where that cannot be decided.
    """
    from edgetl.deploy.fleet.ask import Holding
    from edgetl.deploy.fleet.ask import gate as ask
    from edgetl.deploy.fleet.deploy import deployment

    known = _known(fleet, only)
    candidate = deployment(bundle, known.require_signature) if bundle is not None else None
    holding = Holding(max_latency_increase=max_latency_increase, seconds=seconds, data=data)
    record = _run(
        known,
        "gate",
        lambda place, reporter: ask(place, candidate, holding, reporter),
        keep=keep,
        question=("gate", holding, candidate.sha256 if candidate else ""),
        bundle=str(bundle or ""),
    )
    _write_page(record, page)
    _emit(record, json)


def tune(
    fleet: FleetArg,
    only: Only = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1.0, help="Time for the timing.")] = 10.0,
    keep: KeepOption = None,
    json: Json = False,
) -> None:
    """Find the fastest variant and engine on every device; each runs it from now on."""
    from edgetl.deploy.fleet.ask import tune as ask

    known = _known(fleet, only)
    record = _run(
        known,
        "tune",
        lambda place, reporter: ask(place, seconds, reporter),
        keep=keep,
        question=("tune", seconds),
    )
    _emit(record, json)


def capture(
    fleet: FleetArg,
    output_path: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where to, in a folder for each device.")
    ] = Path("captured"),
    only: Only = None,
    limit_mb: Annotated[
        float, typer.Option("--limit-mb", min=1.0, metavar="MIB", help="What comes from a device at once.")
    ] = 200.0,
    remove: Annotated[
        bool,
        typer.Option(
            "--remove", help="Remove pictures there once they are here, so that further ones have room."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Bring home the images that the devices kept (`edgetl predict --capture`); those that are here are not fetched."""
    from edgetl.deploy.fleet.capture import Fetching, fetch

    known = _known(fleet, only)
    if output_path.exists() and not output_path.is_dir():
        raise ConfigError(f"{output_path} is a file; name a folder with -o.")
    wanted = Fetching(out=output_path, limit_mb=limit_mb, remove=remove)
    _emit(_run(known, "capture", lambda place, reporter: fetch(place, wanted, reporter)), json)


def rollback(fleet: FleetArg, only: Only = None, json: Json = False) -> None:
    """Let the bundle from before run again on every device, where it still gives its golden outputs there."""
    from edgetl.deploy.fleet.deploy import rollback as back

    _emit(_run(_known(fleet, only), "rollback", back), json)


def _known(path: Path, only: list[str] | None) -> Fleet:
    from edgetl.deploy.fleet.config import load

    return load(path).only(only or [])


def _run(
    fleet: Fleet,
    command: str,
    work: Work,
    *,
    keep: Path | None = None,
    question: Any = None,
    bundle: str = "",
) -> FleetRecord:
    from edgetl.cli.progress import open_progress
    from edgetl.deploy.fleet.run import Keeping, run
    from edgetl.records.codec import to_json

    keeping = Keeping(folder=keep, question=to_json(question)) if keep is not None else None
    with open_progress() as progress:
        return run(fleet, command, work, bundle=bundle, keeping=keeping, progress=progress)


def _write_page(record: FleetRecord, page: Path | None) -> None:
    if page is None:
        return
    from edgetl.files import write_text
    from edgetl.report.page.fleet import render

    write_text(page, render(record))
    typer.echo(f"Wrote {page}.", err=True)


def _emit(record: FleetRecord, json: bool) -> None:
    """Show what became of the devices; the exit code says the worst."""
    from edgetl.cli import output
    from edgetl.deploy.fleet.record import Outcome

    if json:  # The tables show them.
        for device in record.devices:
            if device.outcome is not Outcome.DONE:
                typer.echo(f"{device.device}: {device.sentence}", err=True)
    output.emit(record, json, "fleet")
    if record.exit_code:
        raise typer.Exit(record.exit_code)
