"""The real image sets: found where `EDGETL_DATA` says, unpacked where they are zips."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

REAL_SETS = (
    "flowers12",
    "magnetic_tile",
    "magnetic_tile_masks",
    "cifar10",
    "bccd",
    "cards",
    "office_caltech10",
    "spoken_digits",
)


def unpacked(name: str) -> Path | None:
    """The set's folder, SPLIT/CLASS/*.jpg below it; None where `EDGETL_DATA` names no folder that holds the set."""
    assert name in REAL_SETS
    home = os.environ.get("EDGETL_DATA", "")
    if home and (Path(home) / name).is_dir():
        return Path(home) / name
    archive = Path(home) / f"{name}.zip"
    if not home or not archive.is_file():
        return None
    target = Path(".cache/data").absolute()
    if not (target / name).is_dir():
        scratch = target / f".{name}.tmp"
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(scratch)
        (scratch / name).rename(target / name)
    return target / name
