"""Options that more than one command takes, each spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetl.records.scores import BadImages

RecipeArg = Annotated[
    Path, typer.Argument(help="The recipe (TOML); write one with `edgetl init`.", show_default=False)
]
BundleArg = Annotated[
    Path, typer.Argument(help="The bundle, NAME.edgetl, or an OCI layout of it.", show_default=False)
]
DataArg = Annotated[
    str,
    typer.Argument(
        help="A folder SPLIT/CLASS/* or CLASS/*, `digits` or `cifar10`, or a CSV: path, label, split; for any number of"
        " classes `labels`, parted by |, `none` where an image shows none of them; for several heads a column each.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON on standard output.")]
Variant = Annotated[str | None, typer.Option("--variant", help="A model variant instead of the default one.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of the inference engine.")]
EngineTarget = Annotated[
    str,
    typer.Option(
        "--target",
        help="The engine: auto, cpu, cuda, ort-tensorrt, openvino, litert, tensorrt or tensorrt-rtx. Nothing else "
        "takes its place.",
    ),
]
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="Only variants of this arithmetic: fp32, fp16, int8, ...")
]
RequireSignature = Annotated[
    Path | None,
    typer.Option(
        "--require-signature", metavar="KEY", help="Refuse a bundle that this public key did not sign."
    ),
]
BadImagesOption = Annotated[
    BadImages,
    typer.Option(
        "--bad-images",
        help="Images that cannot be read: refuse the set (exit code 2), or skip them, named and counted.",
    ),
]
CoverageOption = Annotated[
    float | None,
    typer.Option(
        "--coverage",
        metavar="SHARE",
        help="Also the set of labels that holds the truth so often, e.g. 0.95, for images like the validation images;"
        " of several heads for each by itself. These images also chose epochs and variant: an approximation.",
        show_default="no set",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. train.epochs=4. Repeatable."),
]
RunDir = Annotated[Path | None, typer.Option("--out", "-o", help="The run folder.", show_default="runs/NAME")]
