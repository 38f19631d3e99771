"""`edgetl serve`: bundles over HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.options import EngineTarget, Json, PrecisionOption, RequireSignature, Threads, Variant

TOKEN_VARIABLE = "EDGETL_TOKEN"


def serve(
    bundles: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE...",
            help="Bundles, or OCI layouts of them; NAME=BUNDLE serves one under another name than its own.",
            show_default=False,
        ),
    ],
    port: Annotated[int, typer.Option("--port", help="Where to listen; 0 takes any free port.")] = 8000,
    host: Annotated[
        str, typer.Option("--host", help="127.0.0.1 for this machine alone, 0.0.0.0 for the network.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help=f"A file with the token that clients must send, of 16 characters or more; else {TOKEN_VARIABLE}.",
            show_default="no token",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", metavar="FILE", help="The certificate, PEM, with its chain: serve HTTPS."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option("--tls-key", metavar="FILE", help="The certificate's key, PEM, unencrypted."),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", help="Images per call of the engine.", show_default="by the engine"),
    ] = None,
    max_wait_ms: Annotated[
        float | None,
        typer.Option(
            "--max-wait-ms",
            help="How long a request waits for others that are still being read.",
            show_default="0 on CPUs, 2 on GPUs",
        ),
    ] = None,
    queue: Annotated[
        int,
        typer.Option("--queue", help="Requests of a model that may wait; others get 429 and Retry-After."),
    ] = 128,
    max_mb: Annotated[float, typer.Option("--max-mb", help="MiB of a request's body.")] = 16.0,
    max_megapixels: Annotated[
        float, typer.Option("--max-megapixels", help="Millions of pixels of a picture.")
    ] = 50.0,
    seconds: Annotated[
        float,
        typer.Option("--seconds", help="In which a request must have come, and in which it is answered."),
    ] = 10.0,
    watch: Annotated[
        float,
        typer.Option(
            "--watch",
            metavar="SECONDS",
            help="How often to look for a new bundle in an old one's place, which takes over; 0 never looks.",
        ),
    ] = 1.0,
    log_requests: Annotated[
        bool, typer.Option("--log-requests/--no-log-requests", help="A line of JSON for every request.")
    ] = True,
    target: EngineTarget = "auto",
    variant: Variant = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Serve bundles over HTTP: the Open Inference Protocol, pictures in and answers out, metrics, and a page to try.

    Every bundle is verified before it answers. SIGTERM ends it when all requests that came are answered. Its log goes
    to standard error, one JSON object per line.
    """
    from edgetl.cli.progress import open_progress
    from edgetl.deploy.server.options import Batching, Limits, ModelOptions, ServerOptions, named_paths
    from edgetl.deploy.server.running import Serving
    from edgetl.deploy.server.running import serve as run

    options = ServerOptions(
        host=host,
        port=port,
        token=_token(token_file),
        certificate=tls_cert,
        key=tls_key,
        batching=Batching(max_batch=max_batch, max_wait_ms=max_wait_ms, queue=queue, seconds=seconds),
        limits=Limits(
            max_bytes=round(max_mb * (1 << 20)), max_pixels=round(max_megapixels * 1e6), seconds=seconds
        ),
        watch_seconds=watch,
        log_requests=log_requests,
    )
    models = ModelOptions(
        target=target,
        variant=variant,
        precision=precision,
        threads=threads,
        require_signature=require_signature,
    )

    def started(serving: Serving, _stop: Callable[[], None]) -> None:
        from edgetl.cli import output

        output.emit(serving, json, "serving")

    with open_progress() as progress:
        run(named_paths(bundles), models, options, started=started, progress=progress)


def _token(path: Path | None) -> str | None:
    from edgetl.errors import ConfigError

    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"Cannot read the token in {path}: {reason}.") from error
    if not text:
        raise ConfigError(f"{path} is empty; write the token into it.")
    return text
