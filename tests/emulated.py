"""Arm machines for tests: QEMU's user-mode emulation, Debian's Python, and the packages that such a device gets.

They need no root, no chroot and no kernel that knows Arm's programs. They say what is computed on Arm, and nothing
about speed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgetl.files import sha256_bytes

ROOT = Path(__file__).parent.parent
TRIED = ROOT / "edgetl" / "constraints.txt"
_APT = """APT::Architecture "{debian}";
APT::Architectures {{ "{debian}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "{user}";
Acquire::Languages "none";
Dir::State "{home}/apt/state";
Dir::State::status "{home}/apt/status";
Dir::Cache "{home}/apt/cache";
{sources}"""
_SOURCES = """Dir::Etc::SourceList "{home}/sources.list";
Dir::Etc::SourceParts "/dev/null";
"""


class UnavailableError(Exception):
    """There is no such machine here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of machine, and where its programs come from.

    Attributes:
        debian: its name in Debian.
        qemu: its name in QEMU.
        python: the program.
        packages: Debian's.
        wheels: further packages as published for it, by name.
        platforms: the wheels' tags.
        suite: Debian's, where it is not this machine's own.
        libraries: folders of libraries that Debian chooses between by links, which unpacking does not make.
    """

    debian: str
    qemu: str
    python: str
    packages: tuple[str, ...]
    wheels: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    suite: str = ""
    libraries: tuple[str, ...] = ()


_OWN = f"python3.{sys.version_info.minor}"
ARM64 = Kind(
    debian="arm64",
    qemu="aarch64",
    python=_OWN,
    packages=(f"{_OWN}-minimal", f"lib{_OWN}-stdlib", "libstdc++6", "zlib1g"),
    wheels=("numpy", "pillow", "typer", "rich", "onnxruntime", "ai-edge-litert"),
    platforms=(
        "manylinux_2_28_aarch64",
        "manylinux_2_27_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    ),
)
ARMV7 = Kind(
    debian="armhf",
    qemu="arm",
    python="python3.13",
    packages=tuple(f"python3-{name}" for name in ("minimal", "numpy", "pil", "onnxruntime", "typer", "rich")),
    suite="trixie",
    libraries=tuple(f"/usr/lib/arm-linux-gnueabihf/{name}" for name in ("blas", "lapack")),
)
"""32 bits; ONNX Runtime publishes no wheel for it, but Debian 13 has it."""


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A processor that QEMU knows, and what Linux says of it in /proc/cpuinfo."""

    name: str
    part: str
    features: str
    architecture: int = 8

    def record(self) -> str:
        """The file, of two cores."""
        return "".join(
            f"processor\t: {core}\nBogoMIPS\t: 100.00\nFeatures\t: {self.features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: {self.architecture}\nCPU variant\t: 0x3\nCPU part\t: {self.part}\nCPU revision\t: 1\n\n"
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
CORTEX_A7 = Processor(
    name="cortex-a7",
    part="0xc07",
    features="half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm",
    architecture=7,
)


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
        kind: which.
        home: the folder that holds it.
        clock: how long its programs may run.
    """

    def __init__(self, kind: Kind, home: Path, clock: Clock) -> None:
        self.kind, self.home, self.clock = kind, home, clock

    @property
    def site(self) -> Path:
        """Where its wheels are."""
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
        libraries = ":".join(f"{root}{folder}" for folder in self.kind.libraries)
        given = f' -E LD_LIBRARY_PATH="{libraries}"' if libraries else ""
        text = (
            f'#!/bin/sh\nPYTHONHOME="{root}/usr" exec "{self.home}/bin/qemu" -0 "{path}" -cpu {processor.name}'
            f' -L "{root}"{given} "{root}/usr/bin/{self.kind.python}" "$@"\n'
        )
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755)
        return path


def machine(kind: Kind, cache: Path, clock: Clock) -> Machine:
    """The machine in a folder of its own under `cache`, made where it is not there.

    Raises:
        UnavailableError: what it needs cannot be had here.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise UnavailableError(f"{program} is not there; the machine is made of Debian's packages")
    tried = [line for line in TRIED.read_text().splitlines() if line.partition("==")[0] in kind.wheels]
    key = sha256_bytes(" ".join((repr(kind), *tried)).encode())[:12]
    home = cache / f"{kind.debian}-{key}"
    if not (home / ".ready").exists():
        for old in cache.glob(f"{kind.debian}-*"):
            shutil.rmtree(old)
        try:
            _make(kind, home, clock)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or "").strip().splitlines()
            raise UnavailableError(
                f"{' '.join(map(str, error.cmd[:2]))}: {said[-1] if said else 'failed'}"
            ) from error
        (home / ".ready").touch()
    return Machine(kind, home, clock)


def _make(kind: Kind, home: Path, clock: Clock) -> None:
    root = home / "root"
    for folder in ("apt/state/lists/partial", "apt/cache/archives/partial", "root", "bin"):
        (home / folder).mkdir(parents=True)
    (home / "apt" / "status").touch()
    settings = {"debian": kind.debian, "user": "root" if os.geteuid() == 0 else "", "home": home}
    sources = ""
    if kind.suite:
        sources = _SOURCES.format(home=home)
        archives = [f"deb [arch={kind.debian}] {uri} {kind.suite} main\n" for uri in _archives(clock)]
        (home / "sources.list").write_text("".join(archives), encoding="utf-8")
    (home / "apt.conf").write_text(_APT.format(**settings, sources=sources), encoding="utf-8")
    apt = {**os.environ, "APT_CONFIG": str(home / "apt.conf")}
    clock.run(["apt-get", "-qq", "update"], env=apt)
    clock.run(["apt-get", "-qq", "install", "--download-only", "-y", *kind.packages], env=apt)
    for package in (home / "apt" / "cache" / "archives").glob("*.deb"):
        clock.run(["dpkg-deb", "-x", str(package), str(root)])
    if not (root / "lib").exists():  # a link, in Debian 13, that the system's installation makes
        (root / "lib").symlink_to("usr/lib")
    _bring_qemu(kind, home / "bin", clock)
    shutil.rmtree(home / "apt")
    if kind.wheels:
        _bring_wheels(kind, home / "site", clock)


def _archives(clock: Clock) -> Iterator[str]:
    """Where this machine has its own release of Debian from.

    Raises:
        UnavailableError: it is not Debian.
    """
    release = platform.freedesktop_os_release()
    if release["ID"] != "debian":
        raise UnavailableError(f"this is {release['ID']}, which does not know where Debian's packages are")
    said = clock.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    )
    for line in sorted(set(said.splitlines())):
        uri, _, codename = line.partition(" ")
        if codename == release["VERSION_CODENAME"]:
            yield uri


def _bring_wheels(kind: Kind, folder: Path, clock: Clock) -> None:
    tags = [word for name in kind.platforms for word in ("--platform", name)]
    abis = [word for name in (f"cp3{sys.version_info.minor}", "abi3", "none") for word in ("--abi", name)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated", "install", "--quiet"]
    clock.run(
        [
            *pip,
            *("--no-compile", "--target", str(folder), "--only-binary=:all:", "-c", str(TRIED)),
            *("--implementation", "cp", "--python-version", f"3.{sys.version_info.minor}"),
            *tags,
            *abis,
            *kind.wheels,
        ]
    )


def _bring_qemu(kind: Kind, folder: Path, clock: Clock) -> None:
    for name in (f"qemu-{kind.qemu}-static", f"qemu-{kind.qemu}"):
        if found := shutil.which(name):
            (folder / "qemu").symlink_to(found)
            return
    clock.run(["apt-get", "-qq", "download", "qemu-user-static"], cwd=folder)
    [package] = folder.glob("qemu-user-static_*.deb")
    clock.run(["dpkg-deb", "-x", str(package), str(folder / "unpacked")])
    shutil.move(folder / "unpacked" / "usr" / "bin" / f"qemu-{kind.qemu}-static", folder / "qemu")
    shutil.rmtree(folder / "unpacked")
    package.unlink()
