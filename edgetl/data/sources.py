"""Find the labelled files of a source: a folder SPLIT/CLASS/*, a folder CLASS/*, or a CSV. Reads none of them."""

from __future__ import annotations

import csv
import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, assert_never

from edgetl.data import builtin
from edgetl.data.walk import (
    LINKS,
    Folder,
    counted,
    images_below,
    list_folder,
    lookalikes,
    place,
    suffixes,
    together,
)
from edgetl.errors import DataError
from edgetl.files import name_as_text, text_as_name
from edgetl.inputs.spec import InputKind
from edgetl.progress import SILENT, Progress
from edgetl.tasks.base import head_fault
from edgetl.tasks.labelling import ONE_LABEL, OWN_COLUMNS, AnyLabels, HeadLabels, Labelling, OneLabel

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
SEPARATOR = "|"
"""What parts the names of several classes in one cell."""
NONE = "none"
"""A cell that says that an image is labelled and has none of the classes, where it may have any number of them."""
_FLAGS = ("0", "1")
_NO_FLAGS = tuple(name for name in OWN_COLUMNS if name != "domain")
"""Columns that are never a class. Adaptation, which reads where an image comes from, is for one class per image."""
NAMED = 10
"""How many files or lines an error names before it only counts."""


Label: TypeAlias = str | tuple[str, ...]
"""A class's name; where any number of classes is asked for, their names in order, without repetitions.

Of several heads the names stand as `head/name`; an image without a name of a head is not labelled for it, unless the
entry's `none_of` names the head.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A labelled file that was found. `split` is None where the source leaves it open.

    Images of one `group` (of one part, patient or scene) stay together when splits and folds are taken; "" is none.
    `none_of` are the heads that it is labelled for, and has none of their classes. `domain` says where it comes from, a
    camera or a line; "" is unsaid.
    """

    path: Path
    label: Label
    split: Split | None
    group: str = ""
    none_of: tuple[str, ...] = ()
    domain: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its classes."""
        return (self.label,) if isinstance(self.label, str) else self.label


@dataclass(frozen=True)
class FoundImages:
    """A source's entries, in a stable order.

    Attributes:
        root: an absolute folder that holds them all.
        entries: the labelled files.
        others: number of files by kind that are not images, as in `edgetl.data.walk`.
        named: classes that the source names whether or not an image has them: columns of 0 and 1.
    """

    root: Path
    entries: tuple[Entry, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    named: tuple[str, ...] = ()

    def labelled(self, labelling: Labelling) -> FoundImages:
        """A folder's entries in the form of `labelling`.

        Raises:
            DataError: folders cannot say it.
        """
        match labelling:
            case OneLabel():
                return self
            case AnyLabels():
                return replace(
                    self, entries=tuple(replace(entry, label=entry.names) for entry in self.entries)
                )
            case HeadLabels():
                names = " and ".join(name for name, _ in labelling.heads)
                raise DataError(
                    f"{self.root} is a folder, which cannot label {names}; give a CSV with their columns."
                )
            case _:
                assert_never(labelling)


def find(
    source: str,
    labelling: Labelling = ONE_LABEL,
    *,
    kind: InputKind = InputKind.IMAGE,
    progress: Progress = SILENT,
) -> FoundImages:
    """Find the entries of `source`: a folder, a CSV file, or the name of a built-in set.

    Args:
        source: where to look.
        labelling: what is asked of each image. A folder's images have the one class of their folder.
        kind: what is looked for in folders; a CSV names its files itself.
        progress: gets the warnings.

    Raises:
        DataError: nothing is there, or its layout is not understood; the message says what to do.
    """
    if (folder := builtin.folder(source, progress=progress)) is not None:
        return _folder(folder, kind, progress).labelled(labelling)
    path = place(source)
    if path.is_dir():
        return _folder(path.absolute(), kind, progress).labelled(labelling)
    if path.is_file():
        if path.suffix.lower() in (".csv", ".tsv"):
            return _csv(path.absolute(), labelling)
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


def _folder(root: Path, kind: InputKind, progress: Progress) -> FoundImages:
    top = list_folder(root, kind)
    named = [path for path in top.folders if path.name.casefold() in SPLIT_NAMES]
    inside = {path: list_folder(path, kind) for path in named}
    splits = _split_folders(root, inside)
    if not splits:
        inside = {path: list_folder(path, kind) for path in top.folders}
    beside: list[Mapping[str, int]] = [_lookalikes(top)]
    entries: list[Entry] = []
    if splits:
        others = [path.name for path in top.folders if path not in splits.values()]
        if others:
            progress.warning(f"{root}: besides its splits, these folders are not read: {', '.join(others)}.")
        for split, path in splits.items():
            classes = [list_folder(folder, kind) for folder in inside[path].folders]
            entries += _classes(inside[path], classes, split, progress)
            beside += [_lookalikes(inside[path]), *(folder.others for folder in classes)]
    else:
        entries += _classes(top, inside.values(), None, progress)
        beside += [folder.others for folder in inside.values()]
    total = together(beside)
    if not entries:
        raise DataError(_why_empty(top, inside, splits, total))
    if missed := lookalikes(total, kind):
        progress.warning(
            f"{root}: besides the {kind.plural}, {counted(missed)} are not read.{_how_to_fetch(missed)}"
        )
    return FoundImages(root, tuple(entries), total)


def _lookalikes(folder: Folder) -> dict[str, int]:
    """Of the files next to class folders, those that may be meant as data; a README is not missed."""
    return lookalikes(folder.others, folder.kind)


def _how_to_fetch(missed: Mapping[str, int]) -> str:
    return " Fetch what the links stand for (git annex get, dvc pull)." if LINKS in missed else ""


def _split_folders(root: Path, inside: Mapping[Path, Folder]) -> dict[Split, Path]:
    """The folders of a SPLIT/CLASS/* layout; empty where the layout is CLASS/*."""
    found: dict[Split, Path] = {}
    for path, folder in inside.items():
        split = SPLIT_NAMES.get(path.name.casefold())
        if split is None or not folder.folders:
            continue  # a folder `train` of images, next to `bus`, is a class
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
    parent: Folder, folders: Iterable[Folder], split: Split | None, progress: Progress
) -> Iterable[Entry]:
    for folder in folders:
        if not folder.images:
            beside = f" It holds {counted(folder.others)}." if folder.others else ""
            progress.warning(
                f"{folder.path} holds no {folder.kind.plural}; this class folder is left out.{beside}"
            )
        elif folder.folders:
            progress.warning(
                f"{folder.path}: its {len(folder.folders)} subfolders{_how_many_in(folder)} are not read, only the"
                f" {folder.kind.plural} next to them."
            )
        label = unicodedata.normalize("NFC", name_as_text(folder.path.name))
        for path in folder.images:
            yield Entry(path, label, split)
    if loose := len(parent.images):
        progress.warning(
            f"{parent.path}: {loose} {parent.kind.plural} lie next to the class folders and are not read."
        )


def _how_many_in(folder: Folder) -> str:
    try:
        count = sum(len(images_below(inner, folder.kind)[0]) for inner in folder.folders)
        return f", with {count} {folder.kind.plural},"
    except DataError:
        return ""


def _why_empty(
    top: Folder, inside: Mapping[Path, Folder], splits: Mapping[Split, Path], others: Mapping[str, int]
) -> str:
    root, beside = top.path, f" It holds {counted(others)}." if others else ""
    what, kind = top.kind.plural, top.kind
    if splits or not inside:
        if loose := len(top.images):
            return f"{root} holds {loose} {what} but no class folders; put each class in its own folder."
        return (
            f"{root} holds no {what}; expected CLASS/* or train/CLASS/*, val/CLASS/*, test/CLASS/*.{beside}"
        )
    grown = {path: [list_folder(inner, kind) for inner in folder.folders] for path, folder in inside.items()}
    deeper = next((path for path, inner in grown.items() if any(one.images for one in inner)), None)
    hint = f" Did you mean {deeper}?" if deeper and len(inside) == 1 else ""
    if deeper is None:
        deeper = next((path for path, inner in grown.items() if any(one.folders for one in inner)), None)
        hint = f" Did you mean {deeper}?" if deeper else ""
    endings = ".jpg, .png or the like" if kind is InputKind.IMAGE else ".wav, .flac or .ogg"
    return (
        f"{root} holds no {what} in its class folders; expected CLASS/* or train/CLASS/*, "
        f"with files that end in {endings}.{hint or beside}"
    )


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


def kind_in(source: str) -> InputKind:
    """What a source holds, by its look: sounds, where more files that it lists end as recordings do than as images.

    Raises:
        DataError: a folder or CSV cannot be read.
    """
    if source in builtin.NAMES:
        return InputKind.IMAGE
    path = place(source)
    if path.is_dir():
        counts = {kind: len(images_below(path, kind)[0]) for kind in InputKind}
    elif path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        lines = csv_lines(path.absolute())
        header = _header(lines)
        at = header.index("path") if "path" in header else 0
        endings = [Path(cells[at].strip()).suffix.lower() for cells in lines[1:] if at < len(cells)]
        counts = {kind: sum(ending in suffixes(kind) for ending in endings) for kind in InputKind}
    else:
        return InputKind.IMAGE
    return InputKind.SOUND if counts[InputKind.SOUND] > counts[InputKind.IMAGE] else InputKind.IMAGE


def grouped(found: FoundImages, pattern: str) -> FoundImages:
    """The entries, each in the group that a pattern finds in its path.

    Args:
        found: entries without groups.
        pattern: a regular expression, searched in the path relative to the root. What its parentheses hold is the
            group, or all that it matches where it has none.

    Raises:
        DataError: some have groups already, or do not match.
    """
    if any(entry.group for entry in found.entries):
        raise DataError(
            f"data.group_pattern is {pattern!r}, but the CSV has a column group already; leave one of the two out."
        )
    entries, strays = list[Entry](), list[str]()
    for entry in found.entries:
        name = entry.path.relative_to(found.root).as_posix()
        match = re.search(pattern, name)
        group = "" if match is None else "/".join(map(str, match.groups())) or match[0]
        strays += [] if group else [name]
        entries.append(replace(entry, group=group))
    if strays:
        raise DataError(
            f"data.group_pattern is {pattern!r}, which finds no group in {len(strays)} of {len(entries)} paths:\n"
            f"{listing(strays)}"
        )
    return replace(found, entries=tuple(entries))


# --- CSV --------------------------------------------------------------------------------------------------


def labelling_in(source: str) -> Labelling:
    """How a source labels its images, by its look: a CSV without a column `label` may give any number of classes."""
    path = place(source)
    if source in builtin.NAMES or not path.is_file() or path.suffix.lower() not in (".csv", ".tsv"):
        return OneLabel()
    lines = csv_lines(path.absolute())
    header = _header(lines)
    if OneLabel().column in header:
        return OneLabel()
    if AnyLabels().column in header or _flags(lines):
        return AnyLabels()
    heads = _heads(lines)
    return HeadLabels(heads=heads) if len(heads) > 1 else OneLabel()


def _heads(lines: Sequence[Sequence[str]]) -> tuple[tuple[str, OneLabel | AnyLabels], ...]:
    """The columns that may be a head each: their names repeat, as classes do and numbers of parts do not."""
    found: dict[str, OneLabel | AnyLabels] = {}
    for at, title in enumerate(lines[0] if lines else ()):
        cells = [cells[at].strip() for cells in lines[1:] if at < len(cells) and cells[at].strip()]
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", title.strip().casefold())
        if (
            title.strip().casefold() in OWN_COLUMNS
            or not re.match("[A-Za-z]", name)
            or 2 * len(set(cells)) > len(cells)
        ):
            continue
        several = any(SEPARATOR in cell for cell in cells)
        column = title.strip().casefold()
        name = f"{name}_" if head_fault(name) else name
        found[name] = AnyLabels(column=column) if several else OneLabel(column=column)
    return tuple(found.items())


def _header(lines: Sequence[Sequence[str]]) -> list[str]:
    return [cell.strip().casefold() for cell in lines[0]] if lines else []


def _flags(lines: Sequence[Sequence[str]]) -> dict[str, int]:
    """The columns that stand for a class each, by its name: most of their cells are 0 or 1."""
    found: dict[str, int] = {}
    rows = [cells for cells in lines[1:] if any(cell.strip() for cell in cells)]
    for at, cell in enumerate(lines[0] if lines else ()):
        if cell.strip().casefold() in _NO_FLAGS or not cell.strip():
            continue
        fits = sum(at < len(cells) and cells[at].strip() in _FLAGS for cells in rows)
        if fits * 2 > len(rows):
            found[unicodedata.normalize("NFC", cell.strip())] = at
    return {} if [name.casefold() for name in found] == ["domain"] else found


def _csv(path: Path, labelling: Labelling) -> FoundImages:
    lines = csv_lines(path)
    header = _header(lines)
    match labelling:
        case OneLabel():
            flags: dict[str, int] = {}
            asked = [labelling.column]
        case AnyLabels():
            flags = {} if labelling.column in header else _flags(lines)
            asked = [] if flags else [labelling.column]
        case HeadLabels():
            flags = {}
            asked = [own.column.casefold() for _, own in labelling.heads]
        case _:
            assert_never(labelling)
    missing = [name for name in ("path", *asked) if name not in header]
    if missing:
        raise DataError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {' and '.join(missing)}; "
            f"its first line is {', '.join(header) or 'empty'}, expected {_expected(labelling)} and, if you like, split"
            f" and group.{_other_task(labelling, lines)}"
        )
    titles = [unicodedata.normalize("NFC", cell.strip()) for cell in lines[0]]
    needed = dict.fromkeys(("path", *asked, *OWN_COLUMNS))
    twice = [name for name in needed if header.count(name) > 1]
    twice += [name for name in flags if titles.count(name) > 1]
    if twice:
        raise DataError(
            f"{path} has the column{'s' if len(twice) > 1 else ''} {' and '.join(twice)} more than once; keep the right"
            " one, or give the others names of their own."
        )
    columns: dict[str, int] = {
        name: header.index(name)
        for name in ("path", *asked, *OWN_COLUMNS)
        if name in header and header.index(name) not in flags.values()
    }
    problems: list[str] = []
    entries: dict[Path, Entry] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        values = _values(cells, columns)
        label: Label | None
        none_of: tuple[str, ...] = ()
        if flags:
            label = _flagged(_values(cells, flags), number, problems)
        elif isinstance(labelling, OneLabel):
            label = unicodedata.normalize("NFC", values[labelling.column])
        elif isinstance(labelling, AnyLabels):
            label, _ = _several(values[labelling.column], labelling.column, number, problems)
        else:
            label, none_of = _of_heads(values, labelling, number, problems)
        entry = None if label is None else _csv_entry(path.parent, values, label, number, problems)
        if entry is None:
            continue
        entry = replace(entry, none_of=none_of)
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
    return FoundImages(root, tuple(entries.values()), named=tuple(flags))


def _expected(labelling: Labelling) -> str:
    match labelling:
        case OneLabel():
            return f"path,{labelling.column}"
        case AnyLabels():
            return f"path,{labelling.column} (names parted by {SEPARATOR}), or path and a column of 0 and 1 per class,"
        case HeadLabels():
            return f"path,{','.join(own.column for _, own in labelling.heads)}"
        case _:
            assert_never(labelling)


def _other_task(labelling: Labelling, lines: Sequence[Sequence[str]]) -> str:
    """A hint where the columns are those of another task."""
    header = _header(lines)
    if isinstance(labelling, OneLabel) and (AnyLabels().column in header or _flags(lines)):
        return ' For any number of classes per image, set task.kind = "multilabel".'
    if isinstance(labelling, OneLabel) and len(heads := _heads(lines)) > 1:
        columns = " and ".join(own.column for _, own in heads)
        return f' For a head for each of {columns}, set task.kind = "multihead" (edgetl init writes it).'
    if isinstance(labelling, AnyLabels) and OneLabel().column in header:
        return ' For one class per image, set task.kind = "classification".'
    return ""


def _values(cells: Sequence[str], columns: Mapping[str, int]) -> dict[str, str]:
    return {name: cells[at].strip() if at < len(cells) else "" for name, at in columns.items()}


def _several(text: str, column: str, number: int, problems: list[str]) -> tuple[tuple[str, ...], bool]:
    """The names in a cell, and whether it says that there are none."""
    names = {unicodedata.normalize("NFC", name.strip()) for name in text.split(SEPARATOR)} - {""}
    said = {name for name in names if name.casefold() == NONE}
    if said and names != said:
        problems.append(
            f"line {number}: {column} is {text!r}; {NONE} says that the image has none of the classes, so it stands by"
            " itself"
        )
    return tuple(sorted(names - said)), bool(said)


def _of_heads(
    values: Mapping[str, str], labelling: HeadLabels, number: int, problems: list[str]
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The flat names of an image, None where there is nothing; and the heads of none of whose classes it is."""
    found, none_of = list[str](), list[str]()
    for head, own in labelling.heads:
        cell = values[own.column.casefold()]
        if isinstance(own, OneLabel):
            found += [f"{head}/{name}" for name in _one(cell)]
            continue
        names, none = _several(cell, own.column, number, problems)
        found += [f"{head}/{name}" for name in names]
        none_of += [head] if none else []
    if not found and not none_of:
        columns = ", ".join(own.column for _, own in labelling.heads)
        problems.append(
            f"line {number}: no label in any of the columns {columns}; fill one, or remove the line"
        )
        return None, ()
    return tuple(found), tuple(none_of)


def _one(text: str) -> tuple[str, ...]:
    return (unicodedata.normalize("NFC", text),) if text else ()


def _flagged(values: Mapping[str, str], number: int, problems: list[str]) -> tuple[str, ...] | None:
    wrong = [name for name, value in values.items() if value not in _FLAGS]
    if wrong:
        problems.append(f"line {number}: {wrong[0]} is {values[wrong[0]]!r}; expected 0 or 1")
        return None
    return tuple(sorted(name for name, value in values.items() if value == "1"))


def csv_lines(path: Path) -> list[list[str]]:
    """A CSV's cells, separated by the commas, semicolons or tabs of its first line.

    Raises:
        DataError: it cannot be read, or is no CSV in UTF-8.
    """
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


def _csv_entry(
    folder: Path, values: Mapping[str, str], label: Label, number: int, problems: list[str]
) -> Entry | None:
    if not values["path"] or label == "":
        problems.append(f"line {number}: the {'path' if not values['path'] else 'label'} is empty")
        return None
    text = values.get("split", "")
    split = SPLIT_NAMES.get(text.casefold())
    if text and split is None:
        close = closest(text, SPLIT_NAMES, cutoff=0.5)
        hint = f"; did you mean {close}?" if close else "; expected train, val or test"
        problems.append(f"line {number}: the split is {text!r}{hint}")
        return None
    try:
        absolute = Path(os.path.normpath(folder / place(text_as_name(values["path"]))))
    except DataError as error:
        problems.append(f"line {number}: {error}")
        return None
    return Entry(absolute, label, split, values.get("group", ""), domain=values.get("domain", ""))
