"""What every reader of boxes gives, and the faults that they share."""

from __future__ import annotations

import contextlib
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetl.data.sources import SPLIT_NAMES, Split, listing
from edgetl.data.walk import images_below
from edgetl.errors import DataError


@dataclass(frozen=True, slots=True)
class Object:
    """One object: (x1, y1, x2, y2) in the upright picture's pixels, its class, and whether it stands for a crowd."""

    box: tuple[float, float, float, float]
    label: str
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True, slots=True)
class Marked:
    """What is marked in one picture: its width and height in pixels (upright, as its EXIF says), and its objects."""

    size: tuple[int, int]
    objects: tuple[Object, ...]


@dataclass(frozen=True, slots=True)
class BoxEntry:
    """One picture with its objects; none is an answer too. `split` is None where the source leaves it open."""

    path: Path
    objects: tuple[Object, ...]
    split: Split | None
    group: str = ""


@dataclass(frozen=True)
class FoundBoxes:
    """A source's pictures, by path, and the classes in the source's own order where it has one."""

    root: Path
    labels: tuple[str, ...]
    entries: tuple[BoxEntry, ...]
    unlisted: int = 0
    """Images in the source's folders that no annotation names."""


@dataclass
class Faults:
    """Collects what is wrong in one file, so that all of it is said at once."""

    file: Path
    found: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """One more fault."""
        self.found.append(text)

    def check(self) -> None:
        """Raise what was collected.

        Raises:
            DataError: there is any.
        """
        if self.found:
            count = f"{len(self.found)} faults" if len(self.found) > 1 else "a fault"
            raise DataError(f"{self.file} has {count}:\n{listing(self.found)}")


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        DataError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def read_json(path: Path) -> Any:
    """A file's JSON.

    Raises:
        DataError: it is none.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON that can be read: {error}.") from error


def class_name(text: str) -> str:
    """A class's name in one Unicode form, without space around it."""
    return unicodedata.normalize("NFC", text).strip()


def box_fault(box: Iterable[Any]) -> str:
    """Why four numbers are no box (x1, y1, x2, y2); empty where they are one."""
    try:
        x1, y1, x2, y2 = (float(value) for value in box)
    except (TypeError, ValueError):
        return "its box is not four numbers"
    if not all(abs(value) < 1e7 for value in (x1, y1, x2, y2)):  # NaN is not below either
        return "its box is not four finite numbers"
    if x2 <= x1 or y2 <= y1:
        return f"its box is of no area ({x2 - x1:g} x {y2 - y1:g})"
    return ""


def split_of(name: str) -> Split | None:
    """The split that a file's or folder's name stands for."""
    words = name.casefold().replace("-", "_").split("_")
    found = [
        SPLIT_NAMES[word.rstrip("0123456789")] for word in words if word.rstrip("0123456789") in SPLIT_NAMES
    ]
    return found[0] if len(set(found)) == 1 else None


def is_there(path: Path) -> bool:
    """Whether a file or folder is there; a name that no file can have, as one too long, is not."""
    with contextlib.suppress(OSError, ValueError):
        return path.exists()
    return False


def finder(folders: Iterable[Path]) -> Callable[[str], Path | None]:
    """Finds pictures by the name that an annotation gives, in the first of the folders that has it.

    Names are tried as paths first, then by their last part, whatever separators they use.
    """
    places = list(folders)
    by_name: dict[str, Path | None] = {}
    for folder in places:
        if folder.is_dir():
            for path in images_below(folder)[0]:
                # A name that two pictures have stands for neither.
                by_name[path.name] = None if path.name in by_name and by_name[path.name] != path else path

    def find(name: str) -> Path | None:
        plain = name.replace("\\", "/")
        for folder in places:
            if plain and is_there(path := folder / plain) and path.is_file():
                return path
        return by_name.get(plain.rpartition("/")[2])

    return find


def together(root: Path, labels: tuple[str, ...], parts: Iterable[tuple[BoxEntry, ...]]) -> FoundBoxes:
    """All parts of a source.

    Raises:
        DataError: a picture is in two parts, only some parts have a split, or there are none.
    """
    entries = sorted((entry for part in parts for entry in part), key=lambda entry: str(entry.path))
    twice = [str(b.path) for a, b in itertools.pairwise(entries) if a.path == b.path]
    if twice:
        raise DataError(f"{root} annotates pictures twice:\n{listing(twice)}\nKeep one annotation of each.")
    if not entries:
        raise DataError(f"{root} lists no pictures.")
    if len({entry.split is None for entry in entries}) > 1:
        count = sum(entry.split is None for entry in entries)
        raise DataError(
            f"{root}: {count} pictures have no split while others have one; give all one, or none."
        )
    if not any(entry.objects for entry in entries):
        raise DataError(f"{root} holds {len(entries)} pictures but no box anywhere; a detector needs some.")
    return FoundBoxes(root, labels, tuple(entries))
