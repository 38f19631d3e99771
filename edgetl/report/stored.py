"""Reading a finished run's report again."""

from __future__ import annotations

from pathlib import Path

from edgetl.errors import StorageError
from edgetl.files import read_json
from edgetl.report.page.run import JSON_NAME
from edgetl.report.run import RunReport
from edgetl.shell import command


def load_report(folder: Path) -> RunReport:
    """What a run found, from its `report.json`.

    Raises:
        StorageError: there is none, or another version wrote it.
    """
    path = folder / JSON_NAME
    if not path.is_file():
        lock = folder / "recipe.lock.toml"
        recipe = lock if lock.is_file() else "recipe.toml"
        raise StorageError(
            f"{folder} holds no finished run: there is no {JSON_NAME}. Finish it with:"
            f" {command('run', recipe, '--out', folder)}"
        )
    try:
        return read_json(path, RunReport)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{path} cannot be read ({error}); another version of edgetl may have written it. Write it anew with:"
            f" {command('run', folder / 'recipe.lock.toml', '--out', folder)}"
        ) from error
