"""Over real sshd on loopback: from nothing to a bundle that runs, refused keys, connections that are killed."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgetl.deploy.fleet.config import load
from edgetl.deploy.fleet.deploy import deploy, deployment
from edgetl.deploy.fleet.link import Calls, Link
from edgetl.deploy.fleet.place import Place
from edgetl.deploy.fleet.record import Outcome
from edgetl.deploy.fleet.run import run
from edgetl.files import sha256_file
from tests.cli.typed import edgetl
from tests.deploy.fleet.devices import Lab, executable, runs, stand
from tests.deploy.fleet.servers import Cuts, Server, servers

ROOT = Path(__file__).parents[3]
HOSTS = ("line-1", "line-2", "line-3")
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="connections are found in /proc")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Server]]]:
    with servers(tmp_path_factory.mktemp("sshd"), HOSTS) as found:
        yield found


@pytest.fixture
def fleet(tmp_path: Path, network: tuple[Path, dict[str, Server]]) -> Path:
    """A file of three devices with a root each; their edgetl answers what it is told."""
    lab = Lab(tmp_path)
    tables = ""
    for host in HOSTS:
        lab.device(host)
        tables += f'[devices.{host}]\nfolder = "{tmp_path}/{host}/edgetl"\n'
    path = tmp_path / "fleet.toml"
    path.write_text(f'ssh_config = "{network[0]}"\nretries = 0\nconnect_s = 30\n{tables}')
    return path


def test_a_real_edgetl_over_a_real_ssh(fleet: Path, bundles: tuple[Path, Path]) -> None:
    root = fleet.parent / "line-1" / "edgetl"
    executable(
        root / "env/bin/python",
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} "$@"\n',
    )
    one = ("--only", "line-1", "--json")
    done = edgetl("fleet", "deploy", fleet, bundles[0], "--runs", "10", *one)
    assert done.returncode == 0, done.stderr
    (device,) = json.loads(done.stdout)["devices"]
    assert device["check"]["pixels_identical"] is True
    assert device["bench"]["bundle_sha256"] == sha256_file(bundles[0]) == runs(root)
    assert device["bench"]["latency"]["runs"] == 10
    (stands,) = json.loads(edgetl("fleet", "status", fleet, *one).stdout)["devices"]
    assert (stands["state"]["edgetl"], stands["current"]) == ("0.1.0", device["current"])
    assert stands["state"]["clock_s"] == 0.0


def test_three_devices_in_parallel_and_a_key_that_one_refuses(
    fleet: Path, bundles: tuple[Path, Path], network: tuple[Path, dict[str, Server]]
) -> None:
    wanted = deployment(bundles[0], None)
    record = run(load(fleet), "deploy", lambda place, told: deploy(place, wanted, told))
    assert [device.outcome for device in record.devices] == [Outcome.DONE] * 3
    assert {runs(fleet.parent / host / "edgetl") for host in HOSTS} == {wanted.sha256}
    other = network[0].parent / "other_key"
    own = network[0].read_text().replace("Host line-2\n", f"Host line-2\n  IdentityFile {other}\n")
    (fleet.parent / "other_config").write_text(
        own.replace("Host *\n", "Host * !line-2\n")
        + "Host line-2\n  IdentitiesOnly yes\n"
        + f"  UserKnownHostsFile {network[0].parent}/known_hosts\n"
    )
    fleet.write_text(fleet.read_text().replace(str(network[0]), "other_config"))
    done = edgetl("fleet", "status", fleet, "--json")
    assert done.returncode == 2
    assert "line-2: The host line-2 refuses the key. Add yours there with: ssh-copy-id line-2" in done.stderr
    assert [d["outcome"] for d in json.loads(done.stdout)["devices"]] == ["done", "refused", "done"]


@pytest.mark.parametrize("number", [3, 7])
def test_when_a_real_connection_is_killed_the_old_or_the_new_bundle_is_there_whole(
    fleet: Path,
    bundles: tuple[Path, Path],
    network: tuple[Path, dict[str, Server]],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    cuts = Cuts(fleet.parent, network[1]["line-1"], monkeypatch)
    kill_and_go_on(fleet, bundles, cuts, number, after_s=0.02)


def kill_and_go_on(fleet: Path, bundles: tuple[Path, Path], cuts: Cuts, number: int, after_s: float) -> bool:
    """Kill a deployment's connection; whether that broke it."""
    old, new = bundles
    known, wanted = load(fleet).only(["line-1"]), deployment(new, None)
    root = fleet.parent / "line-1" / "edgetl"

    def put() -> Outcome:
        return run(known, "deploy", lambda place, told: deploy(place, wanted, told)).devices[0].outcome

    stand(root, old)
    cuts.cut(number, after_s)
    outcome = put()
    assert outcome in (Outcome.DONE, Outcome.AWAY)
    assert runs(root) in (sha256_file(old), sha256_file(new))
    cuts.mend()
    assert put() is Outcome.DONE
    assert runs(root) == sha256_file(new)
    return outcome is Outcome.AWAY


def test_commands_of_a_device_share_one_connection(
    fleet: Path, network: tuple[Path, dict[str, Server]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from edgetl.deploy.fleet.link import sockets_folder

    known = load(fleet).only(["line-3"])
    with sockets_folder() as sockets:
        link = Link(known.devices[0], known, Calls(), sockets)
        try:
            for _ in range(3):
                Place(link, known).look()
            assert len(network[1]["line-3"].connections()) == 1
        finally:
            link.close()


def test_a_device_behind_another_is_reached_through_it(
    fleet: Path, network: tuple[Path, dict[str, Server]]
) -> None:
    own = network[0].read_text().replace("Host line-2\n", "Host line-2\n  ProxyJump line-3\n")
    (fleet.parent / "jump_config").write_text(own)
    fleet.write_text(fleet.read_text().replace(str(network[0]), "jump_config"))
    done = edgetl("fleet", "status", fleet, "--only", "line-2")
    assert (done.returncode, "1 device: 1 done." in done.stdout) == (0, True)
