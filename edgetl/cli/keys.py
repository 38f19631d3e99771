"""`edgetl keygen` and `edgetl sign`: who made a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.options import BundleArg, Json


def keygen(
    private: Annotated[Path, typer.Argument(help="Where to write the private key.", show_default=False)],
    json: Json = False,
) -> None:
    """Make a key pair for `edgetl sign`: the private key, and the public one next to it as FILE.pub."""
    from edgetl.bundle.signature import make_keys
    from edgetl.cli import output

    output.emit(make_keys(private), json, "keys")


def sign(
    bundle: BundleArg,
    key: Annotated[
        Path,
        typer.Option("--key", help="The private key, of `edgetl keygen` or OpenSSL.", show_default=False),
    ],
    output_path: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write.", show_default="in place")
    ] = None,
    json: Json = False,
) -> None:
    """Sign a bundle with Ed25519, so that `--require-signature` accepts it on a device."""
    from edgetl.bundle.signature import sign as sign_bundle
    from edgetl.cli import output

    output.emit(sign_bundle(bundle, key, output_path), json, "signed")
