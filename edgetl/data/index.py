"""The index: every usable image of a source with its label, split and content hash."""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, assert_never

from edgetl.data import hints, sources, splits
from edgetl.data import labels as class_names
from edgetl.data.boxes.entries import Marked, Object
from edgetl.data.parallel import in_threads
from edgetl.data.sources import NAMED, SPLITS, Entry, FoundImages, Split, closest, listing
from edgetl.data.targets import NONE, SampleTarget, from_plain, heads_target, order, positions, strata
from edgetl.errors import DataError, ImageError
from edgetl.files import sha256_bytes, sha256_json, write_text
from edgetl.inputs.image import MIN_SIDE, decode
from edgetl.inputs.spec import InputKind, PreprocessSpec, SoundSpec
from edgetl.progress import SILENT, Progress
from edgetl.records.codec import from_json, to_json
from edgetl.tasks.base import Classification, Detection, HeadSpec, MultiHead, MultiLabel, TaskSpec, labels_of
from edgetl.tasks.labelling import ONE_LABEL, AnyLabels, HeadLabels, Labelling, OneLabel

UNLABELLED = -1
"""The label of an image that has none."""


class DataSettings(Protocol):
    """What an index is built from; `edgetl.config.DataConfig` is one, with the meaning of each field."""

    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def val_fraction(self) -> float: ...  # noqa: D102
    @property
    def test_fraction(self) -> float: ...  # noqa: D102
    @property
    def bad_images(self) -> str: ...  # noqa: D102
    @property
    def max_train_images(self) -> int | None: ...  # noqa: D102
    @property
    def group_pattern(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Sample:
    """One image: an absolute path, what is right for it, its split, the SHA-256 of the file, and its group.

    `label` is the position of the class, or as the task of the index has it (`edgetl.data.targets`). That of an image
    without one is `UNLABELLED`.
    Images of one group stay together when splits and folds are taken; "" is none. `domain` says where the image comes
    from; "" is unsaid.
    Where boxes are labelled, `marked` holds them, and the label is the rarest class among them.
    """

    path: Path
    label: Any
    split: Split
    sha256: str
    group: str = ""
    marked: Marked | None = None
    domain: str = ""


@dataclass(frozen=True)
class DataIndex:
    """All usable images of a source.

    Attributes:
        root: absolute folder that holds all of them.
        labels: class names, in the order of the network's outputs.
        samples: by split, label and path.
        skipped: (path relative to root, reason) of images that were left out.
        others: number of files by kind that are not images, as in `edgetl.data.walk`.
        asked: the task, where it is not one class per image.
        sound: how recordings become pictures, where these are looked at.
    """

    root: Path
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    asked: TaskSpec | None = None
    sound: SoundSpec | None = None

    def split(self, name: Split) -> tuple[Sample, ...]:
        """The samples of one split, `train`, `val` or `test`."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of images, or of boxes, by split and class, zeros included.

        An image of several classes counts for each.
        """
        if isinstance(self.task, Detection):
            marked = ((s.split, o.label) for s in self.samples if s.marked for o in s.marked.objects)
            boxes = Counter(marked)
            return {split: {label: boxes[split, label] for label in self.labels} for split in SPLITS}
        counter = Counter(
            (sample.split, at) for sample in self.samples for at in positions(self.task, sample.label)
        )
        return {
            split: {label: counter[split, at] for at, label in enumerate(self.labels)} for split in SPLITS
        }

    def sizes(self) -> dict[str, int]:
        """Number of images by split."""
        return {split: len(self.split(split)) for split in SPLITS}

    @property
    def task(self) -> TaskSpec:
        """What the images are labelled for."""
        return self.asked or Classification(labels=self.labels)

    def strata(self, samples: Sequence[Sample]) -> list[int]:
        """The group of each of some samples where groups are to be met evenly; see `edgetl.data.targets.strata`."""
        return strata(self.task, [sample.label for sample in samples])

    def named(self, sample: Sample) -> str:
        """A sample's classes by name, parted by `|`."""
        return sources.SEPARATOR.join(self.labels[at] for at in positions(self.task, sample.label))

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of task, labels, splits and contents; it does not change when the folder is moved."""
        asked = self.labels if self.asked is None else to_json(self.asked)
        return sha256_json([asked, [_row(s) for s in self.samples]])

    def save(self, path: Path) -> None:
        """Write the index as JSON, one sample per line, with paths relative to `root`.

        Raises:
            StorageError: the file cannot be written.
        """
        head: dict[str, Any] = {"root": str(self.root), "labels": self.labels}
        head |= {"skipped": self.skipped, "others": self.others}
        if self.asked is not None:
            head["task"] = to_json(self.asked)
        if self.sound is not None:
            head["sound"] = to_json(self.sound)
        lines = [
            json.dumps([s.path.relative_to(self.root).as_posix(), *_row(s)], ensure_ascii=False)
            for s in self.samples
        ]
        text = json.dumps(head, ensure_ascii=False)[:-1] + ', "samples": [\n' + ",\n".join(lines) + "\n]}\n"
        write_text(path, text)


def load(path: Path) -> DataIndex:
    """Read what `DataIndex.save` wrote; images are not opened.

    Raises:
        DataError: the file is missing or not an index.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        root = Path(saved["root"])
        samples = tuple(
            _sample(root / name, from_plain(label), row) for name, label, *row in saved["samples"]
        )
        skipped = tuple((name, reason) for name, reason in saved["skipped"])
        union: Any = TaskSpec
        asked = from_json(union, saved["task"]) if "task" in saved else None
        sound = from_json(SoundSpec, saved["sound"]) if "sound" in saved else None
        return DataIndex(
            root, tuple(saved["labels"]), samples, skipped, saved.get("others", {}), asked, sound
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not an index that can be read: {error}.") from error


def build_index(
    config: DataSettings,
    *,
    labelling: Labelling = ONE_LABEL,
    seed: int = 0,
    least_classes: int = 2,
    sound: SoundSpec | None = None,
    progress: Progress = SILENT,
) -> DataIndex:
    """Find, check, hash and split the images of a source. Every image is read and decoded once.

    Args:
        config: the source, the fractions, and what to do about bad images.
        labelling: what is asked of each image.
        seed: chooses the images of `max_train_images`. Splits depend only on content, so that runs of
            different seeds are scored on the same images.
        least_classes: fewer are refused, where one is right.
        sound: how recordings become pictures, where the source holds these.
        progress: gets a bar and the warnings.

    Raises:
        DataError: there is nothing usable, no class (or but one, where one is right), a class that train lacks, or a
            bad image where `bad_images` is `refuse`; the message names what and what to do.
    """
    kind = _kind(sound)
    found = sources.find(config.source, labelling, kind=kind, progress=progress)
    if config.group_pattern is not None:
        found = sources.grouped(found, config.group_pattern)
    refuse_names(config.source, {name for entry in found.entries for name in entry.names} | set(found.named))
    good, bad = usable(config.source, found.entries, config.bad_images, progress, sound=sound)
    task = _task(config.source, found, good, labelling, least_classes)
    labels = labels_of(task)
    _check_labels(config.source, good, labels, progress)
    samples = take_splits(good, task, config)
    warn_of_duplicates(samples, progress, kind)
    if config.max_train_images is not None:
        given = any(entry.split == "val" for entry, _ in good)
        samples = subset(samples, task, config.max_train_images, seed, shrink_val=not given)
    _check_splits(config, samples, task)
    _warn_of_no_negatives(config.source, samples, task, progress)
    samples.sort(key=lambda s: (SPLITS.index(s.split), order(s.label), s.path))
    skipped = tuple((path.relative_to(found.root).as_posix(), reason) for path, reason in bad.items())
    asked = None if isinstance(task, Classification) else task
    return DataIndex(found.root, labels, tuple(samples), skipped, found.others, asked, sound)


def _kind(sound: SoundSpec | None) -> InputKind:
    return InputKind.IMAGE if sound is None else InputKind.SOUND


def _task(
    source: str,
    found: FoundImages,
    good: Sequence[tuple[Entry, str]],
    labelling: Labelling,
    least_classes: int,
) -> TaskSpec:
    """What the images are labelled for, with the classes in order."""
    labels = sort_labels({*found.named, *(name for entry, _ in good for name in entry.names)})
    match labelling:
        case OneLabel():
            if len(labels) < least_classes:
                raise DataError(
                    f"{source} holds one class only ({labels[0]}); a classifier needs at least two."
                )
            return Classification(labels=labels)
        case AnyLabels():
            if not labels:
                raise DataError(
                    f"{source} names no class in any line of its column {labelling.column}. Write the classes of each"
                    f" image into it, parted by {sources.SEPARATOR}."
                )
            return MultiLabel(labels=labels)
        case HeadLabels():
            return MultiHead(heads={name: _head(source, name, own, labels) for name, own in labelling.heads})
        case _:
            assert_never(labelling)


def _head(source: str, name: str, own: OneLabel | AnyLabels, labels: Sequence[str]) -> HeadSpec:
    """One head's part of the flat names `head/name`."""
    named = sort_labels(rest for label in labels for head, _, rest in [label.partition("/")] if head == name)
    if not named:
        raise DataError(
            f"{source}: the column {own.column} names no class in any line, so that the head {name} has none; fill it,"
            " or leave the head out of task.heads."
        )
    if isinstance(own, AnyLabels):
        return MultiLabel(labels=named)
    if len(named) < 2:
        raise DataError(
            f"{source}: the column {own.column} of the head {name} holds one class only ({named[0]}); a classifier"
            " needs at least two."
        )
    return Classification(labels=named)


def _targets(task: TaskSpec, good: Sequence[tuple[Entry, str]]) -> list[SampleTarget]:
    """What is right for each entry."""
    if isinstance(task, MultiHead):
        return [heads_target(task, entry.names, entry.none_of) for entry, _ in good]
    place = {name: at for at, name in enumerate(labels_of(task))}
    if isinstance(task, Classification | Detection):  # a picture without boxes has the name ""
        return [place.get(entry.names[0], UNLABELLED) for entry, _ in good]
    return [tuple(sorted(place[name] for name in entry.names)) for entry, _ in good]


def usable(
    source: str,
    entries: Sequence[Entry],
    bad_images: str,
    progress: Progress,
    *,
    sound: SoundSpec | None = None,
) -> tuple[list[tuple[Entry, str]], dict[Path, str]]:
    """Read each file once; return the good entries with their SHA-256, and why the others are bad.

    Raises:
        DataError: there is a bad image and `bad_images` is not `skip`.
    """
    good, bad = _check(entries, progress, sound)
    if not bad:
        return good, bad
    what = _kind(sound).plural
    count = f"{len(bad)} of {len(entries)} {what} in {source} cannot be used"
    hint = "".join(f"\n{sentence}" for sentence in hints.why(Path(source), tuple(bad)))
    if not good:
        raise DataError(f"{count}:\n{listing(bad.values())}{hint}")
    if bad_images != "skip":
        raise DataError(
            f"{count}:\n{listing(bad.values())}{hint}\n"
            'Mend or remove them, or leave them out with data.bad_images = "skip".'
        )
    progress.warning(f"{count} and are skipped, e.g. {next(iter(bad.values()))}{hint}")
    return good, bad


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels in order: by value where all are whole numbers, else by character."""
    names = set(labels)
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _check(
    entries: Sequence[Entry], progress: Progress, sound: SoundSpec | None
) -> tuple[list[tuple[Entry, str]], dict[Path, str]]:
    """Read each file once; return the good entries with their hashes, and why the others are bad."""
    spec = None if sound is None else PreprocessSpec(size=MIN_SIDE, sound=sound)

    def look(entry: Entry) -> tuple[str, str]:
        try:
            if entry.path.exists() and not entry.path.is_file() and not entry.path.is_dir():
                return "", f"{entry.path}: is a pipe or device, not a file."  # which might never end
            content = entry.path.read_bytes()
            decode(content, MIN_SIDE, name=str(entry.path), spec=spec)
        except FileNotFoundError:
            gone = "is a link that leads nowhere" if entry.path.is_symlink() else "there is no such file"
            return "", f"{entry.path}: {gone}."
        except OSError as error:
            return "", f"{entry.path}: cannot be read ({error.strerror})."
        except ValueError as error:  # a zero byte in a name
            return "", f"{entry.path}: cannot be read ({error})."
        except ImageError as error:
            return "", str(error)
        return sha256_bytes(content), ""

    good: list[tuple[Entry, str]] = []
    bad: dict[Path, str] = {}
    at = 0
    what = _kind(sound).plural
    for results in in_threads(look, entries, description=f"Checking {what}", progress=progress):
        for sha256, reason in results:
            entry = entries[at]
            at += 1
            if reason:
                bad[entry.path] = reason
            else:
                good.append((entry, sha256))
    return good, bad


def refuse_names(source: str, labels: Iterable[str]) -> None:
    """Raises DataError where a class's name cannot be used."""
    faults = [fault for label in sorted(labels) if (fault := class_names.fault(label))]
    if faults:
        raise DataError(f"{source} has classes that need other names:\n{listing(faults)}")


def _check_labels(
    source: str, good: Sequence[tuple[Entry, str]], labels: Sequence[str], progress: Progress
) -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for entry, _ in good:
        for name in entry.names:
            counts[name][entry.split or "train"] += 1
    lacking = [label for label in labels if not counts[label]["train"]]
    if lacking:
        raise DataError(
            f"{source} has classes that cannot be learned:\n"
            f"{listing(_lacking(label, counts, near=at < NAMED) for at, label in enumerate(lacking))}"
        )
    if alike := class_names.alike(labels):
        progress.warning(class_names.question(alike))
    common = [label for label in labels if counts[label].total() > 1]
    # With many such, a class of one image is no typing error, and looking for likenesses would take long.
    for label in [label for label in labels if counts[label].total() == 1][:NAMED]:
        if close := closest(label, common):
            progress.warning(f"The label {label} has one image and looks like {close}. Is it a typing error?")


def _lacking(label: str, counts: Mapping[str, Counter[str]], *, near: bool) -> str:
    if not counts[label].total():
        return f"{label}: no image has it. Add some, or remove its column."
    where = " and ".join(split for split in SPLITS if counts[label][split])
    learned = [other for other in counts if counts[other]["train"]] if near else []
    close = closest(label, learned)
    hint = f" Did you mean {close}?" if close else ""
    return f"{label}: {counts[label].total()} images in {where}, none in train.{hint}"


def take_splits(good: Sequence[tuple[Entry, str]], task: TaskSpec, config: DataSettings) -> list[Sample]:
    """Keep the splits that the source gives; take those that it lacks from its train."""
    given = {entry.split for entry, _ in good}
    keys = [
        sha256_bytes(f"group {entry.group}".encode()) if entry.group else sha256 for entry, sha256 in good
    ]
    names, targets = labels_of(task), _targets(task, good)
    contents = [
        (key, "" if stratum == NONE else names[stratum])
        for key, (entry, _), stratum in zip(keys, good, strata(task, targets), strict=True)
        if entry.split in (None, "train")
    ]
    assigned = splits.assign(
        contents,
        val_fraction=0.0 if "val" in given else config.val_fraction,
        test_fraction=0.0 if "test" in given else config.test_fraction,
    )
    return [
        Sample(
            entry.path,
            target,
            entry.split if entry.split in ("val", "test") else assigned[key],
            sha256,
            entry.group,
            domain=entry.domain,
        )
        for key, (entry, sha256), target in zip(keys, good, targets, strict=True)
    ]


def _check_splits(config: DataSettings, samples: Sequence[Sample], task: TaskSpec) -> None:
    """Every class has training images, and something is left to choose a model by."""
    labels = labels_of(task)
    counts = Counter((sample.split, at) for sample in samples for at in positions(task, sample.label))
    lacking = [label for at, label in enumerate(labels) if not counts["train", at]]
    if lacking and config.max_train_images is not None and config.max_train_images < len(labels):
        raise DataError(
            f"data.max_train_images = {config.max_train_images} leaves {len(lacking)} of {len(labels)} classes without"
            f" training images; give at least {len(labels)}."
        )
    if lacking:
        some = [f"{label}: all its images went to validation or test" for label in lacking]
        raise DataError(
            f"{config.source} has classes without training images, since these are copies of other classes' images, in"
            f" one group with them, or too few:\n{listing(some)}\n"
            "Give a split in a CSV, smaller groups, or more images."
        )
    if not any(sample.split == "val" for sample in samples):
        sizes = Counter(at for sample in samples for at in positions(task, sample.label))
        least = min(range(len(labels)), key=lambda at: (sizes[at], at))
        raise DataError(
            f"{config.source} has too few images for a validation split: {len(samples)} training images of"
            f" {len(labels)} classes, none to choose a model by. Add at least 2 images of another content to the class"
            f" {labels[least]}; 10 of each class say little still."
        )


def _warn_of_no_negatives(source: str, samples: Sequence[Sample], task: TaskSpec, progress: Progress) -> None:
    """Say which classes every labelled training image has, where it may have any number of them."""
    targets: list[Any] = [sample.label for sample in samples if sample.split == "train"]
    if isinstance(task, MultiLabel):
        parts = [("", task, targets)]
    elif isinstance(task, MultiHead):
        heads = enumerate(task.heads.items())
        parts = [
            (f"{name}/", head, [target[at] for target in targets if target[at] is not None])
            for at, (name, head) in heads
            if isinstance(head, MultiLabel)
        ]
    else:
        parts = []
    for head, spec, known in parts:
        always = [
            f"{head}{label}"
            for at, label in enumerate(spec.labels)
            if known and all(at in target for target in known)
        ]
        if always:
            hint = f" Is {sources.NONE} missing where a cell of its column is empty?" if head else ""
            progress.warning(
                f"{source}: every labelled training image has {', '.join(always)}, so that nothing teaches what images"
                f" without look like.{hint}"
            )


def _row(sample: Sample) -> list[Any]:
    """A sample without its path; group and domain only where there are some, or boxes after the group."""
    row = [sample.label, sample.split, sample.sha256]
    if sample.marked is None:
        further = [sample.group, sample.domain] if sample.domain else [sample.group] if sample.group else []
        return [*row, *further]
    objects = [[*o.box, o.label, o.crowd, o.area] for o in sample.marked.objects]
    return [*row, sample.group, sample.marked.size, objects]


def _sample(path: Path, label: SampleTarget, row: Sequence[Any]) -> Sample:
    """From `_row`."""
    if len(row) <= 4:
        split, sha256, group, domain = (*row, "", "")[:4]
        return Sample(path, label, split, sha256, group, domain=domain)
    *plain, (width, height), objects = row
    found = tuple(Object((x1, y1, x2, y2), *rest) for x1, y1, x2, y2, *rest in objects)
    split, sha256, group = plain
    return Sample(path, label, split, sha256, group, Marked((width, height), found))


def subset(
    samples: Sequence[Sample], task: TaskSpec, count: int, seed: int, *, shrink_val: bool
) -> list[Sample]:
    """At most `count` training images; a validation split that was taken from train shrinks in proportion."""
    train = [sample for sample in samples if sample.split == "train"]
    wanted = {"train": count}
    if shrink_val:
        val = sum(sample.split == "val" for sample in samples)
        met = len(set(strata(task, [s.label for s in train])))
        wanted["val"] = max(met, round(val * min(1.0, count / len(train))))
    kept = [sample for sample in samples if sample.split not in wanted]
    for split, images in wanted.items():
        pool = [sample for sample in samples if sample.split == split]
        groups = strata(task, [s.label for s in pool])
        items = [(sample.sha256, group) for sample, group in zip(pool, groups, strict=True)]
        chosen = splits.draw_evenly(items, images, f"subset-{seed}")
        kept += [pool[at] for at in chosen]
    return kept


def warn_of_duplicates(
    samples: Sequence[Sample], progress: Progress, kind: InputKind = InputKind.IMAGE
) -> None:
    """Say so where one file is in two splits, or labelled in two ways."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    labelled: defaultdict[str, set[Any]] = defaultdict(set)
    for sample in samples:
        seen[sample.sha256].add(sample.split)
        labelled[sample.sha256].add(sample.label if sample.marked is None else sample.marked)
    across = sum(len(where) > 1 for where in seen.values())
    if across:
        progress.warning(f"{across} {kind.plural} are in more than one split; scores on them say nothing.")
    conflicting = sum(len(which) > 1 for which in labelled.values())
    if conflicting:
        boxes = any(sample.marked is not None for sample in samples)
        how = "have copies with other boxes" if boxes else "stand under more than one label"
        progress.warning(f"{conflicting} {kind.plural} {how}.")
