"""Shared fixtures. Tests use no network but loopback."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from edgetl.tuning import tune

REAL_SETS = ("flowers12", "cifar10", "magnetic_tile")


def pytest_configure() -> None:
    """Before any test module imports torch."""
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    tune()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache folder out of the tests; built-in sets are made once a session."""
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path_factory.getbasetemp() / "edgetl-cache"))


@pytest.fixture(scope="session")
def real_set(tmp_path_factory: pytest.TempPathFactory):
    """Return a function from a real set's name to its unpacked folder; skips where the set is missing."""

    def unpacked(name: str) -> Path:
        assert name in REAL_SETS
        home = os.environ.get("EDGETL_DATA", "")
        if home and (Path(home) / name).is_dir():
            return Path(home) / name
        archive = Path(home) / f"{name}.zip"
        if not home or not archive.is_file():
            pytest.skip(f"the image set {name} is not here: set EDGETL_DATA to the folder with {name}.zip")
        target = Path(".cache/data").absolute()
        if not (target / name).is_dir():
            scratch = target / f".{name}.tmp"
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(scratch)
            (scratch / name).rename(target / name)
        return target / name

    return unpacked
