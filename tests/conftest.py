"""Shared fixtures. Tests use no network but loopback; those on emulated machines alone fetch these, once."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from edgetl.bench import apart
from edgetl.process import tune, usable_cores
from edgetl.progress import SILENT
from edgetl.quiet import ONNX_RUNTIME_SWITCH
from tests.real_sets import unpacked

# How long an example takes says something of the machine and nothing of the code.
settings.register_profile("edgetl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgetl")


def pytest_configure() -> None:
    """Before any test module imports torch or an engine; one thread, since every core may have a worker."""
    os.environ.setdefault(ONNX_RUNTIME_SWITCH, "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tune()
    gc.set_threshold(
        50_000
    )  # As in the command line: else imports and tests spend much of their time on garbage.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker for each core that this process may use; more than 16 would only fill the memory."""
    return min(usable_cores(), 16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache folder out of the tests; built-in sets are made once a session."""
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path_factory.getbasetemp() / "edgetl-cache"))


@pytest.fixture(scope="session", autouse=True)
def _timed_here(request: pytest.FixtureRequest) -> Iterator[None]:
    """Time in the tests' own process, which saves every run the start of another; but in long ones."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("markexpr") != "slow":
            patch.setattr(apart, "run_apart", lambda work, job, progress=SILENT: work(job, progress))
        yield


@pytest.fixture(scope="session")
def real_set():
    """Return a function from a real set's name to its unpacked folder; skips where the set is missing."""

    def find(name: str) -> Path:
        folder = unpacked(name)
        if folder is None:
            pytest.skip(f"the image set {name} is not here: set EDGETL_DATA to the folder with {name}.zip")
        return folder

    return find
