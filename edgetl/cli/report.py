"""A run's figures again, or two runs side by side; a model's card and its bill of materials."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.options import BadImagesOption, EngineTarget, Json, Threads, Variant
from edgetl.cli.root import add_commands
from edgetl.records.scores import BadImages

PANEL = "Look at runs and bundles (no torch needed)"


class SplitName(StrEnum):
    """The images that two runs are compared on."""

    VAL = "val"
    TEST = "test"


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    examples: dict[Callable[..., None], str] = {
        report: "edgetl report runs/before runs/after",
        card: "edgetl card runs/photos -o model-card.md",
        sbom: "edgetl sbom photos.edgetl -o photos.cdx.json",
    }
    add_commands(app, PANEL, examples)


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder; beside another also a bundle.", show_default=False),
    ],
    other: Annotated[
        Path | None,
        typer.Argument(
            metavar="OTHER", help="A run or bundle to set beside it: what came after it.", show_default=False
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Labelled images to compare on, as of `edgetl eval`; bundles need them.",
            show_default="the validation images that both runs have",
        ),
    ] = None,
    split: Annotated[
        SplitName, typer.Option("--split", help="Of the images that both runs have.")
    ] = SplitName.VAL,
    bad_images: BadImagesOption = BadImages.REFUSE,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            min=0.0,
            help="Time both in turn here, so long at most; 0 shows what was measured before.",
        ),
    ] = 0.0,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            metavar="FILE",
            help="Where to write the page of two.",
            show_default="compare-RUN-OTHER.html",
        ),
    ] = None,
    variant: Variant = None,
    target: EngineTarget = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Show a run's figures, or compare two: settings, scores on the same images, those that flipped, latency, size."""
    from edgetl.cli import output

    if other is None:
        from edgetl.report.stored import load_report

        output.emit(load_report(run), json, "run")
        typer.echo(f"Report: {run / 'report.html'}", err=True)
        return
    from edgetl.cli.progress import open_progress
    from edgetl.comparison import stage
    from edgetl.comparison.sides import open_side
    from edgetl.report.page.comparison import write_page

    config = stage.ComparisonConfig(
        data=data,
        split=split.value,
        bad_images=bad_images,
        variant=variant,
        target=target,
        threads=threads,
        seconds=seconds,
    )
    with open_progress() as progress:
        record = stage.run(run, other, config, progress=progress)
    output.emit(record, json, "comparison")
    path = page or Path(stage.page_name(record))
    write_page(record, path, open_side(other).bundle.manifest.preprocess)
    typer.echo(f"Wrote {path}.", err=True)


RunOrBundle = Annotated[
    Path, typer.Argument(metavar="RUN|BUNDLE", help="A run folder, or a bundle.", show_default=False)
]
ToFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Where to write.", show_default="standard output"),
]


def card(source: RunOrBundle, output_path: ToFile = None) -> None:
    """Write the model card (Markdown): what the model is, limits, figures, data, licences, provenance.

    Of a bundle alone it says less than of its run.
    """
    from edgetl.comparison.sides import open_side
    from edgetl.report import card as cards
    from edgetl.report.stored import load_report

    side = open_side(source)
    _write(cards.card(side.bundle, None if side.run is None else load_report(source)), output_path)


def sbom(source: RunOrBundle, output_path: ToFile = None) -> None:
    """Write the bill of materials (CycloneDX 1.6, JSON): models, weights, data, and the packages installed here."""
    from edgetl.comparison.sides import open_side
    from edgetl.report.sbom import bill_of_materials, encoded

    _write(encoded(bill_of_materials(open_side(source).bundle)), output_path)


def _write(text: str, path: Path | None) -> None:
    from edgetl.files import write_text

    if path is None:
        typer.echo(text, nl=False)
        return
    write_text(path, text)
    typer.echo(f"Wrote {path}.", err=True)
