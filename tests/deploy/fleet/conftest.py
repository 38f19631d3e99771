from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.bundle.pack import pack
from tests.bundles import contents
from tests.deploy.fleet.devices import Lab, make


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return make(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles that differ."""
    import dataclasses

    folder = tmp_path_factory.mktemp("carried")
    parts = contents(folder)
    paths = (folder / "old.edgetl", folder / "new.edgetl")
    for path, name in zip(paths, ("flowers", "flowers two"), strict=True):
        pack(dataclasses.replace(parts, name=name), path)
    return paths
