"""Reading one side of a comparison: a run folder, or a bundle alone."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.layout import is_layout
from edgetl.errors import BundleError
from edgetl.files import read_json
from edgetl.records.train import DataRecord
from edgetl.records.variants import BundleRecord, MeasureRecord
from edgetl.shell import command

if TYPE_CHECKING:
    from edgetl.data.index import DataIndex

REPORT, RECIPE = "report.json", "recipe.lock.toml"


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """What a comparison reads of a run's `report.json`; see `edgetl.report.run.RunReport`."""

    data: DataRecord
    measure: MeasureRecord
    bundle: BundleRecord


@dataclass(frozen=True, kw_only=True)
class Side:
    """A run or a bundle. `run` and `recipe` (plain values) are None for a bundle alone."""

    path: Path
    bundle: Bundle
    run: StoredRun | None = None
    recipe: dict[str, Any] | None = None

    def index(self) -> DataIndex:
        """The run's images; they are not opened.

        Raises:
            DataError: the index is missing or broken.
        """
        from edgetl.data import index as indexes

        assert self.run is not None
        return indexes.load(self.path / self.run.data.index)


def open_side(path: Path) -> Side:
    """Open a run folder that is done, or a bundle.

    A folder that holds a bundle as an OCI image layout is a bundle.

    Raises:
        BundleError: it is neither, or its bundle cannot be used.
    """
    if not path.is_dir() or is_layout(path):
        return Side(path=path, bundle=open_bundle(path))
    stored = path / REPORT
    if not stored.is_file():
        recipe = path / RECIPE if (path / RECIPE).is_file() else "recipe.toml"
        raise BundleError(
            f"{path} holds no finished run: there is no {REPORT}. Finish it with:"
            f" {command('run', recipe, '--out', path)}"
        )
    try:
        run = read_json(stored, StoredRun)
        settings = tomllib.loads((path / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} holds a run that cannot be read ({error}); another version of edgetl may have written it."
            " Run it again, or compare the bundles with --data."
        ) from error
    return Side(path=path, bundle=open_bundle(path / run.bundle.path), run=run, recipe=settings)
