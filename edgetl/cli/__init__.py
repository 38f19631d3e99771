"""The command line: thin. A command builds the config, calls, and emits; only here do exceptions become exit codes.

Exit codes: 0 done; 1 a gate failed; 2 the input is wrong; 3 a gate cannot tell; 70 a bug, which keeps its traceback;
130 stopped by Ctrl-C; 141 the reader of standard output has gone. Each class of `edgetl.errors` names its own.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys

import typer

from edgetl.cli import device, fleet, host, report
from edgetl.cli.root import Root

BUG = 70
"""Exit code of what is not the user's to mend (`EX_SOFTWARE` of sysexits.h): never one of a gate."""

_OBJECTS_PER_COLLECTION = 50_000

app = typer.Typer(
    name="edgetl",
    cls=Root,
    help="From a folder of images to a small, measured, gated model on an edge device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
host.register(app)
report.register(app)
device.register(app)
fleet.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from edgetl._version import BUNDLE_SCHEMA, __version__

        typer.echo(
            f"edgetl {__version__}\nbundle schema {BUNDLE_SCHEMA}; what changed: edgetl guide changelog"
        )
        raise typer.Exit


@app.callback()
def _root(
    # By its callback, since a command is asked for before this function runs.
    version: bool = typer.Option(
        False, "--version", help="Print the version and leave.", is_eager=True, callback=_print_version
    ),
) -> None:
    pass


def process() -> None:
    """What a process does from start to end: `main`, and to leave without delay.

    Else the interpreter would look for garbage while torch is imported, and take it apart when it ends: both take
    longer than most commands' own work, and only make the user wait.
    """
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    own, code = os.getpid(), BUG

    def leave() -> None:
        if os.getpid() == own and "torch" in sys.modules:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os._exit(code)

    atexit.register(leave)  # Before all that is imported from here on, so that it is called after theirs.
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


def main() -> None:
    """Run the command line and turn the user's errors into one clear message and an exit code."""
    from edgetl.cli import streams

    with streams.safe():
        sys.exit(_run())


def _run() -> int:
    from edgetl.errors import EdgetlError, Interrupted

    try:
        try:
            app()
        except SystemExit as leave:
            # Here and not when the interpreter ends, where an error would be a traceback.
            sys.stdout.flush()
            return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        return 0
    except Interrupted as stop:
        typer.echo(str(stop), err=True)
        return stop.exit_code
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        return Interrupted.exit_code
    except EdgetlError as error:
        typer.secho("Error: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(str(error), err=True)
        return error.exit_code
    except Exception:
        sys.excepthook(*sys.exc_info())
        return BUG
