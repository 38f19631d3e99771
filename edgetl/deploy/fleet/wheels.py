"""Which wheels of a folder a device can install, and which it lacks.

Names and tags are those of the binary distribution format (packaging.python.org, "Platform compatibility tags"; for
glibc PEP 600, for musl PEP 656).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.deploy.fleet.place import PythonThere
from edgetl.errors import ConfigError, DeviceError
from edgetl.packages import canonical
from edgetl.shell import join

BASE = ("numpy", "pillow", "typer", "rich")
"""What the device side needs beside an engine; what these need themselves is found by pip there."""
_WHEEL = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)
_LEGACY = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_KNOWN = {"glibc": "manylinux", "musl": "musllinux"}


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel: its file, its package, and the tags that it was built for."""

    path: Path
    name: str
    pythons: tuple[str, ...]
    abis: tuple[str, ...]
    platforms: tuple[str, ...]

    def fits(self, python: PythonThere, system: str, machine: str) -> bool:
        """Whether that Python takes it."""
        return any(_python_fits(p, a, python) for p in self.pythons for a in self.abis) and any(
            _platform_fits(platform, python, system, machine) for platform in self.platforms
        )


def find(folder: Path) -> tuple[Wheel, ...]:
    """The wheels of a folder, by name.

    Raises:
        ConfigError: there is no folder, or no wheel in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder} with wheels.")
    found = [wheel for path in sorted(folder.glob("*.whl")) if (wheel := _read(path)) is not None]
    if not found:
        raise ConfigError(
            f"{folder} has no wheels. Fetch them with: pip wheel --wheel-dir {folder} '.[cpu]' in the checkout"
        )
    return tuple(found)


def choose(
    wheels: Sequence[Wheel],
    packages: Sequence[str],
    python: PythonThere,
    system: str,
    machine: str,
    folder: Path,
) -> tuple[Wheel, ...]:
    """The wheels that a device can install.

    Raises:
        DeviceError: some that it needs are not among them; the message says which, and how to fetch them.
    """
    fit = tuple(wheel for wheel in wheels if wheel.fits(python, system, machine))
    have = {wheel.name for wheel in fit}
    # Of whatever lies there for another kind of machine there must be one for this.
    wanted = {canonical(name) for name in (*BASE, *packages)} | {wheel.name for wheel in wheels}
    lacking = sorted(wanted - have - {"edgetl"})
    if not lacking:
        return fit
    version = ".".join(map(str, python.version))
    platform = _platform(python, system, machine)
    tags = ("--platform", platform, "--python-version", version)
    fetch = join(["pip", "download", "--only-binary=:all:", *tags, "--dest", str(folder), *lacking])
    raise DeviceError(
        f"it is {system} {machine} with Python {version}, and {folder} has no wheels for that of"
        f" {', '.join(lacking)}. Fetch them with: {fetch}"
    )


def _read(path: Path) -> Wheel | None:
    found = _WHEEL.fullmatch(path.name)
    if found is None:
        return None
    return Wheel(
        path=path,
        name=canonical(found["name"]),
        pythons=tuple(found["python"].split(".")),
        abis=tuple(found["abi"].split(".")),
        platforms=tuple(found["platform"].split(".")),
    )


def _python_fits(tag: str, abi: str, python: PythonThere) -> bool:
    found = re.fullmatch(r"([a-z]+)(\d)(\d*)", tag)
    if found is None:
        return False
    kind, major, minor = found[1], int(found[2]), int(found[3] or 0)
    if major != python.version[0] or minor > python.version[1]:
        return False
    if kind == "py":
        return abi == "none"
    if kind != "cp" or python.implementation != "cpython":
        return False
    return abi == "abi3" or (minor == python.version[1] and abi in (tag, "none"))


def _platform_fits(tag: str, python: PythonThere, system: str, machine: str) -> bool:
    if tag == "any":
        return True
    if system == "Darwin":
        return tag.startswith("macosx_") and tag.endswith((f"_{machine}", "_universal2"))
    if system != "Linux" or not tag.endswith(f"_{machine}"):
        return False
    family = tag.removesuffix(f"_{machine}")
    if family == "linux":
        return True
    wanted = _LEGACY.get(family)
    kind = "manylinux"
    if wanted is None:
        found = re.fullmatch(r"(manylinux|musllinux)_(\d+)_(\d+)", family)
        if found is None:
            return False
        kind, wanted = found[1], (int(found[2]), int(found[3]))
    return kind == _KNOWN.get(python.libc, kind) and (not python.libc or wanted <= python.libc_version[:2])


def _platform(python: PythonThere, system: str, machine: str) -> str:
    """The newest platform tag that the device takes, for `pip download`."""
    if system == "Darwin":
        return f"macosx_11_0_{machine}"
    if python.libc in _KNOWN and len(python.libc_version) > 1:
        # Wheels are built for a few versions; pip takes older ones only where they are named.
        newest = (2, 28) if python.libc == "glibc" else (1, 2)
        major, minor = min(python.libc_version[:2], newest)
        return f"{_KNOWN[python.libc]}_{major}_{minor}_{machine}"
    return f"manylinux_2_28_{machine}"
