"""A server from its start to its end: the socket, TLS, connections that ask nothing, signals. Imports uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.deploy.server.app import Asgi, State, make_app
from edgetl.deploy.server.log import Log
from edgetl.deploy.server.metrics import Metrics
from edgetl.deploy.server.models import Models
from edgetl.deploy.server.options import ModelOptions, ServerOptions
from edgetl.errors import ConfigError, Interrupted
from edgetl.packages import missing
from edgetl.progress import SILENT, Progress

_SWEEP_SECONDS = 1.0
_STOP_SECONDS = 30
_TAKE_SECONDS = 30.0
"""In which a client must have taken its answer."""
_SPARE_FILES = 64
_MOST_HEAD_BYTES = 512 << 10
"""Of a request's head, with what of its body comes along: asyncio reads up to 256 KiB at a time."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A server that listens: its address, and the models that it has."""

    url: str
    models: tuple[str, ...]


def serve(
    paths: Mapping[str, Path],
    models: ModelOptions,
    options: ServerOptions,
    *,
    started: Callable[[Serving, Callable[[], None]], None],
    log: Log | None = None,
    progress: Progress = SILENT,
) -> None:
    """Serve bundles until the process is told to stop (SIGTERM, Ctrl-C); then all requests that came are answered.

    Args:
        paths: of the bundles, by name; see `edgetl.deploy.server.options.named_paths`.
        models: which model of each, by what engine.
        options: where, to whom, and how much.
        started: called when it listens, with its address and with what stops it, from any thread.
        log: where it says what it does; standard error where unset.
        progress: of loading the models.

    Raises:
        BundleError: a bundle cannot be used.
        ConfigError: the address is taken or is none, a TLS file cannot be used, or two models have one name.
        Interrupted: it was stopped by Ctrl-C.
        MissingDependencyError: what serves is not installed.
    """
    _check_installed()
    log = log or Log()
    if options.token is None and not options.local:
        log.warning("open to all", host=options.host, remedy="give --token-file, so that only some can ask")
    if options.certificate is not None and options.key is not None:
        _check_tls(options.certificate, options.key)
    with _listening(options) as listener:  # First: who has the port says so before models are loaded.
        metrics = Metrics()
        loaded = Models(paths, models, options.batching, metrics, log, progress=progress)
        try:
            asyncio.run(_run(State(loaded, options, metrics, log, ready=False), listener, started))
        finally:
            loaded.close()


async def _run(
    state: State, listener: socket.socket, started: Callable[[Serving, Callable[[], None]], None]
) -> None:
    import uvicorn

    options, log = state.options, state.log
    config = uvicorn.Config(
        _typed(make_app(state)),
        http=_protocol(options),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, round(options.limits.seconds)),
        timeout_graceful_shutdown=_STOP_SECONDS,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )

    class Quiet(uvicorn.Server):
        """It leaves signals to us, since its own way ends the process by the signal that it got, and bounds how long
        TLS may take to begin."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await self.lifespan.startup()
            create = self.config.http_protocol_class
            made = await asyncio.get_running_loop().create_server(
                lambda: create(  # type: ignore[call-arg]
                    config=self.config, server_state=self.server_state, app_state=self.lifespan.state
                ),
                sock=listener,
                ssl=self.config.ssl,
                ssl_handshake_timeout=None if self.config.ssl is None else options.limits.seconds,
                backlog=self.config.backlog,
            )
            self.servers = [made]
            self.started = True

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    server = Quiet(config)
    stopped_by: list[int] = []

    def stop(number: int) -> None:
        if stopped_by:
            server.force_exit = True
        stopped_by.append(number)
        state.ready = False
        server.should_exit = True

    state.connections = lambda: len(server.server_state.connections)
    loop = asyncio.get_running_loop()
    with _signals(stop), _redirected(log):
        running = asyncio.create_task(server.serve(sockets=[listener]))
        while not (server.started or running.done()):
            await asyncio.sleep(0.01)
        if not running.done():
            state.ready = True
            log.info("listening", url=_url(options, listener), models=list(state.models))
            serving = Serving(url=_url(options, listener), models=tuple(state.models))

            def stop_from_any_thread() -> None:
                with contextlib.suppress(RuntimeError):  # It has ended already.
                    loop.call_soon_threadsafe(stop, signal.SIGTERM)

            started(serving, stop_from_any_thread)
        beside = [asyncio.create_task(_sweep(server.server_state.connections, options))]
        if options.watch_seconds:
            beside.append(asyncio.create_task(state.models.watch(options.watch_seconds)))
        for task in beside:
            task.add_done_callback(lambda done: _failed(done, log))
        try:
            await running
        finally:
            for task in beside:
                task.cancel()
            await state.models.settle()
    log.info("stopped", requests=server.server_state.total_requests)
    if stopped_by and stopped_by[0] == signal.SIGINT:
        raise Interrupted("Stopped; every request that had come was answered.")


def _failed(task: asyncio.Task[None], log: Log) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a part of the server ended", error)


def _typed(app: Asgi) -> Any:
    return app


# --- connections ----------------------------------------------------------------------------------------


def _protocol(options: ServerOptions) -> Any:
    """uvicorn's protocol, which says since when a connection asks nothing, and lets such ones go for new ones."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    most = min(options.limits.connections, _most_files())

    class Bounded(HttpToolsProtocol):
        since, head_bytes = 0.0, 0

        def connection_made(self, transport: Any) -> None:
            self.since = self.loop.time()
            super().connection_made(transport)
            if len(self.connections) > most:
                others: set[Any] = self.connections - {self}
                idle = filter(_idle, others)
                leaving: Any = min(idle, key=lambda one: one.since, default=self)
                leaving.transport.abort()
                self.connections.discard(leaving)

        def data_received(self, data: bytes) -> None:
            if _idle(self):
                self.head_bytes += len(data)
                if self.head_bytes > _MOST_HEAD_BYTES:
                    self.transport.abort()
                    return
            super().data_received(data)

        def on_headers_complete(self) -> None:
            self.since, self.head_bytes = self.loop.time(), 0
            super().on_headers_complete()

        def on_response_complete(self) -> None:
            self.since = self.loop.time()
            super().on_response_complete()

    return Bounded


def _idle(connection: Any) -> bool:
    """Whether no request is under way: none came yet, its headers are not whole, or it was answered."""
    return connection.cycle is None or connection.cycle.response_complete


async def _sweep(connections: set[Any], options: ServerOptions) -> None:
    """End connections that send no whole request, or do not take their answer, for ever."""
    loop, limits = asyncio.get_running_loop(), options.limits
    longest = limits.seconds + options.batching.seconds + _TAKE_SECONDS
    while True:
        await asyncio.sleep(min(_SWEEP_SECONDS, limits.seconds / 2))
        now = loop.time()
        for one in list(connections):
            if now - one.since > (limits.seconds if _idle(one) else longest):
                one.transport.abort()


def _most_files() -> int:
    """Connections that this process may have open."""
    try:
        import resource
    except ImportError:
        return 500
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft - _SPARE_FILES)


# --- where it listens -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _listening(options: ServerOptions) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"host: {options.host!r:.80} is no address of this machine ({error}). Take 127.0.0.1 for this machine "
            "alone, or 0.0.0.0 for the network."
        ) from None
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as listener:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()
        except OSError as error:
            raise _taken(options, error) from None
        yield listener


def _taken(options: ServerOptions, error: OSError) -> ConfigError:
    where = f"port {options.port} of {options.host}"
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port: another program listens on {where}. Stop it, or choose another with --port; 0 takes any free one."
        )
    if error.errno == errno.EACCES:
        return ConfigError(f"port: this user may not listen on {where}. Choose one from 1024 on with --port.")
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(
            f"host: {options.host} is no address of this machine. Take 127.0.0.1 for this machine alone, or 0.0.0.0 "
            "for the network."
        )
    return ConfigError(f"Cannot listen on {where}: {error.strerror}.")


def _url(options: ServerOptions, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if options.certificate is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


def _check_tls(certificate: Path, key: Path) -> None:
    """Raises ConfigError where the files cannot be read, or do not belong together."""
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"TLS: cannot read {path}: {error.strerror}.") from None
    try:
        # A passphrase is never asked for: nobody sits at a server.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ConfigError(
            f"TLS: {certificate} and {key} are no certificate and its unencrypted key, in PEM ({reason})."
        ) from None


# --- the process ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _signals(stop: Callable[[int], None]) -> Iterator[None]:
    """Tell `stop` of SIGTERM and Ctrl-C in the loop's thread; where that is not the main one, there are none."""
    loop = asyncio.get_running_loop()

    def taken(number: int, _frame: Any) -> None:
        loop.call_soon_threadsafe(stop, number)

    before = dict[int, Any]()
    with contextlib.suppress(ValueError):  # Not in the main thread.
        for wanted in (signal.SIGINT, signal.SIGTERM):
            before[wanted] = signal.signal(wanted, taken)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _redirected(log: Log) -> Iterator[None]:
    """What uvicorn and asyncio warn of becomes lines of ours."""
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers[:], logger.propagate = [log.handler()], False
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)


def _check_installed() -> None:
    """Raises MissingDependencyError naming the first package that serving lacks."""
    from importlib.util import find_spec

    for module in ("starlette", "uvicorn", "httptools"):
        if find_spec(module) is None:
            raise missing(module, purpose="to serve bundles")
