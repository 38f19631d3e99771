"""`edgetl serve`: what a request costs beside the session called directly and beside a plain handler written by hand.

Servers are processes of their own, on this machine's cores like the clients, whose work counts against them here. All
take turns, block by block. Times of the wall mean little on a machine that others use; the processor time of the server
alone, by its own count, says the same on any.

`EDGETL_BENCH_ROUNDS` sets the blocks (default 8), `EDGETL_BENCH_SECONDS` the seconds of each (default 2).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

import edgetl
from edgetl.bench.statistics import percentile
from edgetl.process import usable_cores
from tests.bench.claims import Claim, at_least, at_most
from tests.bench.subjects import SMALL, photographs, subject
from tests.bench_stage.bundles import write_bundle

_CLIENTS = 16
_PLAIN = """
import os, sys
import edgetl, uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from edgetl.records.codec import to_json
import time

session = edgetl.load(sys.argv[1])

async def predict(request):
    found = await run_in_threadpool(session.predict, await request.body())
    return JSONResponse(to_json(found))

async def spent(request):
    return PlainTextResponse(f"process_cpu_seconds_total {time.process_time()}")

app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/metrics", spent)])
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


@dataclass
class _Server:
    """A server, where it answers pictures, and what it was asked so far."""

    address: tuple[str, int]
    path: str
    rates: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    processor_ms: list[float] = field(default_factory=list)


def run() -> Iterator[Claim]:
    """Yield the claims."""
    rounds = int(os.environ.get("EDGETL_BENCH_ROUNDS", "8"))
    seconds = float(os.environ.get("EDGETL_BENCH_SECONDS", "2"))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        small = write_bundle(folder / "small.edgetl")
        what = subject(folder)
        yield Claim(
            name="the model; clients", measured=f"{what.name}; {_CLIENTS} connections, {usable_cores()} cores"
        )
        own = stack.enter_context(_serve(what.bundle))
        plain = stack.enter_context(_plain(what.bundle, folder))
        quick = stack.enter_context(_serve(small))
        pictures = photographs(24, SMALL)
        yield from _alone(small, quick, rounds)
        with edgetl.load(what.bundle) as session:
            yield from _loaded(session, own, plain, pictures, rounds, seconds)
        yield from _by_wrk(own, pictures[0], folder, seconds)
        yield from _by_triton(small, quick)


# --- one request at a time ------------------------------------------------------------------------------


def _alone(bundle: Path, server: _Server, rounds: int) -> Iterator[Claim]:
    """A tensor in bytes, there and back, beside the session called with it, in turn."""
    with edgetl.load(bundle) as session:
        size = session.manifest.preprocess.size
        pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
        tensor = {
            "name": session.backend.input.name,
            "datatype": "UINT8",
            "shape": list(pixels.shape),
            "parameters": {"binary_data_size": pixels.nbytes},
        }
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        request = _request(
            server,
            "/v2/models/small/infer",
            head + pixels.tobytes(),
            f"Inference-Header-Content-Length: {len(head)}\r\n",
        )
        direct, served = list[float](), list[float]()
        with socket.create_connection(server.address) as client:
            for _ in range(200):
                _exchange(client, request)
                session.run(pixels)
            before = _processor_seconds(server)
            count = 150 * rounds
            for _ in range(count):
                direct.append(_milliseconds(lambda: session.run(pixels)))
                served.append(_milliseconds(lambda: _exchange(client, request)))
            spent = 1e3 * (_processor_seconds(server) - before) / count
        began = time.process_time()
        for _ in range(1000):
            session.run(pixels)
        own = time.process_time() - began  # of 1000 in seconds is of one in milliseconds
    gaps = [s - d for s, d in zip(served, direct, strict=True)]
    yield at_most(
        f"one request at a time, over the session: median of {count} pairs",
        statistics.median(gaps),
        1.0,
        " ms",
    )
    yield Claim(
        name="the same, p99 of both",
        measured=f"{percentile(served, 99):.2f} and {percentile(direct, 99):.2f} ms",
    )
    yield at_most("the same in the server's processor time, over the session's", spent - own, 1.0, " ms")


# --- many at once ---------------------------------------------------------------------------------------


def _loaded(
    session: edgetl.Session,
    own: _Server,
    plain: _Server,
    pictures: Sequence[bytes],
    rounds: int,
    seconds: float,
) -> Iterator[Claim]:
    """Photographs from many clients, beside the session's own throughput."""
    offline, offline_ms = list[float](), list[float]()
    for server in (own, plain):
        _load(server, pictures, seconds)
        server.rates.clear(), server.milliseconds.clear(), server.processor_ms.clear()
    for turn in range(rounds):
        began, spent, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < seconds:
            count += sum(1 for _ in session.outputs_of(list(pictures)))
        offline.append(count / (time.perf_counter() - began))
        offline_ms.append(1e3 * (time.process_time() - spent) / count)
        for server in (own, plain) if turn % 2 else (plain, own):
            _load(server, pictures, seconds)
    ratio = statistics.median(a / b for a, b in zip(own.rates, offline, strict=True))
    yield at_least(f"photographs per second over offline, median of {rounds} blocks", ratio, 0.9, "x")
    saved = statistics.median(offline_ms) / statistics.median(own.processor_ms)
    yield at_least("the same by the server's processor time alone", saved, 0.9, "x")
    spent = statistics.median(plain.processor_ms) / statistics.median(own.processor_ms)
    yield at_least("processor time of a photograph in a plain Starlette handler, over ours", spent, 1.0, "x")
    # Where others use the machine too, the plain handler's forty threads take more of it than our two.
    ratio = statistics.median(a / b for a, b in zip(own.rates, plain.rates, strict=True))
    yield Claim(name="photographs per second over the plain handler's", measured=f"{ratio:.2f}x")
    for name, rates, spent_ms in (
        ("offline", offline, offline_ms),
        ("edgetl serve", own.rates, own.processor_ms),
        ("plain handler", plain.rates, plain.processor_ms),
    ):
        yield Claim(
            name=f"{name}: photographs per second; processor time of one",
            measured=f"{statistics.median(rates):.1f}; {statistics.median(spent_ms):.2f} ms",
        )
    yield Claim(
        name="p50 and p99 of a request: edgetl serve; plain handler",
        measured="; ".join(
            f"{percentile(server.milliseconds, 50):.0f} and {percentile(server.milliseconds, 99):.0f} ms"
            for server in (own, plain)
        ),
    )


def _load(server: _Server, pictures: Sequence[bytes], seconds: float) -> None:
    requests = [_request(server, server.path, picture) for picture in pictures]
    taken: list[list[float]] = [[] for _ in range(_CLIENTS)]
    before, began = _processor_seconds(server), time.perf_counter()

    def client(number: int) -> None:
        with socket.create_connection(server.address) as connection:
            at = number
            while time.perf_counter() - began < seconds:
                taken[number].append(
                    _milliseconds(lambda at=at: _exchange(connection, requests[at % len(requests)]))  # type: ignore[misc]
                )
                at += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = sum(map(len, taken))
    server.rates.append(count / (time.perf_counter() - began))
    server.milliseconds += [value for part in taken for value in part]
    server.processor_ms.append(1e3 * (_processor_seconds(server) - before) / count)


def _by_wrk(server: _Server, picture: bytes, folder: Path, seconds: float) -> Iterator[Claim]:
    if (program := shutil.which("wrk")) is None:
        yield Claim(name="under wrk", measured="absent: wrk is not installed")
        return
    (folder / "picture.jpg").write_bytes(picture)
    (folder / "post.lua").write_text(
        f'wrk.method = "POST"\nwrk.body = io.open("{folder}/picture.jpg", "rb"):read("*a")\n'
    )
    url = f"http://{server.address[0]}:{server.address[1]}{server.path}"
    words = [program, "-t1", f"-c{_CLIENTS}", f"-d{max(1, round(2 * seconds))}s", "--latency"]
    done = subprocess.run(
        [*words, "-s", str(folder / "post.lua"), url], capture_output=True, text=True, check=True
    )
    rate = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
    tail = re.search(r"99%\s*([\d.]+\w+)", done.stdout)
    assert rate is not None
    assert tail is not None
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    yield Claim(
        name="under wrk: photographs per second, p99, others than 200",
        measured=f"{rate[1]}, {tail[1]}, {failed[1] if failed else 0}",
        aim="none but 200",
        holds=failed is None,
    )


def _by_triton(bundle: Path, server: _Server) -> Iterator[Claim]:
    try:
        import tritonclient.http as triton
    except ImportError:
        yield Claim(name="under tritonclient", measured="absent: pip install tritonclient[http]")
        return
    client = triton.InferenceServerClient("{}:{}".format(*server.address))
    with edgetl.load(bundle) as session:
        size = session.manifest.preprocess.size
        pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
        asked = triton.InferInput(session.backend.input.name, list(pixels.shape), "UINT8")
        asked.set_data_from_numpy(pixels)
        for _ in range(100):
            client.infer("small", [asked])
        served = [_milliseconds(lambda: client.infer("small", [asked])) for _ in range(1000)]
        found = client.infer("small", [asked]).as_numpy("logits")
        same = bool(np.allclose(found, session.run(pixels)["logits"], atol=1e-4))
    client.close()
    yield Claim(
        name="under tritonclient: p50 and p99 of one at a time, the session's outputs",
        measured=f"{percentile(served, 50):.2f} and {percentile(served, 99):.2f} ms, {'same' if same else 'other'}",
        aim="same",
        holds=same,
    )


# --- servers and clients --------------------------------------------------------------------------------


@contextmanager
def _serve(bundle: Path) -> Iterator[_Server]:
    words = [
        sys.executable,
        "-m",
        "edgetl",
        "serve",
        str(bundle),
        "--port",
        "0",
        "--json",
        "--no-log-requests",
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = ""
        while not told.endswith("}\n"):
            line = process.stdout.readline()
            assert line, "the server does not start"
            told += line
        parts = urlsplit(json.loads(told)["url"])
        yield _Server(
            (parts.hostname or "", parts.port or 0), f"/v1/models/{json.loads(told)['models'][0]}:predict"
        )
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _plain(bundle: Path, folder: Path) -> Iterator[_Server]:
    script = folder / "plain.py"
    script.write_text(_PLAIN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    process = subprocess.Popen([sys.executable, str(script), str(bundle), str(address[1])])
    try:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(address).close()
                break
            except OSError:
                assert time.monotonic() < end, "the plain server does not start"
                time.sleep(0.1)
        yield _Server(address, "/predict")
    finally:
        process.terminate()
        process.wait()


def _request(server: _Server, path: str, body: bytes, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {server.address[0]}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _exchange(client: socket.socket, request: bytes) -> bytes:
    """Send a request and read its answer, with no more of HTTP than that takes."""
    client.sendall(request)
    found = client.recv(1 << 16)
    while b"\r\n\r\n" not in found:
        found += client.recv(1 << 16)
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), found[:300]
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
    while len(body) < length:
        body += client.recv(1 << 16)
    return body


def _milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - began) / 1e6


def _processor_seconds(server: _Server) -> float:
    with socket.create_connection(server.address) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        found = b""
        while piece := client.recv(1 << 16):
            found += piece
    return float(re.search(rb"^process_cpu_seconds_total (\S+)", found, re.MULTILINE)[1])  # type: ignore[index]
