"""The Makefile makes a virtual environment that it can work with, or says in one sentence what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "edgetl").mkdir()
    for name in ("Makefile", "pyproject.toml", "edgetl/constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON")}
    return subprocess.run(
        ["make", "-C", str(clone), *arguments], capture_output=True, text=True, env=clean, check=False
    )


def python(clone: Path, before: str) -> Path:
    """A Python that runs `before` ahead of every `-c`."""
    return script(clone / "python", f'[ "$1" = -c ] && exec {sys.executable} -c "{before}\n$2"\nexit 1')


def half_made(clone: Path) -> None:
    """What Debian without python3-venv leaves: a Python that cannot install."""
    answer = f"echo '{VERSION.replace('.', ' ')} False'"
    script(clone / ".venv" / "bin" / "python", answer)
    for name in ("cpu", "test-cpu"):
        (clone / ".venv" / f".ready-{name}").touch()


def test_a_python_without_venv_is_told_the_package_and_leaves_nothing_behind(clone: Path) -> None:
    bare = python(clone, "import sys; sys.modules['ensurepip'] = None")
    done = make(clone, "setup", f"PYTHON={bare}")
    sentence = f"{bare} cannot make virtual environments: install the package python{VERSION}-venv and run make again."
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == sentence
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("state", ["without pip", "of another Python", "broken"])
def test_an_environment_that_cannot_be_used_is_made_anew(clone: Path, state: str) -> None:
    half_made(clone)
    if state != "without pip":
        script(
            clone / ".venv" / "bin" / "python",
            "echo '3 9 True'" if state == "of another Python" else "exit 1",
        )
    planned = make(clone, "-n", "setup", f"PYTHON={sys.executable}").stdout
    assert "rm -rf .venv\n" in planned
    assert f"{sys.executable} -m venv .venv" in planned


def test_a_sound_environment_stays(clone: Path) -> None:
    half_made(clone)
    script(clone / ".venv" / "bin" / "python", f"echo '{VERSION.replace('.', ' ')} True'")
    assert "rm -rf .venv" not in make(clone, "-n", "setup", f"PYTHON={sys.executable}").stdout


@pytest.mark.parametrize("old", [True, False])
def test_an_old_or_missing_python_is_said(clone: Path, old: bool) -> None:
    command = python(clone, "import sys; sys.version_info = (3, 9, 1)") if old else clone / "none"
    done = make(clone, "setup", f"PYTHON={command}")
    assert done.returncode == 2
    assert (
        f"{command} is not Python 3.11 or newer: install one, or name it with make PYTHON=..." in done.stderr
    )


def test_the_demo_needs_training_and_one_engine_and_no_more(clone: Path) -> None:
    script(clone / ".venv" / "bin" / "python", f"echo '{VERSION.replace('.', ' ')} True'")
    planned = make(clone, "-n", "demo", f"PYTHON={sys.executable}").stdout
    assert [line.split("-e ")[1] for line in planned.splitlines() if " -e " in line] == ["'.[train,cpu]'"]
    assert "-c edgetl/constraints.txt -e" in planned
    newest = make(clone, "-n", "newest", f"PYTHON={sys.executable}").stdout
    [newest] = [line for line in newest.splitlines() if "--upgrade" in line]
    assert "--upgrade -e" in newest
    assert "-c " not in newest
