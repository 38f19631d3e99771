"""What may be amiss where images are listed that are not there: separators, the folder they count from, links."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

_LOOKED_AT = 20
_AROUND = " \t'\"`"
_POINTER = b"version https://git-lfs"


def why(source: Path, bad: Sequence[Path]) -> tuple[str, ...]:
    """Sentences on what the first of some images that cannot be used have in common; empty where nothing is known.

    Args:
        source: the folder or CSV that lists them.
        bad: their absolute paths.
    """
    some = list(islice(bad, _LOOKED_AT))
    missing = [path for path in some if not _exists(path)]
    found = []
    if missing:
        folder = source.absolute() if _is_folder(source) else source.absolute().parent
        found += [
            hint for hint in (_separators(missing), _elsewhere(missing, folder), _alike(missing)) if hint
        ][:1]
        if not found and not _is_folder(source):
            found.append(f"Paths in {source.name} count from its own folder, {folder}.")
    if any(map(_is_pointer, some)):
        found.append("Some are pointers of Git LFS, not images: fetch the contents with git lfs pull.")
    return tuple(found)


def _separators(missing: Sequence[Path]) -> str:
    """Paths as Windows or a web address writes them."""
    if os.sep == "\\":
        return ""
    if at := next((path for path in missing if "\\" in str(path)), None):
        return f"The paths are written with backslashes, as on Windows; write '{_plain(at)}' with / in place of \\."
    if any(":/" in str(path) for path in missing):
        return "Some paths are web addresses or name a drive; give files on this machine."
    return ""


def _plain(path: Path) -> str:
    """The part of a path that has backslashes."""
    return next(part for part in path.parts if "\\" in part)


def _elsewhere(missing: Sequence[Path], folder: Path) -> str:
    """Whether a path's last parts lead to a file from the folder or one above it."""
    for path in missing[:5]:
        for start in range(1, len(path.parts)):
            tail = Path(*path.parts[start:])
            for base in (folder, *folder.parents[:3]):
                if (base / tail) != path and _exists(base / tail):
                    return (
                        f"There is {base / tail}, which {path} may stand for; paths count from the CSV's own folder,"
                        f" {folder}."
                    )
    return ""


def _alike(missing: Sequence[Path]) -> str:
    """Whether a file lies there whose name differs in the letters' case, by quotes around it, or by its ending."""
    for path in missing[:5]:
        wanted = Path(*(part.strip(_AROUND) or part for part in path.parts))
        try:
            beside = {name.casefold(): name for name in sorted(os.listdir(wanted.parent))}  # noqa: PTH208 names alone
        except OSError:
            continue
        ending = (
            name
            for name in beside
            if name.rpartition(".")[0] in (wanted.name.casefold(), wanted.stem.casefold())
        )
        if found := beside.get(wanted.name.casefold()) or beside.get(next(ending, "")):
            return f"There is {wanted.parent / found}, which {path} may stand for; names must agree to the letter."
    return ""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_pointer(path: Path) -> bool:
    if not path.is_file():  # a pipe might never end
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False
