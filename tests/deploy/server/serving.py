"""A server in a thread of the test's process, and what asks it."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from edgetl.deploy.server.log import Log
from edgetl.deploy.server.options import Limits, ModelOptions, ServerOptions
from edgetl.deploy.server.running import Serving, serve

for _module in ("starlette", "uvicorn", "httptools"):
    pytest.importorskip(_module, reason="serving needs: pip install starlette uvicorn httptools")

LIMITS = Limits(max_bytes=1 << 20, max_pixels=1_000_000, seconds=5.0)


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]


@dataclass
class Running:
    url: str
    stop: Callable[[], None]
    log: io.StringIO
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            got = connection.getresponse()
            return Response(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Response:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Response:
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"content-type": "application/json", **(headers or {})}
        return self.ask("POST", path, body, headers)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What was logged of a kind."""
        found = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in found if line["event"] == event]


@contextmanager
def serving(
    paths: Mapping[str, Path], options: ServerOptions | None = None, models: ModelOptions | None = None
) -> Iterator[Running]:
    """A server on a free port, until the end of the block."""
    options = options or ServerOptions(port=0, limits=LIMITS, watch_seconds=0)
    started, log = threading.Event(), io.StringIO()
    running: list[Running] = []
    failed: list[BaseException] = []
    ended = threading.Event()

    def begun(told: Serving, stop: Callable[[], None]) -> None:
        running.append(Running(told.url, stop, log, ended))
        started.set()

    def run() -> None:
        try:
            serve(paths, models or ModelOptions(threads=1), options, started=begun, log=Log(log))
        except BaseException as error:
            failed.append(error)
        finally:
            ended.set()
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(60)
        if failed:
            raise failed[0]
        yield running[0]
    finally:
        if running:
            running[0].stop()
        thread.join(60)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.02)
