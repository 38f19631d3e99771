"""Find the labelled files of a source: a folder SPLIT/CLASS/*, a folder CLASS/*, or a CSV. Reads no image."""

from __future__ import annotations

import csv
import difflib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgetl.data import builtin
from edgetl.errors import DataError
from edgetl.progress import SILENT, Progress

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".webp",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
    }
)
"""Endings of files that count as images, whatever their case; other files are ignored."""

NAMED = 10
"""How many files or lines an error names before it only counts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A labelled file that was found. `split` is None where the source leaves it open.

    Images of one `group` (of one part, patient or scene) stay together when splits and folds are taken; "" is none.
    """

    path: Path
    label: str
    split: Split | None
    group: str = ""


@dataclass(frozen=True)
class Found:
    """A source's entries, in a stable order. `root` is an absolute folder that holds them all."""

    root: Path
    entries: tuple[Entry, ...]


def find(source: str, *, progress: Progress = SILENT) -> Found:
    """Find the entries of `source`: a folder, a CSV file, or the name of a built-in set.

    Raises:
        DataError: nothing is there, or its layout is not understood; the message says what to do.
    """
    if (folder := builtin.folder(source, progress=progress)) is not None:
        return _folder(folder, progress)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path.absolute(), progress)
    if path.is_file():
        if path.suffix.lower() in (".csv", ".tsv"):
            return _csv(path.absolute())
        raise DataError(f"{source} is a file but not a .csv; give a folder of images or a CSV.")
    raise DataError(f"There is no folder or CSV at {source}.{_near(path)}")


def listing(items: Iterable[str]) -> str:
    """Up to `NAMED` items, one a line, and a count of the others."""
    texts = list(items)
    lines = [f"  {text}" for text in texts[:NAMED]]
    if len(texts) > NAMED:
        lines.append(f"  and {len(texts) - NAMED} more")
    return "\n".join(lines)


def closest(word: str, words: Iterable[str], cutoff: float = 0.75) -> str | None:
    """The word most like `word` whatever its case, if any is close."""
    by_fold = {other.casefold(): other for other in words if other != word}
    close = difflib.get_close_matches(word.casefold(), list(by_fold), n=1, cutoff=cutoff)
    return by_fold[close[0]] if close else None


# --- folders ----------------------------------------------------------------------------------------------


def _folder(root: Path, progress: Progress) -> Found:
    folders = _subfolders(root)
    splits = _split_folders(root, folders)
    if splits:
        others = [path.name for path in folders if path not in splits.values()]
        if others:
            progress.warning(f"{root}: beside its splits, these folders are not read: {', '.join(others)}.")
        entries = [
            entry
            for split, path in splits.items()
            for entry in _classes(path, _subfolders(path), split, progress)
        ]
    else:
        entries = list(_classes(root, folders, None, progress))
    if not entries:
        raise DataError(_why_empty(root, folders, splits))
    return Found(root, tuple(entries))


def _split_folders(root: Path, folders: Sequence[Path]) -> dict[Split, Path]:
    """The folders of a SPLIT/CLASS/* layout; empty where the layout is CLASS/*."""
    found: dict[Split, Path] = {}
    for path in folders:
        split = SPLIT_NAMES.get(path.name.casefold())
        if split is None or not _subfolders(path):
            continue  # a folder `train` of images, beside `bus`, is a class
        if split in found:
            raise DataError(f"{root} has two {split} folders, {found[split].name} and {path.name}; keep one.")
        found[split] = path
    if found and "train" not in found:
        names = " and ".join(path.name for path in found.values())
        raise DataError(
            f"{root} has {names} but no train folder; put the training images in {root / 'train'}."
        )
    return {split: found[split] for split in SPLITS if split in found}


def _classes(
    parent: Path, folders: Sequence[Path], split: Split | None, progress: Progress
) -> Iterable[Entry]:
    for folder in folders:
        images = _images(folder)
        if not images:
            progress.warning(f"{folder} holds no images; this class folder is left out.")
        elif nested := _subfolders(folder):
            progress.warning(
                f"{folder}: its {len(nested)} subfolders are not read, only the images beside them."
            )
        label = unicodedata.normalize("NFC", folder.name)
        for path in images:
            yield Entry(path, label, split)
    if loose := len(_images(parent)):
        progress.warning(f"{parent}: {loose} images lie beside the class folders and are not read.")


def _why_empty(root: Path, folders: Sequence[Path], splits: dict[Split, Path]) -> str:
    if splits or not folders:
        loose = len(_images(root))
        if loose:
            return f"{root} holds {loose} images but no class folders; put each class in its own folder."
        return f"{root} holds no images; expected CLASS/* or train/CLASS/*, val/CLASS/*, test/CLASS/*."
    deeper = next((path for path in folders if any(_images(inner) for inner in _subfolders(path))), None)
    hint = f" Did you mean {deeper}?" if deeper and len(folders) == 1 else ""
    if deeper is None:
        deeper = next((path for path in folders if any(map(_subfolders, _subfolders(path)))), None)
        hint = f" Did you mean {deeper}?" if deeper else ""
    return (
        f"{root} holds no images in its class folders; expected CLASS/* or train/CLASS/*, "
        f"with files that end in .jpg, .png or the like.{hint}"
    )


def _subfolders(folder: Path) -> list[Path]:
    with _listed(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    return [folder / name for name in names]


def _images(folder: Path) -> list[Path]:
    with _listed(folder) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES  # noqa: PTH122 Path is ten times slower here
            and not entry.name.startswith(".")
            and entry.is_file()
        )
    return [folder / name for name in names]


def _listed(folder: Path) -> os._ScandirIterator[str]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {error.strerror}.") from error


def _near(path: Path) -> str:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    names = {name: str(path.parent / name) for name in siblings if not name.startswith(".")}
    if path.parent == Path():
        names |= {name: name for name in builtin.NAMES}
    close = closest(path.name, names, cutoff=0.6)
    if close:
        return f" Did you mean {names[close]}?"
    if not path.parent.is_dir():
        return f" The folder {path.parent} does not exist either."
    return f" Built-in sets are {' and '.join(builtin.NAMES)}."


# --- CSV --------------------------------------------------------------------------------------------------


def _csv(path: Path) -> Found:
    lines = _csv_lines(path)
    header = [cell.strip().casefold() for cell in lines[0]] if lines else []
    missing = [name for name in ("path", "label") if name not in header]
    if missing:
        raise DataError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {' and '.join(missing)}; "
            f"its first line is {', '.join(header) or 'empty'}, expected path,label and, if you like, split and group."
        )
    columns: dict[str, int] = {
        name: header.index(name) for name in ("path", "label", "split", "group") if name in header
    }
    problems: list[str] = []
    entries: dict[Path, Entry] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        values: dict[str, str] = {
            name: cells[at].strip() if at < len(cells) else "" for name, at in columns.items()
        }
        entry = _csv_entry(path.parent, values, number, problems)
        if entry is None:
            continue
        earlier = entries.setdefault(entry.path, entry)
        if earlier != entry:
            problems.append(
                f"line {number}: {values['path']} was listed before with another label, split or group"
            )
    if not problems and len({entry.split is None for entry in entries.values()}) > 1:
        count = sum(entry.split is None for entry in entries.values())
        problems.append(f"{count} lines have no split while others have one; fill them all or none")
    if problems:
        raise DataError(f"{path} has {len(problems)} wrong lines:\n{listing(problems)}")
    if not entries:
        raise DataError(f"{path} lists no images.")
    folders = {str(entry.path.parent) for entry in entries.values()}
    root = Path(os.path.commonpath([str(path.parent), *folders]))
    return Found(root, tuple(entries.values()))


def _csv_lines(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(",;\t", key=first.count)
            file.seek(0)
            return list(csv.reader(file, delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from None
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV that can be read: {error}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _csv_entry(folder: Path, values: dict[str, str], number: int, problems: list[str]) -> Entry | None:
    if not values["path"] or not values["label"]:
        problems.append(f"line {number}: the {'path' if not values['path'] else 'label'} is empty")
        return None
    text = values.get("split", "")
    split = SPLIT_NAMES.get(text.casefold())
    if text and split is None:
        close = closest(text, SPLIT_NAMES, cutoff=0.5)
        hint = f"; did you mean {close}?" if close else "; expected train, val or test"
        problems.append(f"line {number}: the split is {text!r}{hint}")
        return None
    absolute = Path(os.path.normpath(folder / Path(values["path"]).expanduser()))
    label = unicodedata.normalize("NFC", values["label"])
    return Entry(absolute, label, split, values.get("group", ""))
