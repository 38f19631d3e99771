"""From images that a device kept to images that teach: checked, and labelled rows or a folder without labels.

Without classes the images are copied into a folder, for `distill.unlabelled`, with a `labels.csv` for a person to fill
in: the least sure first, with the model's guess. With such a file they become rows of a CSV, after those of the data
set where one is named, so that the file is the recipe's next `data.source`.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.data import unlabelled
from edgetl.data.audit import near_copies
from edgetl.data.index import UNLABELLED, DataIndex, Sample, refuse_names, usable
from edgetl.data.sources import SPLITS, Entry, Split, closest, csv_lines, listing
from edgetl.data.walk import place
from edgetl.errors import ConfigError, DataError
from edgetl.files import name_as_text, write_bytes, write_text
from edgetl.inputs.spec import InputKind, SoundSpec
from edgetl.progress import SILENT, Progress
from edgetl.records.captured import LINES, AddedRecord, CapturedImage, read
from edgetl.tasks.base import Classification

TO_LABEL = "labels.csv"
"""The file to fill in."""
_WHAT = "data add"


@dataclass(frozen=True, kw_only=True)
class AddInputs:
    """What is needed besides the folder.

    Attributes:
        known: the data set that the images shall join; None where that is not looked at.
        labels: a CSV with the columns path and label; None leaves the images without classes.
        split: of the rows.
        sound: how recordings become pictures, where the device listened; of these no near-copies are looked for.
    """

    known: DataIndex | None = None
    labels: Path | None = None
    split: Split = "train"
    sound: SoundSpec | None = None


def run(folder: str, inputs: AddInputs, *, out: Path, progress: Progress = SILENT) -> AddedRecord:
    """Check the images of a folder, and write the rows, or the folder without labels.

    Files that cannot be read, copies of other files, and near-copies of the data set's images are left out and counted.

    Args:
        folder: of a session's captured images, or any other.
        inputs: the data set and the classes.
        out: the CSV, where there are classes, else the folder.
        progress: gets bars.

    Raises:
        ConfigError: `out` is there already, or the split is unknown.
        DataError: the folder holds no usable image, or the CSV of labels is not right.
        StorageError: it cannot be written.
    """
    if inputs.split not in SPLITS:
        raise ConfigError(f"{_WHAT}: the split is {inputs.split!r}, expected {', '.join(SPLITS)}.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{_WHAT}: {out} is there already; choose another name with -o.")
    _check_known(inputs)
    root = place(folder).absolute()
    kind = InputKind.IMAGE if inputs.sound is None else InputKind.SOUND
    found = unlabelled.find(folder, setting=_WHAT, kind=kind, progress=progress)
    good, bad = usable(
        folder, [Entry(path, "", None) for path in found], "skip", progress, sound=inputs.sound
    )
    names = {path: _name(path, root) for path in found}
    samples, copies = _first_of_each(good, inputs.known, names)
    near: tuple[tuple[str, str], ...] = ()
    if inputs.sound is None:  # pictures of short sounds are alike without being copies
        samples, near = _unlike(samples, inputs.known, names, progress)
    about, torn = _about(root)
    if inputs.labels is None:
        classes: dict[Path, str] = {}
        _write_folder(samples, about, out, progress)
        added = len(samples)
    else:
        classes = _classes(inputs.labels, root, {path.absolute(): path for path in found}, inputs.known)
        refuse_names(str(inputs.labels), set(classes.values()))
        labelled = [sample for sample in samples if sample.path in classes]
        if not labelled:
            raise DataError(
                f"{inputs.labels}: it gives none of the {len(samples)} {kind.plural} a class; fill in its column label."
            )
        _write_rows(labelled, classes, inputs, out)
        added = len(labelled)
    counts = Counter(classes[sample.path] for sample in samples if sample.path in classes)
    return AddedRecord(
        folder=folder,
        images=len(found),
        added=added,
        unreadable=tuple((names[path], reason) for path, reason in bad.items()),
        copies=copies,
        near=near,
        unlabelled=0 if inputs.labels is None else len(samples) - added,
        classes=dict(sorted(counts.items())),
        new_classes=() if inputs.known is None else tuple(sorted(counts.keys() - set(inputs.known.labels))),
        torn=torn,
        before=0 if inputs.known is None or inputs.labels is None else len(inputs.known.samples),
        out=str(out),
        kind=str(kind),
    )


def _check_known(inputs: AddInputs) -> None:
    known = inputs.known
    if known is not None and inputs.labels is not None and not isinstance(known.task, Classification):
        raise ConfigError(
            f"{_WHAT}: the data set is of the task {known.task.kind}, and rows of one class per image are made; leave"
            " --labels out, and label the folder's images as the set's are."
        )


def _first_of_each(
    good: Sequence[tuple[Entry, str]], known: DataIndex | None, names: dict[Path, str]
) -> tuple[list[Sample], tuple[tuple[str, str], ...]]:
    """Each content once, as an image without a class; and (name, other) of the copies."""
    held = {} if known is None else {sample.sha256: str(sample.path) for sample in known.samples}
    samples, copies = list[Sample](), list[tuple[str, str]]()
    for entry, sha256 in good:
        if sha256 in held:
            copies.append((names[entry.path], held[sha256]))
            continue
        held[sha256] = names[entry.path]
        samples.append(Sample(entry.path, UNLABELLED, "train", sha256))
    return samples, tuple(copies)


def _unlike(
    samples: list[Sample], known: DataIndex | None, names: dict[Path, str], progress: Progress
) -> tuple[list[Sample], tuple[tuple[str, str], ...]]:
    """Those that look like no image of the data set; and (name, other) of those that do."""
    if known is None or not samples:
        return samples, ()
    parts = [0] * len(known.samples) + [1] * len(samples)
    whole = [*known.samples, *samples]
    pairs = near_copies(whole, parts, range(len(known.samples), len(whole)), progress=progress)
    alike = {at - len(known.samples): other for other, at in pairs}
    near = tuple((names[samples[at].path], str(known.samples[other].path)) for at, other in alike.items())
    return [sample for at, sample in enumerate(samples) if at not in alike], near


def _about(root: Path) -> tuple[dict[str, CapturedImage], int]:
    """What the device noted of its images, by name, and how many lines are broken."""
    try:
        lines = (root / LINES).read_bytes().splitlines()
    except OSError:
        return {}, 0
    found, torn = read(lines)
    return {image.file: image for image in found}, torn


def _write_folder(
    samples: Sequence[Sample], about: dict[str, CapturedImage], out: Path, progress: Progress
) -> None:
    """Copy the images, and write what a person fills in."""
    names = _names(samples)
    with progress.task("Copying images", total=len(samples)) as task:
        for sample, name in zip(samples, names, strict=True):
            write_bytes(out / name, sample.path.read_bytes())
            task.advance()
    rows = []
    for sample, name in zip(samples, names, strict=True):
        image = about.get(sample.path.name)
        score = "" if image is None else f"{image.score:.3f}"
        guess, why = ("", "") if image is None else (image.label, " ".join(image.reasons))
        rows.append((score, name, ["", guess, score, why]))
    rows.sort(key=lambda row: (row[0] == "", row[0], row[1]))
    lines = [["path", "label", "guess", "score", "reasons"], *([name, *cells] for _, name, cells in rows)]
    write_text(out / TO_LABEL, _as_csv(lines))


def _names(samples: Sequence[Sample]) -> list[str]:
    """A name for each image in one folder; equal ones get their hash."""
    counts = Counter(sample.path.name.casefold() for sample in samples)
    return [
        sample.path.name
        if counts[sample.path.name.casefold()] == 1
        else f"{sample.path.stem}-{sample.sha256[:12]}{sample.path.suffix}"
        for sample in samples
    ]


def _classes(labels: Path, root: Path, known: dict[Path, Path], index: DataIndex | None) -> dict[Path, str]:
    """The class of each image that has one."""
    lines = csv_lines(place(str(labels)).absolute())
    header = [cell.strip().casefold() for cell in lines[0]] if lines else []
    if "path" not in header or "label" not in header:
        raise DataError(
            f"{labels}: its first line is {', '.join(header) or 'empty'}; expected the columns path and label."
        )
    at_path, at_label = header.index("path"), header.index("label")
    found: dict[Path, str] = {}
    strays, twice = list[str](), list[str]()
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) <= max(at_path, at_label) or not (label := cells[at_label].strip()):
            continue
        named = Path(cells[at_path].strip())
        places = [Path(os.path.normpath(base / named)) for base in (labels.absolute().parent, root)]
        path = next((known[one] for one in places if one in known), None)
        if path is None:
            strays.append(f"line {number}: {named}")
        elif found.setdefault(path, label) != label:
            twice.append(f"line {number}: {named} is {label} and {found[path]}")
    if strays:
        raise DataError(f"{labels} names images that are not in {root}:\n{listing(strays)}")
    if twice:
        raise DataError(f"{labels} gives an image two classes:\n{listing(twice)}")
    odd = [] if index is None else [_odd(label, index) for label in sorted(set(found.values()))]
    if meant := [one for one in odd if one]:
        raise DataError(f"{labels} has classes that the data set spells otherwise:\n{listing(meant)}")
    return found


def _odd(label: str, index: DataIndex) -> str:
    """What a class may have been meant as, where it differs from one of the data set by its case alone."""
    if label in index.labels:
        return ""
    near = closest(label, index.labels, cutoff=0.999)
    return f"{label}: did you mean {near}?" if near is not None else ""


def _write_rows(samples: Sequence[Sample], classes: dict[Path, str], inputs: AddInputs, out: Path) -> None:
    """The data set's rows, then the new ones."""
    base = out.absolute().parent
    rows = [["path", "label", "split"]]
    for sample in () if inputs.known is None else inputs.known.samples:
        assert inputs.known is not None
        rows.append([_relative(sample.path, base), inputs.known.labels[sample.label], sample.split])
    rows += [[_relative(sample.path, base), classes[sample.path], inputs.split] for sample in samples]
    write_text(out, _as_csv(rows))


def _as_csv(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _relative(path: Path, base: Path) -> str:
    """A path as a CSV in that folder names it: relative where it lies below it."""
    return name_as_text(str(path.relative_to(base) if path.is_relative_to(base) else path))


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
