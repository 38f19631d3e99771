"""Devices that are folders here: an `ssh` that runs `sh` on this machine, an edgetl that answers what it is given."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgetl.bundle.golden import GoldenCheck
from edgetl.bundle.manifest import Precision
from edgetl.deploy.fleet.config import Fleet, load
from edgetl.deploy.fleet.link import Link
from edgetl.deploy.fleet.place import Place
from edgetl.deploy.fleet.work import Reporter
from edgetl.files import sha256_file
from edgetl.records.codec import to_json
from tests.history.records import record as timed

SSH = """#!/bin/sh
# ssh [OPTIONS] -- HOST COMMAND, for hosts that are folders next to this file.
here=$(dirname "$0")
for word in "$@"; do
  if test "$word" = -O; then exit 0; fi
done
while test "$1" != --; do shift; done
host=$2; command=$3
case $host in
  unknown) echo "ssh: Could not resolve hostname unknown: Name or service not known" >&2; exit 255 ;;
  refuses) echo "pi@refuses: Permission denied (publickey)." >&2; exit 255 ;;
  stranger) echo "Host key verification failed." >&2; exit 255 ;;
  changed) echo "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @" >&2; exit 255 ;;
  away) echo "ssh: connect to host away port 22: Connection timed out" >&2; exit 255 ;;
  closed) echo "ssh: connect to host closed port 22: Connection refused" >&2; exit 255 ;;
  silent) exit 255 ;;
  slow) exec sleep 60 ;;
  shell-less) echo "This account is not available."; exit 1 ;;
  chatty) echo "Welcome to line 3"; echo "edgetl-fleet says hello" ;;
esac
number=0
if test -f "$here/$host.count"; then number=$(cat "$here/$host.count"); fi
number=$((number + 1))
echo $number > "$here/$host.count"
printf '%s\\n' "$command" >> "$here/$host.log"
mode=
if test -f "$here/$host.cut.$number"; then mode=$(cat "$here/$host.cut.$number"); fi
if test "$mode" = before; then echo "Connection closed by $host" >&2; exit 255; fi
HOME=$here/$host; export HOME
cd "$HOME" || exit 255
PATH=$here/bin:$PATH; export PATH
case $mode in
  middle) head -c 5000 | sh -c "$command"; code=255 ;;
  altered) tr a b | sh -c "$command"; code=$? ;;
  after) sh -c "$command" > /dev/null; echo edgetl-fleet-answer; code=255 ;;
  *) sh -c "$command"; code=$? ;;
esac
exit $code
"""
"""`HOST.cut.N` says how the N-th command's connection breaks."""

PYTHON = """#!/bin/sh
# The Python of a device's environment: its edgetl gives the answers that lie next to it.
here=$(dirname "$0")
if test "$1 $2" = "-m edgetl"; then
  printf '%s\\n' "$*" >> "$here/asked"
  if test -f "$here/$3.error"; then cat "$here/$3.error" >&2; fi
  if test -f "$here/$3.json"; then cat "$here/$3.json"; fi
  if test -f "$here/$3.code"; then exit $(cat "$here/$3.code"); fi
  exit 0
fi
case $2 in *edgetl._version*) echo 0.1.0; exit 0 ;; esac
exec REAL -I -S "$@"
"""


@dataclass(frozen=True)
class Lab:
    """Devices in a folder, by their host."""

    folder: Path

    def device(self, host: str, *, installed: bool = True) -> Path:
        """Make a device; its folder."""
        root = self.folder / host / "edgetl"
        root.mkdir(parents=True, exist_ok=True)
        if installed:
            environment = root / "envs" / "first" / "bin"
            environment.mkdir(parents=True)
            (root / "env").symlink_to("envs/first")
            executable(environment / "python", PYTHON.replace("REAL", shlex.quote(sys.executable)))
            self.answers(host, "verify", check())
            self.answers(host, "bench", timed(4.0))
            self.answers(host, "info", {"task": {"kind": "classification"}})
        return root

    def answers(self, host: str, command: str, record: object, code: int = 0) -> None:
        """Let a device's edgetl answer a command with this record and exit code."""
        there = self.folder / host / "edgetl" / "env" / "bin"
        (there / f"{command}.json").write_text(json.dumps(to_json(record)))
        (there / f"{command}.code").write_text(str(code))

    def asked(self, host: str) -> list[str]:
        """The commands of edgetl that ran on a device."""
        path = self.folder / host / "edgetl" / "env" / "bin" / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def cut(self, host: str, number: int, mode: str) -> None:
        """Let the connection of the number-th command from now on break: before, in the middle, after; or alter it."""
        (self.folder / f"{host}.cut.{self.calls(host) + number}").write_text(mode)

    def mend(self, host: str) -> None:
        """Let no further connection break."""
        for path in self.folder.glob(f"{host}.cut.*"):
            path.unlink()

    def calls(self, host: str) -> int:
        """How many commands the device was given."""
        count = self.folder / f"{host}.count"
        return int(count.read_text()) if count.exists() else 0

    def program(self, name: str, text: str) -> None:
        """A program that devices find before the system's."""
        (self.folder / "bin").mkdir(exist_ok=True)
        executable(self.folder / "bin" / name, f"#!/bin/sh\n{text}\n")

    def busybox(self) -> None:
        """Let devices have BusyBox's programs alone, and its shell."""
        found = shutil.which("busybox")
        if found is None:
            pytest.skip("BusyBox is not here: install busybox")
        applets = self.folder / "applets"
        applets.mkdir()
        subprocess.run([found, "--install", "-s", str(applets)], check=True)
        text = SSH.replace("PATH=$here/bin:$PATH;", f"PATH=$here/bin:{applets};")
        executable(self.folder / "ssh", text.replace('sh -c "$command"', f'{applets}/sh -c "$command"'))

    def write(self, text: str = "", **devices: str) -> Path:
        """A file of devices; each with the lines that are given, or with all devices of the lab."""
        names = devices or {
            root.name: "" for root in sorted(self.folder.iterdir()) if (root / "edgetl").is_dir()
        }
        tables = "".join(f"[devices.{name}]\n{lines}\n" for name, lines in names.items())
        path = self.folder / "fleet.toml"
        path.write_text(f"retries = 0\n{text}\n{tables}")
        return path

    def fleet(self, text: str = "", **devices: str) -> Fleet:
        """The same, loaded."""
        return load(self.write(text, **devices))


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab whose `ssh` is found first."""
    executable(folder / "ssh", SSH)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return Lab(folder)


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def check(passed: bool = True) -> GoldenCheck:
    return GoldenCheck(
        variant="fp32",
        precision=Precision.FP32,
        images=3,
        max_difference=0.0 if passed else 2.0,
        allowed_difference=0.1,
        same=1.0,
        pixels_identical=True,
    )


def place_of(fleet: Fleet, calls: object) -> tuple[Place, Reporter]:
    """The first device's place."""
    device = fleet.devices[0]
    return Place(Link(device, fleet, calls, None), fleet), Reporter(device, lambda steps, note: None)


def stand(root: Path, bundle: Path) -> None:
    """Let a bundle, and nothing else, stand on a device and run there."""
    for path in (*(root / "bundles").glob("*"), *(root / "incoming").glob("*"), *root.glob("*.edgetl")):
        path.unlink()
    (root / "bundles").mkdir(exist_ok=True)
    name = f"flowers-{sha256_file(bundle)[:16]}.edgetl"
    (root / "bundles" / name).write_bytes(bundle.read_bytes())
    (root / "current.edgetl").symlink_to(f"bundles/{name}")


def runs(root: Path) -> str:
    """SHA-256 of the bundle that runs on a device; empty where none does."""
    current = root / "current.edgetl"
    return sha256_file(current) if current.exists() else ""
