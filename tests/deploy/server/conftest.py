from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgetl.bundle.pack import pack
from tests import squares
from tests.bundles import contents

if TYPE_CHECKING:
    from tests.deploy.server.serving import Running


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier of 32 px and a detector of 96 px."""
    folder = tmp_path_factory.mktemp("served")
    pack(contents(folder), folder / "flowers.edgetl")
    squares.write_bundle(folder / "squares.edgetl")
    return folder


@pytest.fixture(scope="module")
def server(bundles: Path) -> Iterator[Running]:
    from tests.deploy.server.serving import serving  # It skips where serving is not installed.

    paths = {name: bundles / f"{name}.edgetl" for name in ("flowers", "squares")}
    with serving(paths) as running:
        yield running
