"""A 64-bit Arm machine for tests: QEMU's user-mode emulation, Debian's Python, and the wheels that such a device gets.

It needs no root, no chroot and no kernel that knows Arm's programs. It says what is computed on Arm, and nothing about
speed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edgetl.files import sha256_bytes

ROOT = Path(__file__).parent.parent
TRIED = ROOT / "edgetl" / "constraints.txt"
PYTHON = f"python3.{sys.version_info.minor}"
NEEDED = ("numpy", "pillow", "typer", "rich", "onnxruntime", "ai-edge-litert")
_PLATFORMS = (
    "manylinux_2_28_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux2014_aarch64",
)
_APT = """APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "{user}";
Acquire::Languages "none";
Dir::State "{home}/apt/state";
Dir::State::status "{home}/apt/status";
Dir::Cache "{home}/apt/cache";
"""


class UnavailableError(Exception):
    """There is no such machine here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A processor that QEMU knows, and what Linux says of it in /proc/cpuinfo."""

    name: str
    part: str
    features: str

    def record(self) -> str:
        """The file, of two cores."""
        return "".join(
            f"processor\t: {core}\nBogoMIPS\t: 100.00\nFeatures\t: {self.features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: {self.part}\nCPU revision\t: 1\n\n"
            for core in (0, 1)
        )


CORTEX_A72 = Processor(
    name="cortex-a72", part="0xd08", features="fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
)
NEOVERSE_N1 = Processor(
    name="neoverse-n1",
    part="0xd0c",
    features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
)
"""Has the dot product of bytes, which the one before lacks."""


class Clock:
    """How long all of it may take, in seconds."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def run(self, command: list[str], **options: object) -> str:
        """The command's standard output.

        Raises:
            UnavailableError: the time is over.
            subprocess.CalledProcessError: it fails.
        """
        left = self._end - time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=max(left, 0.01), **options
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError("the time for it is over: this machine is slow, or busy") from error
        return done.stdout


class Machine:
    """The machine.

    Args:
        home: the folder that holds it.
        clock: how long its programs may run.
    """

    def __init__(self, home: Path, clock: Clock) -> None:
        self.home, self.clock = home, clock

    @property
    def site(self) -> Path:
        """Where its packages are."""
        return self.home / "site"

    def python(self, processor: Processor, path: Path, *arguments: str) -> str:
        """What Python prints there, with further packages from `path`.

        Raises:
            UnavailableError: the time is over.
            AssertionError: it fails.
        """
        record = self.home / "root" / "proc" / "cpuinfo"
        record.parent.mkdir(exist_ok=True)
        record.write_text(processor.record(), encoding="ascii")
        program = self._program(processor)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        packages = f"{path}:{self.site}"
        try:
            return self.clock.run(
                [str(program), *arguments], env={**kept, "PYTHONPATH": packages, "HOME": str(path)}
            )
        except subprocess.CalledProcessError as error:
            raise AssertionError(f"{arguments[:2]} on {processor.name}: {error.stderr[-2000:]}") from error

    def _program(self, processor: Processor) -> Path:
        """Python as one file, which a program there starts again as itself."""
        path = self.home / "bin" / f"python-{processor.name}"
        root = self.home / "root"
        text = (
            f'#!/bin/sh\nPYTHONHOME="{root}/usr" exec "{self.home}/bin/qemu" -0 "{path}" -cpu {processor.name}'
            f' -L "{root}" "{root}/usr/bin/{PYTHON}" "$@"\n'
        )
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755)
        return path


def machine(cache: Path, clock: Clock) -> Machine:
    """The machine in a folder of its own under `cache`, made where it is not there.

    Raises:
        UnavailableError: what it needs cannot be had here.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise UnavailableError(f"{program} is not there; the machine is made of Debian's packages")
    tried = [line for line in TRIED.read_text().splitlines() if line.partition("==")[0] in NEEDED]
    key = sha256_bytes(" ".join((PYTHON, *NEEDED, *tried, *_PLATFORMS)).encode())[:12]
    home = cache / key
    if not (home / ".ready").exists():
        shutil.rmtree(cache, ignore_errors=True)
        try:
            _make(home, clock)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or "").strip().splitlines()
            raise UnavailableError(
                f"{' '.join(map(str, error.cmd[:2]))}: {said[-1] if said else 'failed'}"
            ) from error
        (home / ".ready").touch()
    return Machine(home, clock)


def _make(home: Path, clock: Clock) -> None:
    for folder in ("apt/state/lists/partial", "apt/cache/archives/partial", "root", "bin"):
        (home / folder).mkdir(parents=True)
    (home / "apt" / "status").touch()
    user = "root" if os.geteuid() == 0 else ""
    (home / "apt.conf").write_text(_APT.format(home=home, user=user), encoding="utf-8")
    apt = {**os.environ, "APT_CONFIG": str(home / "apt.conf")}
    clock.run(["apt-get", "-qq", "update"], env=apt)
    packages = [f"{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libstdc++6", "zlib1g"]
    clock.run(["apt-get", "-qq", "install", "--download-only", "-y", *packages], env=apt)
    for package in (home / "apt" / "cache" / "archives").glob("*.deb"):
        clock.run(["dpkg-deb", "-x", str(package), str(home / "root")])
    _bring_qemu(home / "bin", clock)
    shutil.rmtree(home / "apt")
    tags = [word for name in _PLATFORMS for word in ("--platform", name)]
    abis = [word for name in (f"cp3{sys.version_info.minor}", "abi3", "none") for word in ("--abi", name)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated", "install", "--quiet"]
    clock.run(
        [
            *pip,
            *("--no-compile", "--target", str(home / "site"), "--only-binary=:all:", "-c", str(TRIED)),
            *("--implementation", "cp", "--python-version", f"3.{sys.version_info.minor}"),
            *tags,
            *abis,
            *NEEDED,
        ]
    )


def _bring_qemu(folder: Path, clock: Clock) -> None:
    for name in ("qemu-aarch64-static", "qemu-aarch64"):
        if found := shutil.which(name):
            (folder / "qemu").symlink_to(found)
            return
    clock.run(["apt-get", "-qq", "download", "qemu-user-static"], cwd=folder)
    [package] = folder.glob("qemu-user-static_*.deb")
    clock.run(["dpkg-deb", "-x", str(package), str(folder / "unpacked")])
    shutil.move(folder / "unpacked" / "usr" / "bin" / "qemu-aarch64-static", folder / "qemu")
    shutil.rmtree(folder / "unpacked")
    package.unlink()
