"""What a stage's result depends on, derived from what it is given: nothing is listed by hand, so nothing is missing.

A frozen input counts with all its fields, but for those marked by `UNKEYED`: where something lies, how many workers
do it, what progress is shown.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

UNKEYED = MappingProxyType({"keyed": False})
"""`dataclasses.field(metadata=UNKEYED)`: the result does not depend on this field."""


def key_of(value: Any) -> Any:
    """Plain JSON values that change whenever what a stage is given changes.

    A path counts with the content of its file, wherever it lies; a text that names a file (in a recipe) with both. What
    has a `sha256` of its own, as an index of images, counts with that.

    Args:
        value: configs, dataclasses, containers and plain values, to any depth.

    Raises:
        TypeError: a value of another kind; mark its field by `UNKEYED`, or give it a `sha256`.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        path = Path(value)
        return [value, _content(path)] if _names_a_file(path) else value
    if isinstance(value, Path):
        return _content(value) if value.is_file() else f"missing: {value}"
    if isinstance(digest := getattr(value, "sha256", None), str) and _whole(value):
        return digest
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: key_of(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.metadata.get("keyed", True)
        }
    if isinstance(fields := getattr(type(value), "model_fields", None), dict):
        return {name: key_of(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {str(name): key_of(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [key_of(inner) for inner in value]
    raise TypeError(f"{type(value).__name__} has no key: mark its field by UNKEYED, or give it a sha256.")


@functools.cache
def sources() -> str:
    """SHA-256 of edgetl's own code: what another version of it made is never up to date."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _whole(value: Any) -> bool:
    """Whether its `sha256` is derived from all of it, and not one of its fields among others."""
    return not dataclasses.is_dataclass(value) or "sha256" not in {f.name for f in dataclasses.fields(value)}


def _names_a_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that no path can be
        return False


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
