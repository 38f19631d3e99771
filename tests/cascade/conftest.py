"""Two bundles, images, and the cascade of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.cascade import stage
from edgetl.records.cascade import CascadeRecord
from tests.cascade.bundles import LARGE, SMALL, bundle, config, pictures


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cascade")
    pictures(folder / "set", {"train": 1, "val": 40, "test": 8})
    bundle(folder / "small.edgetl", SMALL, 15)
    bundle(folder / "large.edgetl", LARGE, 0.5, slow=True)
    return folder


@pytest.fixture(scope="session")
def made(place: Path) -> CascadeRecord:
    return stage.run(config(place, place / "both.edgetl"))
