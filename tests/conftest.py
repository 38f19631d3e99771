"""Shared fixtures. Tests use no network but loopback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgetl.process import tune
from edgetl.quiet import ONNX_RUNTIME_SWITCH
from tests.real_sets import unpacked


def pytest_configure() -> None:
    """Before any test module imports torch or an engine."""
    os.environ.setdefault(ONNX_RUNTIME_SWITCH, "1")
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    tune()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache folder out of the tests; built-in sets are made once a session."""
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path_factory.getbasetemp() / "edgetl-cache"))


@pytest.fixture(scope="session")
def real_set():
    """Return a function from a real set's name to its unpacked folder; skips where the set is missing."""

    def find(name: str) -> Path:
        folder = unpacked(name)
        if folder is None:
            pytest.skip(f"the image set {name} is not here: set EDGETL_DATA to the folder with {name}.zip")
        return folder

    return find
