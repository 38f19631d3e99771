"""`edgetl oci`: a bundle for registries and the updaters that pull from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.options import BundleArg, Json


def oci(
    bundle: BundleArg,
    output_path: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The layout's folder: a new one, or one to replace.", show_default=False
        ),
    ],
    tag: Annotated[str, typer.Option("--tag", help="The artifact's name in the layout.")] = "latest",
    json: Json = False,
) -> None:
    """Write a bundle as an OCI artifact, which registries store and skopeo, oras, crane and updaters on devices copy.

    Accuracy, latency and signature stand in its annotations. Every command takes the folder in place of the file.
    """
    from edgetl.cli import output
    from edgetl.deploy.oci import write_oci

    output.emit(write_oci(bundle, output_path, tag=tag), json, "oci")
