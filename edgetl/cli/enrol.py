"""`edgetl enrol`: a class from a few pictures on a device, or one that is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.options import BundleArg, EngineTarget, Json, Threads, Variant

NewBundle = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Where to write; may be the bundle itself.",
        show_default="BUNDLE-enrolled.edgetl",
    ),
]


def enrol(
    bundle: BundleArg,
    label: Annotated[
        str, typer.Argument(metavar="NAME", help="The class that is added.", show_default=False)
    ] = "",
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES", help="1 to 20 pictures of it: files, folders or globs.", show_default=False
        ),
    ] = None,
    forget: Annotated[
        str | None,
        typer.Option("--forget", metavar="NAME", help="Take away a class that was added, instead."),
    ] = None,
    false_alarms: Annotated[
        float,
        typer.Option(
            "--false-alarms",
            metavar="SHARE",
            help="The share of images of trained classes that may be answered with an added one, of all added ones"
            " together. Less keeps trained classes safer and finds added ones less often.",
        ),
    ] = 0.005,
    output_path: NewBundle = None,
    variant: Variant = None,
    target: EngineTarget = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Add a class from a few pictures, without training: the trained classes' answers stay unless it is clearly nearer.
    Writes a new bundle, with its own golden outputs, for this machine; sign it anew where signatures are required.
    """
    from edgetl.bundle.archive import open_bundle
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.errors import ConfigError
    from edgetl.runtime import enrol as enrolling
    from edgetl.runtime.inputs import find_images

    if (forget is None) == (not label):
        raise ConfigError("Give NAME and IMAGES of a class to add, or --forget NAME, and not both.")
    options = enrolling.Enrolment(variant=variant, target=target, threads=threads, false_alarms=false_alarms)
    out = output_path or _beside(bundle)
    with open_progress() as progress:
        if forget is not None:
            record = enrolling.forget(bundle, forget, out, options, progress=progress)
        else:
            kind = open_bundle(bundle).manifest.preprocess.kind
            pictures = find_images(images or [], kind=kind, progress=progress)
            record = enrolling.enrol(bundle, label, pictures, out, options, progress=progress)
    output.emit(record, json, "enrolled")


def _beside(bundle: Path) -> Path:
    """Where a new bundle goes; one that is there and is not the bundle itself is not replaced unasked.

    Raises:
        ConfigError: there is one.
    """
    from edgetl.errors import ConfigError

    if bundle.stem.endswith("-enrolled"):
        return bundle
    suffix = ".edgetl" if bundle.is_dir() else bundle.suffix
    out = bundle.with_name(f"{bundle.stem}-enrolled{suffix}")
    if out.exists():
        raise ConfigError(
            f"{out} is there already; add to that one, or choose another name with -o, which may be its own."
        )
    return out
