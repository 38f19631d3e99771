"""Which files in a folder are images, or recordings: one answer for training data, unlabelled images and the device.

None of them is read.

Links are followed, to files and to folders. What systems leave behind is passed over; every other file that is not an
image is counted by its kind, so that nobody misses a picture unknowingly.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgetl.errors import DataError
from edgetl.inputs.spec import InputKind

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
"""Endings of files that count as images, whatever their case."""

SOUNDS = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga"})
"""Endings of files that count as recordings, where sounds are looked at."""

RECORDINGS = frozenset(
    {
        ".mp3",
        ".m4a",
        ".aac",
        ".opus",
        ".wma",
        ".aif",
        ".aiff",
        ".au",
        ".amr",
        ".caf",
        ".pcm",
        ".raw",
        ".w64",
        ".lnk",
    }
)
"""Endings of files that hold sounds too, but none that are read here: a person may think that they are."""

PICTURES = frozenset(
    {
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".j2k",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
        ".rw2",
        ".raf",
        ".raw",
        ".tga",
        ".exr",
        ".hdr",
        ".psd",
        ".svg",
        ".ico",
        ".dcm",
        ".pcx",
        ".npy",
        ".lnk",
    }
)
"""Endings of files that hold pictures too, but none that are read here: a person may think that they are."""

LINKS = "links that lead nowhere"
"""The kind of links whose file is not there: git-annex and DVC leave such where contents were not fetched."""
HIDDEN, HIDDEN_SOUNDS = "hidden images", "hidden recordings"
SPECIAL = "pipes or devices"

_LEFTOVERS = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_LEFT_FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",
        "__pycache__",
        "#recycle",
        "$recycle.bin",
        "lost+found",
        "system volume information",
    }
)


def suffixes(kind: InputKind) -> frozenset[str]:
    """Endings of the files of a kind."""
    return SUFFIXES if kind is InputKind.IMAGE else SOUNDS


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds, by name.

    Attributes:
        path: the folder.
        folders: folders in it, and links to folders.
        images: image files in it, and links to such; recordings where these are looked for.
        others: number of its other files by kind, e.g. `.heic files`.
        kind: what was looked for.
    """

    path: Path
    folders: tuple[Path, ...]
    images: tuple[Path, ...]
    others: Mapping[str, int]
    kind: InputKind = InputKind.IMAGE


def place(text: str) -> Path:
    """A path as a person typed it, `~` and all.

    Raises:
        DataError: it stands for no place: it is empty, names an unknown user's home, is too long, or holds a zero byte.
    """
    if not text:  # as of a variable that is not set; `Path` would take it for the current folder
        raise DataError("A path is empty; name a file or folder (. for the current folder).")
    try:
        path = Path(text).expanduser()
        path.exists()
        return path
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise DataError(f"{text!r:.200} cannot be used as a path: {reason}.") from error


def list_folder(folder: Path, kind: InputKind = InputKind.IMAGE) -> Folder:
    """Look into one folder for files of a kind.

    Raises:
        DataError: it cannot be read.
    """
    folders: list[str] = []
    images: list[str] = []
    others: Counter[str] = Counter()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                match _kind(entry, kind):
                    case "folder":
                        folders.append(entry.name)
                    case "image":
                        images.append(entry.name)
                    case "":
                        pass
                    case other:
                        others[other] += 1
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    return Folder(
        folder,
        tuple(folder / name for name in sorted(folders)),
        tuple(folder / name for name in sorted(images)),
        dict(sorted(others.items())),
        kind,
    )


def walk(root: Path, kind: InputKind = InputKind.IMAGE) -> Iterator[Folder]:
    """A folder and all folders below it, each once, however many links lead to it and whether they go round.

    Raises:
        DataError: one cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    waiting: list[Path] = [root]
    links: list[Path] = []
    while waiting or links:
        # What is reached without a link goes by its own name.
        path = waiting.pop() if waiting else links.pop()
        if (identity := _identity(path)) in seen:
            continue
        seen.add(identity)
        found = list_folder(path, kind)
        for folder in found.folders:
            (links if folder.is_symlink() else waiting).append(folder)
        yield found


def images_below(root: Path, kind: InputKind = InputKind.IMAGE) -> tuple[tuple[Path, ...], dict[str, int]]:
    """All images (or files of another kind) in a folder at any depth, by path, and the number of other files by kind.

    Raises:
        DataError: a folder cannot be read.
    """
    images: list[Path] = []
    others: Counter[str] = Counter()
    for folder in walk(root, kind):
        images += folder.images
        others.update(folder.others)
    return tuple(sorted(images)), dict(sorted(others.items()))


def is_image(path: Path, kind: InputKind = InputKind.IMAGE) -> bool:
    """Whether a path that was found, by a pattern for example, is one that `walk` would give."""
    try:
        passed_over = any(_is_left_folder(part) for part in path.parts[:-1])
        return not passed_over and _is_named_as(path.name, kind) and path.is_file()
    except OSError:
        return False


def lookalikes(others: Mapping[str, int], kind: InputKind = InputKind.IMAGE) -> dict[str, int]:
    """Of files that are not images (or of another kind), by kind, those that a person may take for some."""
    alike = PICTURES if kind is InputKind.IMAGE else RECORDINGS | SUFFIXES
    kinds = {LINKS, HIDDEN, HIDDEN_SOUNDS, *(f"{suffix} files" for suffix in alike)}
    return {kind: count for kind, count in others.items() if kind in kinds}


def counted(others: Mapping[str, int]) -> str:
    """Kinds and numbers in words, most first: `12 .heic files, 3 links that lead nowhere`."""
    by_count = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{count} {kind if count > 1 else _one(kind)}" for kind, count in by_count]
    return ", ".join(texts[:_KINDS]) + (f" and {len(texts) - _KINDS} further kinds" if texts[_KINDS:] else "")


def together(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums of numbers by kind."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


_KINDS = 6


def _one(kind: str) -> str:
    words = {
        "links": "link",
        "files": "file",
        "images": "image",
        "recordings": "recording",
        "pipes": "pipe",
        "devices": "device",
        "lead": "leads",
    }
    return " ".join(words.get(word, word) for word in kind.split(" "))


def _kind(entry: os.DirEntry[str], kind: InputKind) -> str:
    """`folder`, `image`, the kind of another file, or nothing for what is passed over."""
    name = entry.name
    try:
        if entry.is_dir():
            return "" if name.startswith(".") or _is_left_folder(name) else "folder"
        if name.startswith("._") or name.casefold() in _LEFTOVERS:
            return ""
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 Path is ten times slower here
        if not entry.is_file():
            if name.startswith("."):
                return ""
            return LINKS if entry.is_symlink() else SPECIAL
    except OSError:  # a link to itself, or into what may not be looked at
        return LINKS
    if name.startswith("."):
        hidden = HIDDEN if kind is InputKind.IMAGE else HIDDEN_SOUNDS
        return hidden if suffix in suffixes(kind) else ""
    if suffix in suffixes(kind):
        return "image"
    return f"{suffix} files" if suffix else "files without an ending"


def _is_left_folder(name: str) -> bool:
    return name.casefold() in _LEFT_FOLDERS


def _is_named_as(name: str, kind: InputKind) -> bool:
    hidden = name.startswith(".")
    return not hidden and os.path.splitext(name)[1].lower() in suffixes(kind)  # noqa: PTH122 as above


def _identity(folder: Path) -> tuple[int, int]:
    try:
        stat = folder.stat()
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    return stat.st_dev, stat.st_ino


def name_below(path: Path, root: Path) -> str:
    """A file's path relative to the root with slashes; as it is where it lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
