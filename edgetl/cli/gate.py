"""`edgetl baseline` and `edgetl gate`: is a new bundle worse than an old one?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.options import (
    BadImagesOption,
    BundleArg,
    EngineTarget,
    Json,
    RequireSignature,
    Threads,
    Variant,
)
from edgetl.cli.outcome import end_by
from edgetl.records.scores import BadImages
from edgetl.shell import command

ScoredImages = Annotated[
    Path | None, typer.Option("--data", help="Labelled images to score; else the bundle's figures.")
]


def baseline(
    bundle: BundleArg,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")] = Path(
        "baseline.json"
    ),
    data: ScoredImages = None,
    bad_images: BadImagesOption = BadImages.REFUSE,
    target: EngineTarget = "auto",
    variant: Variant = None,
    threads: Threads = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Latency samples.")] = 200,
    require_signature: RequireSignature = None,
) -> None:
    """Measure accuracy, latency, size, memory and load time here and keep them for `edgetl gate`."""
    from edgetl.cli.progress import open_progress
    from edgetl.gate.stage import make_baseline

    _require_signed(require_signature, bundle)
    with open_progress() as progress:
        made = make_baseline(
            bundle,
            data=data,
            bad_images=bad_images,
            variant=variant,
            target=target,
            threads=threads,
            runs=runs,
            progress=progress,
        )
    made.save(output_path)
    typer.echo(
        f"Wrote {output_path}. Later: {command('gate', 'NEW_BUNDLE', '--baseline', output_path)}", err=True
    )


def gate(
    bundle: BundleArg,
    baseline_path: Annotated[
        Path | None, typer.Option("--baseline", help="A file of `edgetl baseline`.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another bundle, timed side by side.")
    ] = None,
    data: ScoredImages = None,
    bad_images: BadImagesOption = BadImages.REFUSE,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            help="Allowed loss of top-1 and macro-F1, of boxes of mAP, in 0..1.",
            show_default="0.01, or the least that the images can settle",
        ),
    ] = None,
    max_recall_drop: Annotated[
        float, typer.Option(help="Allowed loss of any class's recall, of boxes of its AP, in 0..1.")
    ] = 0.10,
    max_latency_increase: Annotated[
        float, typer.Option(help="Allowed growth of the median latency, as a share.")
    ] = 0.025,
    max_size_increase: Annotated[float, typer.Option(help="Allowed growth of the file, as a share.")] = 0.05,
    max_memory_increase: Annotated[
        float, typer.Option(help="Allowed growth of the peak memory, as a share.")
    ] = 0.10,
    max_load_increase: Annotated[
        float, typer.Option(help="Allowed growth of the load time, as a share.")
    ] = 0.50,
    max_bits_increase: Annotated[
        float, typer.Option(help="Allowed growth of the mean bits that layers compute in, as a share.")
    ] = 0.0,
    report_path: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write an HTML page with the images that flipped."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="With --against: longest time for the timing; it stops when it can tell.")
    ] = 60.0,
    history: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --baseline: a file of `edgetl bench --history`, to know how this machine differs between runs.",
        ),
    ] = None,
    allow_other_machine: Annotated[
        bool,
        typer.Option("--allow-other-machine", help="Report latency but do not judge it on another machine."),
    ] = False,
    target: EngineTarget = "auto",
    variant: Variant = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Fail (exit code 1) where accuracy, latency, size, memory, load time or precision got worse.

    Exit code 3 where that cannot be decided.
    """
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.gate.compare import Limits
    from edgetl.gate.stage import gate_against, gate_baseline

    if (baseline_path is None) == (against is None):
        raise typer.BadParameter("give either --baseline FILE or --against OTHER_BUNDLE")
    _require_signed(require_signature, bundle)
    limits = Limits(
        max_accuracy_drop=max_accuracy_drop,
        max_recall_drop=max_recall_drop,
        max_latency_increase=max_latency_increase,
        max_size_increase=max_size_increase,
        max_memory_increase=max_memory_increase,
        max_load_increase=max_load_increase,
        max_bits_increase=max_bits_increase,
    )
    with open_progress() as progress:
        if against is not None:
            report = gate_against(
                bundle,
                against,
                limits=limits,
                data=data,
                bad_images=bad_images,
                variant=variant,
                target=target,
                threads=threads,
                seconds=seconds,
                progress=progress,
            )
        else:
            assert baseline_path is not None
            report = gate_baseline(
                bundle,
                baseline_path,
                limits=limits,
                data=data,
                bad_images=bad_images,
                variant=variant,
                target=target,
                threads=threads,
                history=history,
                allow_other_machine=allow_other_machine,
                progress=progress,
            )
    if report_path is not None:
        from edgetl.bundle.archive import open_bundle
        from edgetl.report.page.gate import write_page
        from edgetl.tasks.labelling import labelling_of

        manifest = open_bundle(bundle).manifest
        write_page(report, report_path, data, manifest.preprocess, labelling_of(manifest.task))
        typer.echo(f"Wrote {report_path}.", err=True)
    output.emit(report, json, "gate")
    end_by(report.verdict)


def _require_signed(key: Path | None, bundle: Path) -> None:
    if key is not None:
        from edgetl.bundle.archive import open_bundle
        from edgetl.bundle.signature import require_signature

        require_signature(open_bundle(bundle), key)
