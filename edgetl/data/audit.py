"""What is wrong with an image set: duplicates, near-duplicates across splits, imbalance, odd sizes."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.data import labels
from edgetl.data.boxes.audit import BoxFindings, look_at_boxes
from edgetl.data.depth import Depth, Window
from edgetl.data.depth import look as look_at_numbers
from edgetl.data.index import DataIndex, Sample
from edgetl.data.parallel import in_threads
from edgetl.data.sources import SPLITS
from edgetl.data.suggest import BATCH_SIZES, FEW_STEPS, batch_size
from edgetl.data.walk import counted, lost
from edgetl.inputs.image import PreprocessSpec, decode, read_header
from edgetl.inputs.spec import InputKind
from edgetl.progress import SILENT, Progress

NEAR = 0.98
"""Near-duplicates: the grey levels of their 16x16 thumbnails correlate (Pearson) by this much and more. So the same
scene is found at another size, quality, brightness or exposure."""
PLAIN = 3.0
"""A thumbnail whose grey levels (0..255) deviate by less than this shows nothing that could be alike."""
MANY_COPIES = 0.1
"""The share of images with a near-copy from which a run says so; parts taken in one pose look alike by chance."""
TINY_CLASS = 20
"""A class with fewer training images is called tiny."""
IMBALANCE = 5.0
"""A set is called imbalanced when its largest training class has so many times the images of its smallest."""
ODD_SIZE = 4.0
"""A size is odd when a side is so many times longer or shorter than the median side."""

_THUMB = 16
_BLOCK = 1 << 22
_SAMPLE = 4000
_COMPONENTS = 32
_WORTH_IT = 1 << 20
"""From so many pairs on, ruling some out takes less than comparing all."""
_ROUNDING = 1e-3
_MANY_POSSIBLE = 0.02
"""From this share of pairs on that cannot be ruled out, all of a block are compared at once."""


@dataclass(frozen=True, kw_only=True)
class NearDuplicate:
    """Two images, paths relative to the index's root, and how their thumbnails correlate, up to 1."""

    first: str
    second: str
    correlation: float


@dataclass(frozen=True, kw_only=True)
class OddSize:
    """An image far from the usual size, in pixels."""

    path: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What an audit found. Paths are relative to the index's root; groups and pairs follow its order.

    Attributes:
        images: number of images looked at.
        counts: number of images, or of boxes, by split and class; an image of several classes counts for each.
        sizes: number of images by split.
        skipped: (path, reason) of images that cannot be used.
        duplicates: groups of files with equal bytes, whatever their split.
        leaks: those groups that reach across splits.
        conflicts: those groups that stand under more than one label, or with other boxes.
        near_duplicates: for each image of val and test, the most alike image of the splits before it, where
            the two look the same but are not equal files.
        imbalance: images (or boxes) of the largest training class over those of the smallest.
        tiny_classes: (label, training images or boxes) of classes below `TINY_CLASS`.
        median_size: median width and height in pixels.
        odd_sizes: images far from it.
        depth: the numbers of images of more than 8 bits.
        others: number of files by kind that are not images, as in `edgetl.data.walk`.
        kind: what was looked at; of recordings no near-duplicates are looked for.
        alike: groups of classes whose names look the same.
        epoch_steps: steps of an epoch at the batch size that `edgetl init` proposes.
        boxes: what was found in boxes, where they are labelled.
    """

    images: int
    counts: dict[str, dict[str, int]]
    sizes: dict[str, int]
    skipped: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, ...], ...]
    leaks: tuple[tuple[str, ...], ...]
    conflicts: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[NearDuplicate, ...]
    imbalance: float
    tiny_classes: tuple[tuple[str, int], ...]
    median_size: tuple[int, int]
    odd_sizes: tuple[OddSize, ...]
    depth: Depth
    others: Mapping[str, int] = field(default_factory=dict)
    alike: tuple[tuple[str, ...], ...] = ()
    epoch_steps: int | None = None
    boxes: BoxFindings | None = None
    kind: InputKind = InputKind.IMAGE

    def problems(self) -> tuple[str, ...]:
        """One sentence for each kind of problem, with what to do; empty where all is well."""
        spare = sum(len(group) - 1 for group in self.duplicates)
        what = self.kind.plural
        unit = what if self.boxes is None else "boxes"
        conflict, even = (
            (
                f"{what} stand under more than one label; keep the right one",
                'set train.imbalance = "sampling" and judge by macro-F1',
            )
            if self.boxes is None
            else ("images have copies with other boxes; keep the right ones", "add pictures of the latter")
        )
        missed = lost(self.others, self.kind)
        found = (
            (len(self.skipped), f"{len(self.skipped)} {what} cannot be read; mend or remove them."),
            (
                len(missed),
                f"Besides the {what}, {counted(missed)} are not read; convert, fetch or remove them.",
            ),
            (len(self.alike), labels.question(self.alike)),
            (
                len(self.leaks),
                f"{len(self.leaks)} {what} are in more than one split; remove them from all but one.",
            ),
            (
                len(self.near_duplicates),
                f"{len(self.near_duplicates)} images of val and test have a near-copy in another split: "
                "if they show the same thing, scores on them flatter the model; give images of one thing one "
                "group, in a CSV.",
            ),
            (
                len(self.conflicts),
                f"{len(self.conflicts)} {conflict}.",
            ),
            (spare, f"{spare} files are copies of others; they count twice."),
            (
                self.imbalance >= IMBALANCE,
                f"The largest class has {self.imbalance:.1f} times the training {unit} of the smallest; {even}.",
            ),
            (
                len(self.tiny_classes),
                f"{len(self.tiny_classes)} classes have fewer than {TINY_CLASS} training {unit} "
                f"({', '.join(label for label, _ in self.tiny_classes[:5])}); their scores are uncertain.",
            ),
            (
                self.epoch_steps is not None and self.epoch_steps < FEW_STEPS,
                f"An epoch has {self.epoch_steps} steps of {BATCH_SIZES[-1]} {what}: too few for batch norm's running"
                " statistics to follow the weights. Add more, or train for more epochs at that batch size.",
            ),
            (
                len(self.odd_sizes),
                f"{len(self.odd_sizes)} images are far from the usual size of "
                f"{self.median_size[0]}x{self.median_size[1]} pixels; look whether they belong here.",
            ),
        )
        beside = () if self.boxes is None else self.boxes.problems()
        return (*(sentence for holds, sentence in found if holds), *beside, *self.depth.problems())


@dataclass(frozen=True)
class _Look:
    """Of N images: `sizes` (N, 2) int64 in pixels, `thumbs` (N, 256) float32 of mean 0 and length 1, or all 0."""

    sizes: NDArray[np.int64]
    thumbs: NDArray[np.float32]


def audit(index: DataIndex, *, window: Window | None = None, progress: Progress = SILENT) -> AuditReport:
    """Look at every image of an index; images are decoded once more, in threads, at a reduced size.

    Args:
        index: the images.
        window: that of their preprocessing, for images of more than 8 bits; the one that suits them where unset.
        progress: shows the images.

    Raises:
        ImageError: an image cannot be read any more.
    """
    samples = index.samples
    names = [sample.path.relative_to(index.root).as_posix() for sample in samples]
    if index.sound is None:
        depth = look_at_numbers(index, window, progress=progress)
        look = _look(samples, window or depth.proposed, progress)
    else:  # short sounds look alike without being copies, and all their pictures have one size
        depth = Depth(images=len(samples))
        look = _alike(len(samples), (index.sound.frames, index.sound.mels))
    groups = _equal(samples)
    counts = index.counts()
    sizes = list(counts["train"].values())

    def named(where: list[list[int]]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(names[at] for at in group) for group in where)

    return AuditReport(
        images=len(samples),
        counts=counts,
        sizes=index.sizes(),
        skipped=index.skipped,
        duplicates=named(groups),
        leaks=named([group for group in groups if len({samples[at].split for at in group}) > 1]),
        conflicts=named([group for group in groups if len({_labelled(samples[at]) for at in group}) > 1]),
        near_duplicates=tuple(
            NearDuplicate(first=names[a], second=names[b], correlation=correlation)
            for a, b, correlation in _across_splits(samples, look)
        ),
        imbalance=max(sizes) / max(1, min(sizes)),
        tiny_classes=tuple((index.labels[at], size) for at, size in enumerate(sizes) if size < TINY_CLASS),
        median_size=(
            round(statistics.median(look.sizes[:, 0].tolist())),
            round(statistics.median(look.sizes[:, 1].tolist())),
        ),
        odd_sizes=tuple(
            OddSize(path=names[at], width=int(look.sizes[at, 0]), height=int(look.sizes[at, 1]))
            for at in _odd(look.sizes)
        ),
        depth=depth,
        others=index.others,
        kind=InputKind.IMAGE if index.sound is None else InputKind.SOUND,
        alike=labels.alike(index.labels),
        epoch_steps=batch_size(len(index.split("train")))[1],
        boxes=look_at_boxes(index) if index.task.kind == "detection" else None,
    )


def _labelled(sample: Sample) -> object:
    """What a person said of an image."""
    return sample.label if sample.marked is None else sample.marked


def near_copies(
    samples: Sequence[Sample],
    parts: Sequence[int],
    asked: Sequence[int],
    *,
    window: Window | None = None,
    progress: Progress = SILENT,
) -> tuple[tuple[int, int], ...]:
    """Those of some images that have a near-duplicate in another part, e.g. another fold.

    Args:
        samples: the images.
        parts: the part of each.
        asked: positions of the images that this is asked of.
        window: that of their preprocessing.
        progress: shows the images.

    Returns:
        Positions (other, image): an image, and the most alike one of another part.

    Raises:
        ImageError: an image cannot be read any more.
    """
    look, groups, wanted = (
        _look(samples, window, progress),
        np.asarray(parts),
        np.asarray(asked, dtype=np.intp),
    )
    pairs = []
    for part in np.unique(groups[wanted]):
        ours, others = wanted[groups[wanted] == part], np.flatnonzero(groups != part)
        pairs += [(first, second) for first, second, _ in _near(look, _contents(samples), ours, others)]
    return tuple(pairs)


def warn_of_copies(
    samples: Sequence[Sample],
    parts: Sequence[int],
    where: str,
    *,
    window: Window | None = None,
    progress: Progress = SILENT,
) -> int:
    """Say so where many images that are scored, those of val and test, have a near-copy in another part.

    Args:
        samples: the images.
        parts: the part of each.
        where: what such a part is called, e.g. `another split`.
        window: that of their preprocessing.
        progress: gets the warning.

    Returns:
        How many do.

    Raises:
        ImageError: an image cannot be read any more.
    """
    scored = [at for at, sample in enumerate(samples) if sample.split != "train"]
    pairs = near_copies(samples, parts, scored, window=window, progress=progress)
    if pairs and len(pairs) >= MANY_COPIES * len(scored):
        other, image = (samples[at].path.name for at in pairs[0])
        progress.warning(
            f"{len(pairs)} of {len(scored)} images that are scored have a near-copy in {where}, e.g. {image} and"
            f" {other}: if they show the same thing, the scores flatter. Give images of one thing one group, in a CSV"
            " with the columns path,label,split,group."
        )
    return len(pairs)


def _look(samples: Sequence[Sample], window: Window | None, progress: Progress) -> _Look:
    sizes = np.empty((len(samples), 2), dtype=np.int64)
    thumbs = np.empty((len(samples), _THUMB * _THUMB), dtype=np.float32)
    spec, plain = PreprocessSpec(size=_THUMB, window=window), PreprocessSpec(size=_THUMB)

    def look(at: int) -> int:
        path = samples[at].path
        content = path.read_bytes()
        header = read_header(content, name=str(path))
        # `Depth` refuses these where there is a window; here they are compared by what can be read.
        used = plain if header.reduced else spec
        grey = decode(content, _THUMB, name=str(path), spec=used).convert("L")
        sizes[at] = header.size  # the decoded image may be a reduced one
        thumbs[at] = np.asarray(grey.resize((_THUMB, _THUMB), Image.Resampling.BOX)).reshape(-1)
        return at

    for _ in in_threads(look, range(len(samples)), description="Comparing images", progress=progress):
        pass
    thumbs -= thumbs.mean(axis=1, keepdims=True)
    lengths = np.sqrt((thumbs**2).sum(axis=1, keepdims=True))
    return _Look(sizes, np.where(lengths < PLAIN * _THUMB, 0, thumbs / np.maximum(lengths, 1)))


def _alike(count: int, size: tuple[int, int]) -> _Look:
    """As many images of one size, of which nothing is compared."""
    return _Look(np.tile(np.array(size, np.int64), (count, 1)), np.zeros((count, _THUMB**2), np.float32))


def _equal(samples: Sequence[Sample]) -> list[list[int]]:
    """Positions of equal files, in groups of two and more."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for at, sample in enumerate(samples):
        groups[sample.sha256].append(at)
    return [group for group in groups.values() if len(group) > 1]


def _contents(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """A number for each image, equal for equal files."""
    return np.array([int(sample.sha256[:15], 16) for sample in samples], dtype=np.int64)


def _across_splits(samples: Sequence[Sample], look: _Look) -> Iterator[tuple[int, int, float]]:
    """For each image of val and test, the most alike image of the splits before it: (that, this, correlation)."""
    splits, contents = np.array([SPLITS.index(sample.split) for sample in samples]), _contents(samples)
    for split in (1, 2):
        yield from _near(look, contents, np.flatnonzero(splits == split), np.flatnonzero(splits < split))


def _near(
    look: _Look, contents: NDArray[np.int64], ours: NDArray[np.intp], others: NDArray[np.intp]
) -> Iterator[tuple[int, int, float]]:
    """For each of our images that has a near-duplicate among the others: (the most alike, it, correlation)."""
    if not len(others):
        return
    # The product of two unit vectors is that of their first principal components and at most that of the lengths of
    # what remains: so most pairs are ruled out at an eighth of the work, and none that counts.
    worth_it = len(ours) * len(others) >= _WORTH_IT
    ours_short, others_short = (
        _shortened(look.thumbs[ours], look.thumbs[others])
        if worth_it
        else (look.thumbs[ours], look.thumbs[others])
    )
    for rows in np.array_split(np.arange(len(ours)), len(ours) * len(others) // _BLOCK + 1):
        part = ours[rows]
        possible = ours_short[rows] @ others_short.T >= NEAR - _ROUNDING
        if np.count_nonzero(possible) > _MANY_POSSIBLE * possible.size:
            correlations = look.thumbs[part] @ look.thumbs[others].T
            correlations[contents[part, None] == contents[None, others]] = -1
            best = correlations.argmax(axis=1)
            found = [(at, int(column), correlations[at, column]) for at, column in enumerate(best.tolist())]
        else:
            at_row, at_column = possible.nonzero()
            left, right = part[at_row], others[at_column]
            values = np.einsum("nd,nd->n", look.thumbs[left], look.thumbs[right])
            values[contents[left] == contents[right]] = -1
            found = _best(at_row, at_column, values)
        for row, column, correlation in found:
            if correlation >= NEAR:
                yield int(others[column]), int(part[row]), round(float(correlation), 4)


def _best(
    rows: NDArray[np.intp], columns: NDArray[np.intp], values: NDArray[np.float32]
) -> list[tuple[int, int, float]]:
    """For each row, its first largest value and where it stands; rows ascend."""
    best: dict[int, tuple[int, float]] = {}
    for row, column, value in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True):
        if row not in best or value > best[row][1]:
            best[row] = (column, value)
    return [(row, column, value) for row, (column, value) in best.items()]


def _shortened(
    ours: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors (N, 256) as (N, 33): their first 32 principal components, and the length of what remains."""
    some = others[:: max(1, len(others) // _SAMPLE)]
    axes = np.linalg.eigh(some.T @ some)[1][:, -_COMPONENTS:]

    def shorten(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        main = vectors @ axes
        rest = np.sqrt(np.maximum((vectors**2).sum(axis=1) - (main**2).sum(axis=1), 0))
        return np.concatenate([main, rest[:, None]], axis=1)

    return shorten(ours), shorten(others)


def _odd(sizes: NDArray[np.int64]) -> list[int]:
    ratios = sizes / np.median(sizes, axis=0)
    return [int(at) for at in np.flatnonzero(((ratios > ODD_SIZE) | (ratios < 1 / ODD_SIZE)).any(axis=1))]
