"""A server for long, under requests that are broken, under new bundles, and among clients that are slow.

`EDGETL_SOAK` sets the requests of the long run, `EDGETL_MUTATED` the broken ones.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgetl.bench.statistics import percentile
from edgetl.bundle.pack import pack
from edgetl.deploy.server.options import Limits, ServerOptions
from tests.bench_stage.bundles import write_bundle
from tests.bundles import contents, picture
from tests.deploy.server.serving import Running, serving, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

REQUESTS = int(os.environ.get("EDGETL_SOAK", "200000"))
MUTATED = int(os.environ.get("EDGETL_MUTATED", "20000"))
CLIENTS = 4
WARM_UP = 0.1
PREDICT = "/v1/models/flowers:predict"
INFER = "/v2/models/flowers/infer"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    pack(contents(folder), folder / "flowers.edgetl")
    return folder / "flowers.edgetl"


def request(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def requests() -> list[bytes]:
    """Of every kind that the server answers with 200."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape)}
    whole = json.dumps({"id": "1", "inputs": [{**tensor, "data": pixels.ravel().tolist()}]}).encode()
    sized = {**tensor, "parameters": {"binary_data_size": pixels.nbytes}}
    head = json.dumps({"inputs": [sized], "parameters": {"binary_data_output": True}}).encode()
    form = (
        b'--m\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
        + picture(3)
        + b"\r\n--m--\r\n"
    )
    return [
        request(f"{PREDICT}?top=3", picture(1)),
        request(PREDICT, picture(2, kind="JPEG"), "Content-Type: image/jpeg"),
        request(f"{PREDICT}?explain=1", picture(4)),
        request(PREDICT, form, "Content-Type: multipart/form-data; boundary=m"),
        request(INFER, whole, "Content-Type: application/json"),
        request(INFER, head + pixels.tobytes(), f"Inference-Header-Content-Length: {len(head)}"),
        b"GET /v2/models/flowers HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ]


def exchange(client: socket.socket, content: bytes) -> int:
    """Send a request, read the whole answer, and give its status."""
    client.sendall(content)
    found = b""
    while b"\r\n\r\n" not in found:
        piece = client.recv(1 << 16)
        assert piece, found
        found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += client.recv(1 << 16)
    return int(head[9:12])


def memory(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_over_many_requests(bundle: Path) -> None:
    words = [sys.executable, "-m", "edgetl", "serve", str(bundle), "--port", "0", "--json", "--threads", "2"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            told = ""
            while not told.endswith("}\n"):
                told += process.stdout.readline()
            port = int(json.loads(told)["url"].rstrip("/").rpartition(":")[2])
            _soak(process.pid, port)
        finally:
            process.terminate()
    assert process.returncode == 0


def _soak(process: int, port: int) -> None:
    kinds = requests()

    def work(count: int) -> Counter[int]:
        found: Counter[int] = Counter()
        with socket.create_connection(("127.0.0.1", port)) as client:
            for number in range(count):
                found[exchange(client, kinds[number % len(kinds)])] += 1
        return found

    def all_work(count: int) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            for found in pool.map(work, [count // CLIENTS] * CLIENTS):
                assert set(found) == {200}

    began = time.monotonic()
    all_work(round(REQUESTS * WARM_UP))
    sizes = [memory(process)]
    for _ in range(10):
        all_work(round(REQUESTS * (1 - WARM_UP) / 10))
        sizes.append(memory(process))
    growth = max(sizes) / sizes[0] - 1
    megabytes = ", ".join(f"{size / 1e6:.1f}" for size in sizes)
    rate = REQUESTS / (time.monotonic() - began)
    print(f"\n{REQUESTS} requests, {rate:.0f} a second, growth {growth:+.2%} ({megabytes} MB)")
    assert growth < 0.01


def mutated(content: bytes, generator: random.Random) -> bytes:
    """Some bytes changed, cut, doubled or moved, more often in the head than in the body."""
    found = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 16))):
        end = len(found) if generator.random() < 0.4 else max(1, found.find(b"\r\n\r\n") + 4)
        at = generator.randrange(max(1, min(end, len(found))))
        match generator.randrange(7):
            case 0:
                found[at : at + 1] = bytes([generator.randrange(256)])
            case 1:
                del found[at : at + generator.choice((1, 4, 64))]
            case 2:
                found[at:at] = generator.randbytes(generator.choice((1, 4, 300)))
            case 3:
                found[at:at] = found[at : at + generator.choice((4, 40, 400))]
            case 4:
                del found[max(1, at) :]
            case 5:
                text = (b"\r\n", b"\0", b"{", b'"', b"%", b"-1", b"1e999", b"\xff\xfe", b"NaN", b"[" * 5000)
                found[at:at] = generator.choice(text)
            case _:
                names = (
                    b"Transfer-Encoding: chunked",
                    b"Expect: 100-continue",
                    b"Content-Length: 7",
                    b"Upgrade: h2c",
                )
                line = found.find(b"\r\n") + 2
                found[line:line] = generator.choice(names) + b"\r\n"
        if not found:
            found += b"x"
    return bytes(found)


def statuses(address: tuple[str, int], content: bytes) -> Sequence[int]:
    """What came back before the server ended the connection; a client that says that it has no more to send."""
    found = b""
    with socket.create_connection(address, timeout=30) as client:
        try:
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(1 << 16):
                found += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    return [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


def test_broken_requests_are_never_our_fault_and_never_hang(bundle: Path) -> None:
    kinds = requests()
    options = ServerOptions(port=0, limits=Limits(seconds=3.0, max_bytes=1 << 20, max_pixels=1_000_000))
    with serving({"flowers": bundle}, options) as running:
        plain = exchange_all(running, kinds)

        def work(number: int) -> Sequence[int]:
            generator = random.Random(number)
            content = mutated(kinds[number % len(kinds)], generator)
            found = statuses(running.address, content)
            assert not [status for status in found if status >= 500], content
            return found

        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            counted = Counter(str(list(found)) for found in pool.map(work, range(MUTATED)))
        print(
            f"\n{MUTATED} broken requests in {time.monotonic() - began:.0f} s: {dict(counted.most_common(8))}"
        )
        assert exchange_all(running, kinds) == plain == [200] * len(kinds)
        assert running.lines("request failed") == []
        until(lambda: b"edgetl_connections 1\n" in running.get("/metrics").body)


def exchange_all(running: Running, kinds: Sequence[bytes]) -> list[int]:
    with socket.create_connection(running.address, timeout=30) as client:
        return [exchange(client, kind) for kind in kinds]


def test_new_bundles_under_load_lose_no_request(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "colours.edgetl")
    others = [path.read_bytes(), write_bundle(tmp_path / "other.edgetl", layers=3).read_bytes()]
    options = ServerOptions(port=0, watch_seconds=0.02)
    with serving({"colours": path}, options) as running:
        stop, counts = threading.Event(), Counter[int]()

        def ask(number: int) -> None:
            content = request("/v1/models/colours:predict", picture(number))
            with socket.create_connection(running.address, timeout=60) as client:
                while not stop.is_set():
                    counts[exchange(client, content)] += 1

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for number in range(1, 41):
            (tmp_path / "new").write_bytes(others[number % 2])
            (tmp_path / "new").replace(path)
            until(lambda number=number: len(running.lines("bundle taken")) == number, 120)
        stop.set()
        for thread in threads:
            thread.join()
        print(f"\n{sum(counts.values())} requests under 40 new bundles: {dict(counts)}")
        assert set(counts) == {200}


def test_slow_and_half_open_clients_do_not_starve_others(bundle: Path) -> None:
    limits = Limits(seconds=4.0, connections=300)
    options = replace(ServerOptions(port=0), limits=limits)
    content = request(PREDICT, picture())
    with serving({"flowers": bundle}, options) as running:

        def times(count: int) -> list[float]:
            found = []
            with socket.create_connection(running.address, timeout=60) as client:
                for _ in range(count):
                    began = time.perf_counter()
                    assert exchange(client, content) == 200
                    found.append(1e3 * (time.perf_counter() - began))
            return found

        times(50)
        before = times(300)
        stop = threading.Event()

        def drip() -> None:
            """Two hundred connections at a time, each a byte at a time and none of them whole."""
            while not stop.is_set():
                held = [socket.create_connection(running.address, timeout=10) for _ in range(200)]
                for at in range(0, 40):
                    for one in held:
                        try:
                            one.send(content[at : at + 1])
                        except OSError:
                            continue
                    if stop.wait(0.1):
                        break
                for one in held:
                    one.close()

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            until(lambda: float(_metric(running, "edgetl_connections")) > 150)
            during = times(300)
        finally:
            stop.set()
            thread.join()
        p50, p99 = (percentile(during, figure) for figure in (50, 99))
        print(
            f"\nbeside 200 slow clients: p50 {p50:.2f} and p99 {p99:.2f} ms; "
            f"alone {percentile(before, 50):.2f} and {percentile(before, 99):.2f} ms"
        )
        # They share this process and its interpreter with the clients, so that some is theirs.
        assert p50 < 10 * percentile(before, 50) + 20


def _metric(running: Running, name: str) -> str:
    lines = running.get("/metrics").body.decode().splitlines()
    return next(line.split()[-1] for line in lines if line.startswith(name + " "))
