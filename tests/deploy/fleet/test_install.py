"""An environment is whole before it is switched to; and wheels are those of the device's processor and Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.deploy.fleet import wheels
from edgetl.deploy.fleet.install import Installation, install, installation
from edgetl.deploy.fleet.link import Calls
from edgetl.deploy.fleet.place import PythonThere
from edgetl.deploy.fleet.record import DeviceRecord, Outcome
from edgetl.errors import ConfigError, DeviceError
from tests.deploy.fleet.devices import Lab, place_of

PYTHON = """
case "$1 $2" in
  "-m venv") if test -f "$HOME/no-venv"; then echo "No module named ensurepip" >&2; exit 1; fi
    for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; exit 0 ;;
  "-m pip") printf '%s\\n' "$*" >> "$HOME/pip"
    if test -f "$HOME/no-pip"; then echo "ERROR: No matching distribution found for onnxruntime" >&2; exit 1; fi
    exit 0 ;;
  "-m edgetl") echo "edgetl 0.1.0"; exit 0 ;;
esac
case $2 in
  *edgetl._version*) echo 0.1.0 ;;
  *libc_ver*) echo ${PYTHON_SAYS:-cpython 3 11 glibc 2.36} ;;
  *) exec REAL -I -S "$@" ;;
esac
"""
NAMES = (
    "edgetl-0.1.0-py3-none-any.whl",
    "numpy-2.4.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "pillow-13.0.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    "onnxruntime-1.32.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    "typer-0.29.2-py3-none-any.whl",
    "rich-15.0.0-py3-none-any.whl",
    "protobuf-7.36.2-cp310-abi3-manylinux2014_x86_64.whl",
)
ARM = "numpy-2.4.0-cp311-cp311-manylinux_2_28_aarch64.whl"


@pytest.fixture
def site(lab: Lab) -> Lab:
    """A lab whose devices have a Python that makes environments, and a folder of wheels."""
    import sys

    lab.program("python3", PYTHON.replace("REAL", sys.executable))
    lab.program("uname", 'if test "$1" = -m; then echo x86_64; else echo Linux; fi')
    (lab.folder / "wheels").mkdir()
    for name in (*NAMES, ARM):
        (lab.folder / "wheels" / name).write_bytes(name.encode() * 50)
    return lab


def do(site: Lab, wanted: Installation) -> DeviceRecord:
    place, told = place_of(site.fleet(), Calls())
    return install(place, wanted, told)


def refusal(site: Lab, wanted: Installation) -> str:
    with pytest.raises(DeviceError) as raised:
        do(site, wanted)
    return str(raised.value)


def pip(site: Lab) -> list[str]:
    path = site.folder / "line-1" / "pip"
    return path.read_text().splitlines() if path.exists() else []


def test_wheels_are_carried_and_nothing_is_fetched(site: Lab) -> None:
    root = site.device("line-1")
    wanted = installation(None, site.folder / "wheels")
    record = do(site, wanted)
    assert (record.outcome, record.sentence) == (
        Outcome.DONE,
        "edgetl 0.1.0 with onnxruntime, in edgetl/env.",
    )
    assert record.sent_bytes == sum((site.folder / "wheels" / name).stat().st_size for name in NAMES)
    (line,) = pip(site)
    assert "--no-index --find-links wheels/" in line
    assert line.endswith("/edgetl-0.1.0-py3-none-any.whl onnxruntime")
    assert (root / "env").readlink() != Path("envs/first")
    assert [path.name for path in (root / "envs").iterdir()] == [(root / "env").readlink().name]
    assert not (root / "wheels").exists()
    again = do(site, wanted)
    assert (again.outcome, again.sent_bytes, len(pip(site))) == (Outcome.DONE, 0, 1)


def test_a_device_with_a_network_gets_the_wheel_alone(site: Lab) -> None:
    site.device("line-1")
    record = do(site, installation(site.folder / "wheels" / NAMES[0], None))
    assert record.sent_bytes == (site.folder / "wheels" / NAMES[0]).stat().st_size
    assert "--no-index" not in pip(site)[0]


def test_a_fleet_that_requires_signatures_gets_what_checks_them(site: Lab) -> None:
    site.device("line-1")
    wheel = site.folder / "wheels" / NAMES[0]
    assert do(site, installation(wheel, None, signed=True)).outcome is Outcome.DONE
    assert pip(site)[0].endswith("onnxruntime cryptography")
    said = refusal(site, installation(None, site.folder / "wheels", signed=True))
    assert "has no wheels for that of cryptography. Fetch" in said


def test_an_installation_that_fails_leaves_the_old_one(site: Lab) -> None:
    root = site.device("line-1")
    wanted = installation(None, site.folder / "wheels")
    (site.folder / "line-1" / "no-pip").touch()
    assert refusal(site, wanted) == (
        "pip cannot install there: No matching distribution found for onnxruntime. Add what is missing to"
        f" {site.folder}/wheels."
    )
    assert (root / "env").readlink() == Path("envs/first")
    (site.folder / "line-1" / "no-pip").unlink()
    (site.folder / "line-1" / "no-venv").touch()
    assert refusal(site, wanted).startswith(
        "its Python cannot make an environment: No module named ensurepip. On Debian and Ubuntu install the package"
    )
    (site.folder / "line-1" / "no-venv").unlink()
    assert do(site, wanted).outcome is Outcome.DONE


def test_another_processor_is_told_which_wheels_are_needed(site: Lab) -> None:
    site.device("line-1")
    site.program("uname", 'if test "$1" = -m; then echo aarch64; else echo Linux; fi')
    assert refusal(site, installation(None, site.folder / "wheels")) == (
        f"it is Linux aarch64 with Python 3.11, and {site.folder}/wheels has no wheels for that of onnxruntime, pillow,"
        " protobuf. Fetch them with: pip download --only-binary=:all: --platform manylinux_2_28_aarch64"
        f" --python-version 3.11 --dest {site.folder}/wheels onnxruntime pillow protobuf"
    )


@pytest.mark.parametrize("python", ["~/own dir/python3", "own dir/python3"])
def test_paths_from_the_home_folder_hold_in_every_folder(site: Lab, python: str) -> None:
    home = site.folder / "line-1"
    site.device("line-1", installed=False)
    (home / "own dir").mkdir()
    (home / "own dir" / "python3").symlink_to(site.folder / "bin" / "python3")
    fleet = site.fleet(f'python = "{python}"\nfolder = "~/else where"\ncaptured = "~/kept"')
    place, told = place_of(fleet, Calls())
    assert install(place, installation(None, site.folder / "wheels"), told).outcome is Outcome.DONE
    assert (home / "else where" / "env" / "bin" / "python").exists()
    (home / "kept").mkdir()
    (home / "kept" / "captured.jsonl").touch()
    (home / "kept" / "a.png").touch()
    assert place.look().state.captured == 1


def test_no_python_and_an_old_one_are_said(site: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    site.device("line-1")
    wanted = installation(None, site.folder / "wheels")
    monkeypatch.setenv("PYTHON_SAYS", "cpython 3 9 glibc 2.31")
    assert refusal(site, wanted).startswith("its `python3` is Python 3.9, and 3.11 or newer is needed.")
    (site.folder / "bin" / "python3").write_text("#!/bin/sh\nexit 127\n")
    assert refusal(site, wanted).startswith("it has no Python `python3`. Install Python 3.11 or newer there")


def test_what_cannot_be_installed_is_said_before_any_device_is_asked(site: Lab, tmp_path: Path) -> None:
    for wheel, folder, message in (
        (None, tmp_path / "none", "There is no folder .*none with wheels."),
        (None, tmp_path / "bin", "has no wheels. Fetch them with: pip wheel"),
        (tmp_path / "ssh", None, "ssh is not a wheel of edgetl. Make one with: make wheel"),
    ):
        with pytest.raises(ConfigError, match=message):
            installation(wheel, folder)


GLIBC = PythonThere(implementation="cpython", version=(3, 11), libc="glibc", libc_version=(2, 28))
MUSL = PythonThere(implementation="cpython", version=(3, 12), libc="musl", libc_version=(1, 2))


@pytest.mark.parametrize(
    ("name", "python", "machine", "fits"),
    [
        ("a-1-py3-none-any.whl", GLIBC, "riscv64", True),
        ("a-1-py2.py3-none-any.whl", GLIBC, "x86_64", True),
        ("a-1-1-py3-none-any.whl", GLIBC, "x86_64", True),
        ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", GLIBC, "x86_64", True),
        ("a-1-cp311-cp311-manylinux_2_31_x86_64.whl", GLIBC, "x86_64", False),
        ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", GLIBC, "aarch64", False),
        ("a-1-cp312-cp312-manylinux_2_28_x86_64.whl", GLIBC, "x86_64", False),
        ("a-1-cp310-cp310-manylinux2014_x86_64.whl", GLIBC, "x86_64", False),
        ("a-1-cp39-abi3-manylinux2014_x86_64.whl", GLIBC, "x86_64", True),
        ("a-1-cp312-cp312-musllinux_1_2_aarch64.whl", MUSL, "aarch64", True),
        ("a-1-cp312-cp312-manylinux_2_17_aarch64.whl", MUSL, "aarch64", False),
        ("a-1-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", GLIBC, "x86_64", False),
        ("a-1-cp311-cp311-macosx_11_0_arm64.whl", GLIBC, "arm64", False),
    ],
)
def test_tags_are_read_as_pip_reads_them(
    name: str, python: PythonThere, machine: str, fits: bool, tmp_path: Path
) -> None:
    (tmp_path / name).touch()
    (wheel,) = wheels.find(tmp_path)
    assert (wheel.name, wheel.fits(python, "Linux", machine)) == ("a", fits)


def test_a_mac_takes_its_own_wheels(tmp_path: Path) -> None:
    (tmp_path / "A_b-1-cp311-cp311-macosx_11_0_arm64.whl").touch()
    (wheel,) = wheels.find(tmp_path)
    mac = PythonThere(implementation="cpython", version=(3, 11))
    assert wheel.name == "a-b"
    assert wheel.fits(mac, "Darwin", "arm64")
    assert not wheel.fits(mac, "Darwin", "x86_64")
