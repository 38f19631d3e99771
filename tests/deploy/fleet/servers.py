"""Real `sshd` on loopback, each on a port of its own, run as this user."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_MOST_LISTENS = 16
"""Addresses that one sshd listens on."""
_PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/lib/ssh:/usr/local/sbin"

CUTTING = """#!/bin/sh
# The ssh of this machine; the N-th call from now on loses its connection after a while.
here=$(dirname "$0")
case " $* " in *" -O "*) exec REAL "$@" ;; esac
number=$(($(cat "$here/number") + 1)); echo $number > "$here/number"
if test -f "$here/cut.$number"; then
  (sleep "$(cat "$here/cut.$number")"; for pid in $(cat /proc/SERVER/task/SERVER/children); do kill -9 $pid; done) &
fi
exec REAL "$@"
"""


@dataclass(frozen=True)
class Server:
    """A running sshd: the process and its port."""

    process: subprocess.Popen[bytes]
    port: int

    def connections(self) -> list[int]:
        """Processes of its connections."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]


@contextmanager
def servers(
    folder: Path, hosts: Sequence[str], *, shared: bool = False
) -> Iterator[tuple[Path, dict[str, Server]]]:
    """Start one for each host, or one for sixteen, which then have an address of loopback each.

    Yields the settings of `ssh` that lead there, and the servers by host.
    """
    sshd = shutil.which("sshd", path=_PLACES)
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("sshd is not here: install openssh-server")
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        pytest.skip("sshd of the root user needs the folder /run/sshd")
    for name in ("host", "user", "other"):
        command = [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "test",
            "-f",
            str(folder / f"{name}_key"),
        ]
        subprocess.run(command, check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    several = _MOST_LISTENS if shared else 1
    addresses = {host: f"127.0.0.{1 + number % several}" for number, host in enumerate(hosts)}
    running = dict[str, Server]()
    try:
        for at in range(0, len(hosts), several):
            group = hosts[at : at + several]
            server = _start(sshd, folder, group[0], [addresses[host] for host in group])
            running |= dict.fromkeys(group, server)
        public = (folder / "host_key.pub").read_text().strip()
        known = "".join(f"[{addresses[host]}]:{server.port} {public}\n" for host, server in running.items())
        (folder / "known_hosts").write_text(known)
        own = "".join(
            f"Host {host}\n  Port {server.port}\n  HostName {addresses[host]}\n"
            for host, server in running.items()
        )
        (folder / "ssh_config").write_text(
            f"{own}Host *\n  User {getpass.getuser()}\n  IdentityFile {folder}/user_key\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n  StrictHostKeyChecking yes\n"
        )
        yield folder / "ssh_config", running
    finally:
        for server in {server.port: server for server in running.values()}.values():
            for pid in server.connections():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            server.process.kill()
            server.process.wait()


def _start(sshd: str, folder: Path, host: str, addresses: Sequence[str]) -> Server:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / f"sshd_{host}"
    listens = "".join(f"ListenAddress {address}\n" for address in addresses)
    # With such a level bash does not read this user's ~/.bashrc, which may take its time.
    config.write_text(
        f"SetEnv SHLVL=5\nPort {port}\n{listens}HostKey {folder}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"KbdInteractiveAuthentication no\nMaxStartups 200\nMaxSessions 100\nPrintMotd no\n"
    )
    log = (folder / f"log_{host}").open("wb")
    with log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)
    until = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return Server(process, port)
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.skip(f"sshd does not start here: {(folder / f'log_{host}').read_text().strip()[-200:]}")
        time.sleep(0.05)


class Cuts:
    """An `ssh` that is found first, whose connections to one server can be cut."""

    def __init__(self, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder / "cutting"
        self._folder.mkdir()
        real = shutil.which("ssh") or "ssh"
        program = self._folder / "ssh"
        program.write_text(CUTTING.replace("REAL", real).replace("SERVER", str(server.process.pid)))
        program.chmod(0o755)
        (self._folder / "number").write_text("0")
        monkeypatch.setenv("PATH", f"{self._folder}:{os.environ['PATH']}")

    def cut(self, number: int, after_s: float) -> None:
        """Cut the number-th call from now on, so many seconds after it began."""
        now = int((self._folder / "number").read_text())
        (self._folder / f"cut.{now + number}").write_text(f"{after_s}")

    def mend(self) -> None:
        """Cut none any more."""
        for path in self._folder.glob("cut.*"):
            path.unlink()
