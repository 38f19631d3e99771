"""The routes of a server, as an ASGI application made with Starlette; the one place that imports it."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from edgetl._version import __version__
from edgetl.deploy.server.answers import Answer, Refusal, encoded
from edgetl.deploy.server.lane import Job
from edgetl.deploy.server.log import Log
from edgetl.deploy.server.metrics import MEDIA_TYPE, Labels, Metrics
from edgetl.deploy.server.models import Models, Served
from edgetl.deploy.server.options import ServerOptions
from edgetl.deploy.server.pictures import PictureJob, describe, parse_options, picture_in
from edgetl.deploy.server.tensors import EXTENSIONS, HEADER_LENGTH, TensorJob, header_length, metadata
from edgetl.errors import EdgetlError, ImageError
from edgetl.packages import missing
from edgetl.tasks.base import Detection

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = Callable[["Request"], Awaitable[Answer]]

_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_OPEN = {*_PAGE, "/v2/health/live", "/v2/health/ready"}
"""What needs no token: the page holds nothing, and asks for it; health says yes or no."""
_REASON = 200
"""Characters of why a request was refused, in the log."""
_DRAINED = 8
"""Times the bytes that are taken: so much of a request that is too large is read to tell its client so."""
_SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "permissions-policy": "camera=(self)",
    "cache-control": "no-cache",
}


@dataclass(eq=False)
class State:
    """What the routes share. `ready` is False before the server listens and from when it is told to stop."""

    models: Models
    options: ServerOptions
    metrics: Metrics
    log: Log
    ready: bool = True
    in_flight: int = 0
    connections: Callable[[], int] = field(default=lambda: 0)


def make_app(state: State) -> Asgi:
    """The application.

    Raises:
        MissingDependencyError: Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
    except ImportError as error:
        raise missing("starlette", purpose="to serve bundles") from error
    from starlette.responses import Response

    async def refused(request: Request, error: Exception) -> Response:
        status, headers = 404, dict[str, str]()
        if isinstance(error, HTTPException):
            status, headers = error.status_code, dict(error.headers or {})
        message = (
            f"{request.method} is not for this address."
            if status == 405
            else f"There is nothing at this address; see /v2 and {'/v1/models'}."
        )
        body = encoded({"error": message})
        return Response(body, status, {**_SAFE, **headers}, media_type="application/json")

    app = Starlette(routes=_routes(state), exception_handlers={HTTPException: refused})
    app.router.redirect_slashes = False
    _show(state)
    return _guarded(app, state)


def _routes(state: State) -> list[Route]:
    from starlette.routing import Route

    routes = _Routes(state)
    table: list[tuple[str, str, str, Handler]] = [
        (
            "/v1/models/{model}:predict",
            "POST",
            "predict",
            routes.predict,
        ),  # What is asked most is found first.
        ("/v2/models/{model}/infer", "POST", "infer", routes.infer),
        *((path, "GET", "page", routes.page) for path in _PAGE),
        ("/v2", "GET", "server", routes.server),
        ("/v2/health/live", "GET", "live", routes.live),
        ("/v2/health/ready", "GET", "ready", routes.ready),
        ("/metrics", "GET", "metrics", routes.metrics),
        ("/v1/models", "GET", "models", routes.models),
        ("/v2/models/{model}/versions/{version}/infer", "POST", "infer", routes.infer),
    ]
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        table += [
            (base, "GET", "metadata", routes.metadata),
            (f"{base}/ready", "GET", "model_ready", routes.model_ready),
        ]
    return [
        Route(path, _endpoint(handler, name, state), methods=[method])
        for path, method, name, handler in table
    ]


class _Routes:
    """What each route answers."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def page(self, request: Request) -> Answer:
        name, media_type = _PAGE[request.url.path]
        return Answer(body=_file(name), media_type=media_type, headers=_PAGE_HEADERS)

    async def server(self, request: Request) -> Answer:
        return _json({"name": "edgetl", "version": __version__, "extensions": list(EXTENSIONS)})

    async def live(self, request: Request) -> Answer:
        return _json({"live": True})

    async def ready(self, request: Request) -> Answer:
        return _json({"ready": self._state.ready}, status=200 if self._state.ready else 400)

    async def metrics(self, request: Request) -> Answer:
        return Answer(body=self._state.metrics.text().encode(), media_type=MEDIA_TYPE)

    async def models(self, request: Request) -> Answer:
        return _json({"models": [_about(served) for served in self._state.models.values()]})

    async def metadata(self, request: Request) -> Answer:
        served = self._find(request)
        return _json(metadata(served.session, served.name, served.version))

    async def model_ready(self, request: Request) -> Answer:
        served = self._find(request)
        return _json(
            {"name": served.name, "ready": self._state.ready}, status=200 if self._state.ready else 400
        )

    async def infer(self, request: Request) -> Answer:
        served = self._find(request)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "Compressed requests are not taken; leave the compression out.", close=True)

        def job(body: bytes) -> Job:
            return TensorJob(
                model=served.name,
                version=served.version,
                body=body,
                header_bytes=header_length(request.headers.get(HEADER_LENGTH), len(body)),
                max_pixels=self._state.options.limits.max_pixels,
            )

        return await self._done(request, served, job)

    async def predict(self, request: Request) -> Answer:
        served = self._find(request)
        options = parse_options(request.query_params)

        def job(body: bytes) -> Job:
            return PictureJob(
                model=served.name,
                version=served.version,
                content=picture_in(body, request.headers.get("content-type", "")),
                options=options,
                max_pixels=self._state.options.limits.max_pixels,
            )

        return await self._done(request, served, job)

    async def _done(self, request: Request, served: Served, make: Callable[[bytes], Job]) -> Answer:
        with served.lane.expected():
            body = await self._body(request)
            job = make(body)
            waiting = served.lane.submit(
                job
            )  # To the lane of now: it may be another one than before the body came.
        return await waiting

    def _find(self, request: Request) -> Served:
        return self._state.models.find(request.path_params["model"], request.path_params.get("version"))

    async def _body(self, request: Request) -> bytes:
        """The request's body.

        Raises:
            Refusal: it is too long, comes too slowly, or breaks off.
        """
        from starlette.requests import ClientDisconnect

        limits = self._state.options.limits
        too_long = Refusal(
            413, f"The request is too large: at most {limits.max_bytes} bytes are taken.", close=True
        )
        length = request.headers.get("content-length", "")
        declared = int(length) if length.isdigit() and len(length) < 18 else 0
        # A client that waits for our word sends nothing; another one would not see the answer before it has sent all.
        if declared > limits.max_bytes and (
            "expect" in request.headers or declared > _DRAINED * limits.max_bytes
        ):
            raise too_long
        pieces, size = list[bytes](), 0
        try:
            async with asyncio.timeout(limits.seconds):
                async for piece in request.stream():
                    size += len(piece)
                    if size > _DRAINED * limits.max_bytes:
                        raise too_long
                    if size <= limits.max_bytes:
                        pieces.append(piece)
                    else:
                        pieces.clear()
            if size > limits.max_bytes:
                raise too_long
        except TimeoutError:
            raise Refusal(
                408, f"The request's body did not come within {limits.seconds:g} s.", close=True
            ) from None
        except ClientDisconnect:
            raise Refusal(400, "The client left before its request was whole.", close=True) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _endpoint(handler: Handler, name: str, state: State) -> Callable[[Request], Awaitable[Response]]:
    """A handler for Starlette: its answer as a response, and errors by whose they are."""
    from starlette.responses import Response

    async def endpoint(request: Request) -> Response:
        request.scope["edgetl.route"] = name
        if (model := request.path_params.get("model")) in state.models:
            request.scope["edgetl.model"] = model
        try:
            answer = await handler(request)
        except Refusal as refusal:
            answer = _refused(request, refusal)
        except ImageError as error:
            answer = _refused(request, Refusal(400, describe(error)))
        except EdgetlError as error:
            answer = _refused(request, Refusal(400, str(error)))
        return Response(answer.body, answer.status, {**_SAFE, **answer.headers}, answer.media_type)

    return endpoint


def _refused(request: Request, refusal: Refusal) -> Answer:
    request.scope["edgetl.reason"] = refusal.message[:_REASON]  # For the log.
    return refusal.answer()


def _guarded(app: Asgi, state: State) -> Asgi:
    """The application behind the token, with every request counted and logged."""
    options, metrics, log = state.options, state.metrics, state.log
    token = None if options.token is None else f"Bearer {options.token}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began, status, sent = time.perf_counter(), 500, 0

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                spent = f"all;dur={1e3 * (time.perf_counter() - began):.3f}"
                message["headers"] = [*message.get("headers", ()), (b"server-timing", spent.encode())]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        state.in_flight += 1
        try:
            if token is not None and scope["path"] not in _OPEN and not _authorised(scope, token):
                await _send(noted, _unauthorised())
            else:
                await app(scope, receive, noted)
        except Exception as error:
            log.error("request failed", error, path=_printable(scope["path"]))
            if status == 500 and not sent:
                await _send(
                    noted, Answer(status=500, body=encoded({"error": "The server failed; see its log."}))
                )
        finally:
            state.in_flight -= 1
            route, model = scope.get("edgetl.route", "none"), scope.get("edgetl.model", "")
            seconds = time.perf_counter() - began
            metrics.requests.add(route, model, str(status))
            metrics.seconds.observe(seconds, route, model)
            if options.log_requests:
                client, reason = scope.get("client"), scope.get("edgetl.reason")
                log.info(
                    "request",
                    **({} if reason is None else {"reason": reason}),
                    method=scope["method"],
                    path=_printable(scope["path"]),
                    model=model,
                    status=status,
                    ms=round(1e3 * seconds, 3),
                    bytes=sent,
                    client=client[0] if client else "",
                )

    return guarded


def _authorised(scope: Scope, token: bytes) -> bool:
    """Whether the request has the token; the comparison takes as long wherever they differ."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    return len(given) == 1 and hmac.compare_digest(given[0], token)


def _unauthorised() -> Answer:
    return Refusal(
        401,
        "A token is needed: send the header Authorization: Bearer TOKEN.",
        headers={"www-authenticate": "Bearer"},
        close=True,
    ).answer()


async def _send(send: Send, answer: Answer) -> None:
    headers = {
        **_SAFE,
        **answer.headers,
        "content-type": answer.media_type,
        "content-length": str(len(answer.body)),
    }
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "http.response.body", "body": answer.body})


def _json(value: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(body=encoded(value), status=status)


def _about(served: Served) -> dict[str, Any]:
    """What a page shows of a model."""
    session = served.session
    return {
        "name": served.name,
        "version": served.version,
        "task": session.manifest.task.kind,
        "labels": list(session.labels),
        "variant": session.variant.name,
        "target": str(session.choice.target),
        "size": session.manifest.preprocess.size,
        "explains": not isinstance(session.task.spec, Detection) and session.variant.format == "onnx",
    }


def _show(state: State) -> None:
    """What is read when metrics are asked for."""
    metrics, models = state.metrics, state.models

    def of_models(read: Callable[[Served], float]) -> Callable[[], Mapping[Labels, float]]:
        return lambda: {(name,): read(served) for name, served in models.items()}

    metrics.gauge(
        "edgetl_queue_length",
        "Requests that wait for a worker.",
        of_models(lambda s: len(s.lane)),
        ("model",),
    )
    metrics.gauge(
        "edgetl_requests_in_flight", "Requests that are not answered yet.", lambda: {(): state.in_flight}
    )
    metrics.gauge("edgetl_connections", "Open connections.", lambda: {(): state.connections()})
    metrics.gauge(
        "edgetl_model_info",
        "What is served.",
        lambda: {
            (
                name,
                s.version,
                s.session.variant.name,
                str(s.session.choice.target),
                s.session.manifest.task.kind,
            ): 1
            for name, s in models.items()
        },
        ("model", "version", "variant", "target", "task"),
    )


@cache
def _file(name: str) -> bytes:
    return files("edgetl.deploy.server").joinpath("page", name).read_bytes()


def _printable(path: str) -> str:
    return path[:200].encode("unicode_escape").decode("ascii")
