"""Many devices over real sshd: fifty at once in little memory, connections killed at every step, an installation."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgetl.bundle.pack import pack
from edgetl.deploy.fleet.config import load
from edgetl.deploy.fleet.deploy import deploy, deployment
from edgetl.deploy.fleet.install import install, installation
from edgetl.deploy.fleet.record import Outcome
from edgetl.deploy.fleet.run import run
from tests.bundles import contents
from tests.deploy.fleet.devices import Lab, runs
from tests.deploy.fleet.servers import Cuts, Server, servers
from tests.deploy.fleet.test_sshd import kill_and_go_on

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".cache" / "wheels"
DEVICES = int(os.environ.get("EDGETL_FLEET", "50"))
AIM_BYTES = 24_000_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are read from /proc"),
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("carried")
    for name in ("old", "new"):
        pack(replace(contents(folder), name=name), folder / f"{name}.edgetl")
    return folder / "old.edgetl", folder / "new.edgetl"


def _fleet(folder: Path, config: Path, hosts: list[str], text: str = "", *, installed: bool = True) -> Path:
    lab, tables = Lab(folder), ""
    for host in hosts:
        lab.device(host, installed=installed)
        tables += f'[devices.{host}]\nfolder = "{folder}/{host}/edgetl"\n'
    path = folder / "fleet.toml"
    path.write_text(f'ssh_config = "{config}"\nconnect_s = 120\nretries = 0\n{text}\n{tables}')
    return path


def _tree(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    try:
        lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # It has ended meanwhile.
        return
    for child in (child for children in lists for child in children):
        yield from _tree(int(child))


def _resident(pid: int) -> int:
    """What a process has in memory, its share of what others have too (proportional set size)."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _masters(sockets: str) -> list[int]:
    """Shared connections run by themselves: found by the folder of their sockets."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if sockets.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


class _Memory:
    """Looks at the memory of process trees, again and again, until it is closed."""

    def __init__(self, servers: list[Server]) -> None:
        self._servers = {server.process.pid for server in servers}
        self._own = os.getpid()
        self._before = _resident(self._own)
        self._over = threading.Event()
        self.here = self.there = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(2.0):
            there = {pid for server in self._servers for pid in _tree(server)}
            here = (set(_tree(self._own)) | set(_masters("/tmp/edgetl-"))) - there
            self.here = max(self.here, sum(map(_resident, here)) - self._before)
            self.there = max(self.there, sum(map(_resident, there)))

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_fifty_devices_at_once_take_little_memory(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    hosts = [f"line-{number}" for number in range(1, DEVICES + 1)]
    with servers(tmp_path, hosts, shared=True) as (config, running):
        fleet = load(_fleet(tmp_path, config, hosts, f"parallel = {DEVICES}"))
        wanted = deployment(bundles[1], None)
        with _Memory(list(running.values())) as memory:
            record = run(fleet, "deploy", lambda place, told: deploy(place, wanted, told))
    assert [(d.device, d.outcome, d.sentence) for d in record.devices if d.outcome is not Outcome.DONE] == []
    assert {runs(tmp_path / host / "edgetl") for host in hosts} == {wanted.sha256}
    here, there = memory.here / DEVICES, memory.there / DEVICES
    print(
        f"\n{DEVICES} devices at once in {record.seconds:.1f} s: {here / 1e6:.1f} MB a device here,"
        f" {there / 1e6:.1f} MB on its side (sshd, sh, a stand-in for edgetl), as proportional set sizes"
    )
    assert 0 < here < AIM_BYTES
    assert 0 < there < AIM_BYTES


def test_connections_killed_at_every_step_and_moment(
    bundles: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers(tmp_path, ["line-1"]) as (config, running):
        fleet = _fleet(tmp_path, config, ["line-1"])
        cuts = Cuts(tmp_path, running["line-1"], monkeypatch)
        broken = sum(
            kill_and_go_on(fleet, bundles, cuts, number, after_s)
            for number in range(1, 9)
            for after_s in (0.0, 0.003, 0.01, 0.03)
        )
    print(f"\n32 deployments, {broken} of them broken by the kill; always the old or the new bundle, whole")
    assert broken > 5


def test_edgetl_is_installed_from_wheels_and_a_bundle_runs(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    if not (WHEELS / ".ready").exists():
        pytest.skip("the device's wheels are not here: make test fetches them into .cache/wheels")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated"]
    built = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run([*pip, *built], check=True)
    with servers(tmp_path, ["line-1"]) as (config, _):
        own = f'python = "{sys.executable}"'
        fleet = load(_fleet(tmp_path, config, ["line-1"], own, installed=False))
        wanted = installation(next(tmp_path.glob("edgetl-*.whl")), WHEELS)
        (put,) = run(fleet, "init", lambda place, told: install(place, wanted, told)).devices
        assert put.outcome is Outcome.DONE, put.sentence
        carried = deployment(bundles[1], None, runs=20)
        (device,) = run(fleet, "deploy", lambda place, told: deploy(place, carried, told)).devices
        assert device.outcome is Outcome.DONE, device.sentence
        assert device.bench is not None
        print(
            f"\n{put.sent_bytes / 1e6:.0f} MB of wheels in {put.seconds:.0f} s; deployed in {device.seconds:.1f} s"
        )
