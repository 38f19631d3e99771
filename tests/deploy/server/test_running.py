"""A server as a process and as a neighbour: ports, tokens, TLS, limits, slow clients, new bundles, its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edgetl.bundle.pack import pack
from edgetl.deploy.oci import write_oci
from edgetl.deploy.server.options import Batching, Limits, ModelOptions, ServerOptions
from edgetl.errors import BundleError, BundleIntegrityError, ConfigError
from tests import squares
from tests.bench_stage.bundles import write_bundle
from tests.bundles import contents, picture
from tests.cli.typed import edgetl
from tests.deploy.server.serving import LIMITS, Running, serving, until

OPTIONS = ServerOptions(port=0, limits=LIMITS, watch_seconds=0.05)
TOKEN = "a-token-of-many-letters"


def predict(server: Running, name: str = "flowers") -> dict:
    got = server.post(f"/v1/models/{name}:predict", picture())
    assert got.status == 200, got.body
    return got.json


# --- what is refused at the start ---------------------------------------------------------------------------


def test_a_port_that_is_taken(bundles: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = edgetl("serve", bundles / "flowers.edgetl", "--port", port)
    assert done.returncode == 2
    assert done.stderr == (
        f"Error: port: another program listens on port {port} of 127.0.0.1. Stop it, or choose another with --port; "
        "0 takes any free one.\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--host", "no such host"), "host: 'no such host' is no address of this machine"),
        (("--host", "192.0.2.1"), "host: 192.0.2.1 is no address of this machine"),
        (("--port", "70000"), "port: got 70000, expected 0 to 65535"),
        (("--queue", "0"), "queue: got 0, expected at least 1"),
        (("--max-batch", "0"), "max batch: got 0, expected at least 1"),
        (("--max-wait-ms", "-1"), "max wait: got -1 ms, expected 0 to 1000"),
        (("--max-mb", "0"), "a request may have neither bytes nor pixels"),
        (("--seconds", "0"), "seconds: got 0, expected more than 0"),
        (("--watch", "-1"), "watch: got -1 seconds"),
        (("--tls-cert", "c.pem"), "TLS takes two files"),
        (("--tls-cert", "c.pem", "--tls-key", "k.pem"), "TLS: cannot read c.pem: No such file"),
        (("--tls-cert", "text", "--tls-key", "text"), "TLS: text and text are no certificate and its"),
        (("--token-file", "no"), "Cannot read the token in no: No such file or directory"),
        (("--token-file", "empty"), "empty is empty; write the token into it"),
        (("--token-file", "text"), "token: it has 5 characters, expected at least 16"),
        (("--target", "gpu"), "target: got 'gpu', expected one of"),
    ],
)
def test_an_option_that_cannot_be(
    words: tuple[str, ...], message: str, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "empty").write_text("\n")
    done = edgetl("serve", bundles / "flowers.edgetl", "--port", "0", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        ServerOptions(port=-1, token="short", watch_seconds=-1)
    assert len(raised.value.problems) == 3


def test_two_models_of_one_name_and_names_of_one_s_own(bundles: Path, tmp_path: Path) -> None:
    shutil.copy(bundles / "flowers.edgetl", tmp_path / "again.edgetl")
    paths = [bundles / "flowers.edgetl", tmp_path / "again.edgetl"]
    with (
        pytest.raises(ConfigError, match="are both named flowers; give one as NAME="),
        serving({str(path): path for path in paths}),
    ):
        pass
    with serving({str(paths[0]): paths[0], "old": paths[1]}) as running:
        assert predict(running, "old")["model"] == "old"
        assert [one["name"] for one in running.get("/v1/models").json["models"]] == ["flowers", "old"]
    assert "cannot be a model's name" in edgetl("serve", f"a/b={paths[0]}").stderr


def test_a_bundle_that_computes_something_else_here_is_not_served(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    wrong = {name: {"logits": 9 - found["logits"]} for name, found in parts.golden.outputs.items()}
    golden = type(parts.golden)(images=parts.golden.images, pixels=parts.golden.pixels, outputs=wrong)
    pack(replace(parts, golden=golden), tmp_path / "b.edgetl")
    with (
        pytest.raises(BundleError, match="does not compute here what it was measured with"),
        serving({"b": tmp_path / "b.edgetl"}),
    ):
        pass


def test_an_unsigned_bundle_where_signatures_are_required(bundles: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need: pip install cryptography")
    edgetl("keygen", tmp_path / "k.pem")
    options = ModelOptions(require_signature=tmp_path / "k.pem.pub")
    with (
        pytest.raises(BundleIntegrityError, match="is not signed"),
        serving({"b": bundles / "flowers.edgetl"}, models=options),
    ):
        pass


# --- who may ask --------------------------------------------------------------------------------------------


def test_a_token_opens_all_but_the_page_and_health(bundles: Path) -> None:
    with serving({"flowers": bundles / "flowers.edgetl"}, replace(OPTIONS, token=TOKEN)) as running:
        for path in ("/", "/page.js", "/v2/health/live", "/v2/health/ready"):
            assert running.get(path).status == 200
        for given in ({}, {"authorization": TOKEN}, {"authorization": f"Bearer {TOKEN}x"}):
            for path in ("/v1/models", "/metrics", "/v2/models/flowers", "/nothing"):
                got = running.get(path, **given)
                assert got.status == 401
                assert got.error == "A token is needed: send the header Authorization: Bearer TOKEN."
        wrong = running.post("/v1/models/flowers:predict", picture(), {"authorization": "Bearer wrong"})
        assert wrong.status == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert running.get("/metrics", **right).status == 200
        assert running.post("/v1/models/flowers:predict", picture(), right).status == 200
        assert TOKEN not in running.log.getvalue()


def test_a_server_that_is_open_to_all_says_so(bundles: Path) -> None:
    with serving({"flowers": bundles / "flowers.edgetl"}, replace(OPTIONS, host="0.0.0.0")) as running:
        (line,) = running.lines("open to all")
        assert line["level"] == "warning"


def test_tls(bundles: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        tmp_path / "k.pem",
        "-out",
        tmp_path / "c.pem",
    ]
    subprocess.run([*words.split(), *files], check=True, capture_output=True)
    limits = replace(LIMITS, seconds=1.0)
    options = replace(OPTIONS, certificate=tmp_path / "c.pem", key=tmp_path / "k.pem", limits=limits)
    with serving({"flowers": bundles / "flowers.edgetl"}, options) as running:
        assert running.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(tmp_path / "c.pem"))
        with urllib.request.urlopen(f"{running.url}v2/health/ready", context=context) as got:
            assert json.load(got) == {"ready": True}
        # Who begins no TLS is let go, too.
        with socket.create_connection(running.address, timeout=10) as client:
            assert client.recv(100) == b""


# --- clients that take more than their share ----------------------------------------------------------------


def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    slow = write_bundle(tmp_path / "slow.edgetl", layers=400)
    options = replace(OPTIONS, batching=Batching(queue=2, max_batch=1), watch_seconds=0)
    with serving({"slow": slow}, options) as running, ThreadPoolExecutor(24) as pool:
        path = "/v1/models/slow:predict"
        got = list(pool.map(lambda _: running.post(path, picture()), range(48)))
        statuses = {one.status for one in got}
        assert statuses == {200, 429}
        refused = next(one for one in got if one.status == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "requests wait for slow, and no more may. Try again in" in refused.error
        assert running.post(path, picture()).status == 200
        text = running.get("/metrics").body.decode()
        assert f'status="429"}} {sum(one.status == 429 for one in got)}' in text
        assert 'edgetl_queue_length{model="slow"} 0' in text


def test_slow_and_half_open_clients_are_let_go_and_starve_nobody(bundles: Path) -> None:
    limits = Limits(max_bytes=1 << 20, seconds=1.0, connections=12)
    options = replace(OPTIONS, limits=limits)
    with serving({"flowers": bundles / "flowers.edgetl"}, options) as running:
        head = b"POST /v1/models/flowers:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        slow = [socket.create_connection(running.address, timeout=10) for _ in range(10)]
        for number, one in enumerate(slow):
            one.sendall((b"", b"GET /v2 HT", head, head + b"\r\n" + b"x" * 9)[number % 4])
        spent = []
        for _ in range(10):
            began = time.perf_counter()
            predict(running)
            spent.append(time.perf_counter() - began)
        assert sorted(spent)[5] < 0.5
        ends = [one.recv(4096) for one in slow]  # Each ends within the limit, or it would time out here.
        assert any(end.startswith(b"HTTP/1.1 408") for end in ends)
        assert [end for end in ends if end and b" 408 " not in end] == []
        for one in slow:
            one.close()
        # More than may be open: those that ask nothing give way.
        many = [socket.create_connection(running.address, timeout=10) for _ in range(40)]
        predict(running)
        for one in many:
            one.close()
        until(lambda: b"edgetl_connections 1\n" in running.get("/metrics").body)


def test_a_client_that_does_not_take_its_answer_is_let_go(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetl.deploy.server.running._TAKE_SECONDS", 0.2)
    options = replace(OPTIONS, limits=replace(LIMITS, seconds=0.5), batching=Batching(seconds=0.5))
    pixels = {"name": "images", "datatype": "UINT8", "shape": [16, 96, 96, 3]}
    content = bytes(16 * 96 * 96 * 3)
    head = json.dumps({"inputs": [{**pixels, "parameters": {"binary_data_size": len(content)}}]}).encode()
    body = head + content
    lines = ("POST /v2/models/squares/infer HTTP/1.1", "Host: x", f"Content-Length: {len(body)}")
    length = f"Inference-Header-Content-Length: {len(head)}"
    request = "\r\n".join([*lines, length, "", ""]).encode() + body
    with serving({"squares": bundles / "squares.edgetl"}, options) as running:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            client.connect(running.address)
            for _ in range(40):  # More than all buffers on the way hold.
                with contextlib.suppress(TimeoutError, ConnectionError):
                    client.settimeout(1)
                    client.sendall(request)
            until(lambda: b"edgetl_connections 1\n" in running.get("/metrics").body)
        assert running.get("/v2/health/live").status == 200


def test_a_head_without_an_end_is_cut_off(server: Running) -> None:
    with socket.create_connection(server.address, timeout=10) as client:
        client.sendall(b"GET /v2 HTTP/1.1\r\n")
        sent = 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while sent < 64 << 20:
                sent += client.send(b"x-more: " + b"y" * 8000 + b"\r\n")
        assert sent < 64 << 20
    predict(server)


def test_what_is_no_http_is_refused(server: Running) -> None:
    for content in (b"\x16\x03\x01\x02\x00\x01\x00" * 20, b"GET / HTTP/9.9\r\n\r\n", b"hello\r\n\r\n"):
        with socket.create_connection(server.address, timeout=10) as client:
            client.sendall(content)
            assert client.recv(4096)[:12] in (b"HTTP/1.1 400", b"")
    predict(server)


# --- a new bundle -------------------------------------------------------------------------------------------


def test_a_new_bundle_takes_over_without_a_request_lost(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "colours.edgetl")
    other = write_bundle(tmp_path / "other.edgetl", layers=2)
    before = path.read_bytes()
    with serving({"colours": path}, OPTIONS) as running:
        first = predict(running, "colours")["version"]
        answers: list[tuple[int, str]] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                got = running.post("/v1/models/colours:predict", picture())
                answers.append((got.status, got.json.get("version", "")))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for content in (other.read_bytes(), before, other.read_bytes()):
                taken = len(running.lines("bundle taken"))
                (tmp_path / "new").write_bytes(content)
                (tmp_path / "new").replace(path)
                until(lambda taken=taken: len(running.lines("bundle taken")) > taken)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert {status for status, _ in answers} == {200}
        assert len({version for _, version in answers}) == 2
        assert predict(running, "colours")["version"] != first
        text = running.get("/metrics").body.decode()
        assert 'edgetl_swaps_total{model="colours",outcome="taken"} 3' in text


def test_a_new_bundle_that_is_wrong_does_not_take_over(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "colours.edgetl")
    whole = path.read_bytes()
    detector = squares.write_bundle(tmp_path / "squares.edgetl").read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 1
    cases = {
        "is truncated or altered": whole[:-100],
        "altered": bytes(altered),
        "is not an edgetl bundle": b"hello",
        "is of the task detection, and colours answers classification": detector,
    }
    with serving({"colours": path}, OPTIONS) as running:
        version = predict(running, "colours")["version"]
        for count, (reason, content) in enumerate(cases.items(), start=1):
            path.write_bytes(content)
            until(lambda count=count: len(running.lines("bundle refused")) == count)
            line = running.lines("bundle refused")[-1]
            assert reason in line["reason"]
            assert line["kept"] == version
            assert predict(running, "colours")["version"] == version
        path.unlink()
        time.sleep(0.3)
        assert predict(running, "colours")["version"] == version


def test_a_layout_is_served_and_replaced(tmp_path: Path) -> None:
    write_oci(write_bundle(tmp_path / "a.edgetl"), tmp_path / "layout")
    with serving({"m": tmp_path / "layout"}, OPTIONS) as running:
        first = predict(running, "m")["version"]
        write_oci(write_bundle(tmp_path / "b.edgetl", layers=2), tmp_path / "layout")
        until(lambda: predict(running, "m")["version"] != first)


def test_a_link_that_is_switched_is_followed(tmp_path: Path) -> None:
    first, second = (write_bundle(tmp_path / f"{n}.edgetl", layers=n) for n in (1, 2))
    (tmp_path / "current").symlink_to(first)
    with serving({"m": tmp_path / "current"}, OPTIONS) as running:
        before = predict(running, "m")["version"]
        (tmp_path / "next").symlink_to(second)
        (tmp_path / "next").replace(tmp_path / "current")
        until(lambda: predict(running, "m")["version"] != before)


# --- the process --------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can answer")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_process_ends_when_all_that_came_is_answered(number: int, code: int, tmp_path: Path) -> None:
    slow = write_bundle(tmp_path / "slow.edgetl", layers=400)
    words = [sys.executable, "-m", "edgetl", "serve", slow, "--port", "0", "--threads", "1", "--json"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        told = json.loads(text)
        assert told["models"] == ["slow"]
        running = Running(told["url"], lambda: None, None)  # type: ignore[arg-type]
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(running.post, "/v1/models/slow:predict", picture()) for _ in range(8)]
            until(lambda: b"edgetl_requests_in_flight 1\n" not in running.get("/metrics").body)
            os.kill(process.pid, number)
            # A connection that was not taken yet is refused; what was read is answered.
            statuses = [one.result().status for one in asked if one.exception() is None]
        assert set(statuses) == {200}
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [one["event"] for one in events if one["event"] != "request"] == ["listening", "stopped"]
    asked_lines = [one for one in events if one["event"] == "request" and one["model"] == "slow"]
    assert len(asked_lines) == len(statuses)
    assert {"method", "path", "status", "ms", "bytes", "client", "time"} <= asked_lines[0].keys()
    assert ("Stopped" in log) == (number == signal.SIGINT)


def test_what_is_not_installed_is_named(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    done = edgetl("serve", bundles / "flowers.edgetl")
    assert done.returncode == 2
    assert "uvicorn, to serve bundles, is not available. Install it with: pip install uvicorn" in done.stderr
