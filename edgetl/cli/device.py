"""Commands of the device side: numpy, Pillow and one inference engine are enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.bench import bench, history, tune
from edgetl.cli.enrol import enrol
from edgetl.cli.gate import baseline, gate
from edgetl.cli.keys import keygen, sign
from edgetl.cli.oci import oci
from edgetl.cli.options import (
    BadImagesOption,
    BundleArg,
    CoverageOption,
    EngineTarget,
    Json,
    PrecisionOption,
    RequireSignature,
    Threads,
    Variant,
)
from edgetl.cli.outcome import say_choice
from edgetl.cli.predict import drift, predict
from edgetl.cli.root import add_commands
from edgetl.cli.serve import serve
from edgetl.records.scores import BadImages

PANEL = "Use a model (no torch needed)"

DataDir = Annotated[
    Path,
    typer.Argument(
        help="Labelled images: CLASS/* or SPLIT/CLASS/*, a CSV; of a detector boxes as COCO, YOLO, VOC or CSV.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app, in the order of their use."""
    examples: dict[Callable[..., None], str] = {
        info: "edgetl info model.edgetl",
        verify: "edgetl verify model.edgetl",
        predict: "edgetl predict model.edgetl photo.jpg --json",
        evaluate: "edgetl eval model.edgetl photos/",
        enrol: "edgetl enrol model.edgetl scratch pictures/*.jpg -o model-2.edgetl",
        drift: "edgetl drift model.edgetl photos/of/today/",
        bench: "edgetl bench model.edgetl --profile --history bench.sqlite",
        tune: "edgetl tune model.edgetl",
        history: "edgetl history bench.sqlite --html trend.html",
        baseline: "edgetl baseline model.edgetl -o baseline.json",
        gate: "edgetl gate new.edgetl --against old.edgetl",
        keygen: "edgetl keygen signing.pem",
        sign: "edgetl sign model.edgetl --key signing.pem",
        serve: "edgetl serve model.edgetl --port 8000",
        oci: "edgetl oci model.edgetl -o model-oci",
        doctor: "edgetl doctor",
    }
    add_commands(app, PANEL, examples)
    add_commands(app, "Learn", {guide: "edgetl guide cookbook"})


def info(bundle: BundleArg, json: Json = False) -> None:
    """Show what a bundle holds: labels, preprocessing, variants, figures, provenance; and what would run here."""
    from edgetl.bundle.archive import open_bundle
    from edgetl.cli import output
    from edgetl.errors import BundleError
    from edgetl.runtime.choice import choose_here

    opened = open_bundle(bundle)
    output.emit(opened.manifest, json, "bundle")
    try:
        say_choice(choose_here(opened, threads=None))
    except BundleError as error:
        typer.echo(f"Here: {error}", err=True)


def verify(
    bundle: BundleArg,
    target: EngineTarget = "auto",
    variant: Variant = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Check every hash, and that this machine gives the golden images' outputs. Exit code 1 where it does not."""
    from edgetl.cli import output
    from edgetl.runtime import load

    with load(
        bundle,
        target=target,
        variant=variant,
        precision=precision,
        threads=threads,
        require_signature=require_signature,
    ) as session:
        say_choice(session.choice)
        report = session.verify()
    output.emit(report, json, "verify")
    if not report.passed:
        raise typer.Exit(1)


def evaluate(
    bundle: BundleArg,
    data: DataDir,
    bad_images: BadImagesOption = BadImages.REFUSE,
    coverage: CoverageOption = None,
    unknown: Annotated[
        Path | None,
        typer.Option(
            "--unknown",
            metavar="FOLDER",
            help="Also how well each score tells the images of this folder, which the model should not know, from those"
            " of DATA: AUROC, and how many pass where 95% of the known ones do.",
        ),
    ] = None,
    target: EngineTarget = "auto",
    variant: Variant = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Score a bundle on labelled images: accuracy, macro-F1, per-class recall, confusion; of boxes mAP and mistakes.

    The test split is scored, else the validation split, else all. A bundle knows the images that it was trained on and
    validated with: a warning counts them, and in a folder without splits they are left out while others remain.
    `--json` has both in `image_set`. baseline, gate and parity do the same.

    With `--coverage` it says how often the sets of labels held the truth, and their mean size.
    """
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.runtime import load
    from edgetl.runtime.evaluate import evaluate_folder

    with (
        load(
            bundle,
            target=target,
            variant=variant,
            precision=precision,
            threads=threads,
            require_signature=require_signature,
        ) as session,
        open_progress() as progress,
    ):
        say_choice(session.choice)
        output.emit(
            evaluate_folder(
                session,
                data,
                bad_images=bad_images,
                coverage=coverage,
                unknown=unknown,
                progress=progress,
            ),
            json,
            "evaluation",
        )


def doctor(json: Json = False) -> None:
    """Say what this machine can run, and what to install for more."""
    from edgetl.cli import output
    from edgetl.runtime.doctor import examine

    output.emit(examine(), json, "doctor")


def guide(
    topic: Annotated[str | None, typer.Argument(help="The page.", show_default="the list of topics")] = None,
    json: Json = False,
) -> None:
    """Read the manual: how to install, each stage and why, a cookbook, the file format, a glossary, the reference."""
    from edgetl import guide as manual
    from edgetl.cli import output

    output.emit(manual.topics() if json and topic is None else manual.page(topic), json, "guide")
