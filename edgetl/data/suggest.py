"""Settings that suit an image set, each with its reason: what `edgetl init` writes into a recipe."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.inputs.image import decode, read_header
from edgetl.processor import VNNI_TARGET, architecture, has_vnni
from edgetl.tasks.base import Classification
from edgetl.tasks.labelling import AnyLabels, HeadLabels, Labelling

if TYPE_CHECKING:
    from edgetl.data.depth import Depth
    from edgetl.data.index import DataIndex

_SAMPLE = 200
_MAX_DROP = 0.021
"""The default floor lies so far below the teacher, with a little room for rounding."""

_LOWEST_FLOOR = 0.5
"""No floor is proposed that lies further below the teacher, however few the validation images are: it would be none."""

FEW_STEPS = 8
"""An epoch of fewer steps is short: batch norm's running statistics lag behind the weights."""

BATCH_SIZES = (32, 16, 8)
"""Batch sizes that are proposed, the default first; batch norm suffers below the last."""

_LONGEST_NAME = 80
"""Characters of a run's name: it becomes part of file names, which end at 255 bytes."""

_OBLONG = 1.3
"""Where the longer side is so many times the shorter one, a crop loses the ends."""
_APART, _MIXED = 1.1, 0.25
"""Shapes are mixed where at least this share of the images are this factor wider or narrower than the usual one."""

_THUMB = 32
_COLOURED = 12
"""A picture is grey where no pixel's channels, of a thumbnail, differ by so many levels of 255."""

_PART_SIDE = 192
"""Grey images whose shorter side is so long in pixels are taken for pictures of parts under inspection."""

_DETECTOR_BATCHES = (8, 4)
"""Small, for many steps: with 205 pictures and 12 epochs, batches of 16 reached 38% mAP on validation, of 8 45%, of 4
50%; halfway, twice the default rate was 4 points ahead."""
_MANY_STEPS = 100
"""An epoch of so many steps or more may have the larger batch."""
_DETECTOR_STEPS, _LEAST_EPOCHS, _MOST_EPOCHS = 1600, 12, 60
"""Steps after which a small detector's scores rise little, and the epochs that are proposed for them."""
_CLASS_SEEN = 3_800
"""So often a detector is shown the objects of a class, the median one. Where classes differ in little and have few
objects, fewer leave them confused: of cards.zip, where half as many gave a validation mAP of 0.23, and these 0.63."""
_DETECTOR_IMAGES, _FEWEST_EPOCHS = 40_000, 4
"""So many pictures are shown in all at most, an hour and a half on two cores at 320 px, and so many epochs at least."""
_DETECTOR_SIZES = (320, 416, 512, 640)
_SEEN_SIDE = 10.0
"""Pixels a side that an object needs, where the finest map has a place every 8."""
_STUDENT_SHARE = 0.75
"""Of the teacher's epochs, those that its pruned student is taught for."""

_FEW, _LARGE_SIDE = 250, 192
"""So few photographs, whose shorter side is so long in pixels, are shown at the 224 px of pretraining: see
`tests/slow/test_small_data.py`."""
_STUDENT_SIDE = 160
"""Of a student whose teacher looks at 224 px: twice as fast."""

_MANY = 1000
"""From so many training images on, half the epochs make as many steps as a few hundred images do."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One setting by its dotted name."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a look at the images showed. Sides in pixels."""

    train_images: int
    val_images: int
    classes: int
    median_side: int
    median_aspect: float
    grey_share: float
    smallest_class: int
    largest_class: int
    smallest_val_class: int
    mixed_share: float = 0.0
    """Images that are clearly wider or narrower than the usual one."""
    several: bool = False
    """Whether an image may be of several classes, or of none."""

    @property
    def grey(self) -> bool:
        """Whether nearly all images are grey."""
        return self.grey_share > 0.9

    @property
    def imbalanced(self) -> bool:
        """Whether the largest class has more than three times the images of the smallest."""
        return self.largest_class > 3 * self.smallest_class

    @property
    def one_image(self) -> float:
        """How much one validation image moves the score that models are chosen by, at most about; in 0..1."""
        by_class = self.imbalanced or self.several
        return 1 / (self.classes * max(1, self.smallest_val_class) if by_class else self.val_images)


def look(index: DataIndex) -> Look:
    """Open an even sample of the training images and count the classes.

    Raises:
        ImageError: an image cannot be read any more.
    """
    import numpy as np

    train = index.split("train")
    counts = index.counts()
    sides, shapes, grey = [], [], 0
    sample = train[:: max(1, len(train) // _SAMPLE)]
    if index.sound is not None:  # every picture is as the recipe says
        sides, shapes, sample = [index.sound.mels], [0.0], sample[:1]
    for path in (s.path for s in sample if index.sound is None):
        pixels = np.asarray(decode(path, _THUMB).resize((_THUMB, _THUMB)), np.int16)
        grey += int(np.ptp(pixels, axis=2).max()) < _COLOURED
        width, height = read_header(path).size  # the decoded image may be a reduced one
        sides.append(min(width, height))
        shapes.append(math.log(width / height))
    usual = statistics.median(shapes)
    return Look(
        train_images=len(train),
        val_images=len(index.split("val")),
        classes=len(index.labels),
        median_side=int(statistics.median(sides)),
        median_aspect=math.exp(statistics.median(map(abs, shapes))),
        mixed_share=sum(abs(shape - usual) > math.log(_APART) for shape in shapes) / len(shapes),
        grey_share=grey / len(sample),
        smallest_class=min(counts["train"].values()),
        largest_class=max(counts["train"].values()),
        smallest_val_class=min(counts["val"].values()),
        several=not isinstance(index.task, Classification),
    )


def batch_size(train_images: int) -> tuple[int, int]:
    """The largest batch size that gives an epoch enough steps, or the smallest one there is; and those steps."""
    size = next((size for size in BATCH_SIZES if _steps(train_images, size) >= FEW_STEPS), BATCH_SIZES[-1])
    return size, _steps(train_images, size)


def _steps(images: int, batch: int) -> int:
    return max(1, math.ceil(images / batch))


def _counted_steps(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def suggest(seen: Look) -> Sequence[Suggestion]:
    """Choose settings from what was seen; only those that should differ from the defaults."""
    found: list[Suggestion] = []

    def add(key: str, value: Any, reason: str) -> None:
        found.append(Suggestion(key=key, value=value, reason=reason))

    if seen.median_side <= 48:
        add("preprocess.size", 64, f"the images are small ({seen.median_side} px); 64 px keeps a step cheap")
        add("preprocess.crop_fraction", 1.0, "small images are framed tightly; nothing is cropped away")
    # Photographs of mixed shapes show their subject in the middle, as pretraining's did, and squashing distorts each
    # one differently. What a line photographs keeps one shape, or has its marks anywhere.
    photographs = not seen.grey and seen.mixed_share >= _MIXED
    if seen.median_aspect > _OBLONG and not photographs:
        add(
            "preprocess.resize",
            "squash",
            f"the sides differ ({seen.median_aspect:.1f} to 1); a crop would lose the ends",
        )
    if seen.train_images <= _FEW and seen.median_side >= _LARGE_SIDE and not seen.grey:
        few = f"{seen.train_images} photographs are few, and should be as sharp as those of pretraining"
        add("preprocess.size", 224, few)
        add(
            "distill.size",
            _STUDENT_SIDE,
            "the student learns from the teacher, and a smaller picture is faster",
        )
    batch, steps_an_epoch = batch_size(seen.train_images)
    if batch != BATCH_SIZES[0]:
        add(
            "train.batch_size",
            batch,
            f"in batches of {BATCH_SIZES[0]}, {seen.train_images} training images give an epoch"
            f" {_counted_steps(_steps(seen.train_images, BATCH_SIZES[0]))}, too few for batch norm's statistics; this"
            f" gives {steps_an_epoch}",
        )
    if seen.train_images >= _MANY:
        steps = f"{seen.train_images} training images make many steps per epoch"
        add("train.epochs", 4, steps)
        add("prune.recovery_epochs", 1, steps)
        add("distill.epochs", 10, steps)
    if seen.imbalanced and not seen.several:
        counts = f"classes have {seen.smallest_class} to {seen.largest_class} images"
        add("train.imbalance", "sampling", f"{counts}; every class is drawn equally often")
        add("bundle.metric", "macro_f1", f"{counts}; macro-F1 counts every class alike")
    if 2 * seen.one_image > _MAX_DROP:
        drop = math.ceil(200 * seen.one_image) / 100
        images = f"{seen.val_images} validation images, {seen.smallest_val_class} of the rarest class"
        reason = (
            f"{images}: one image may move the score by {seen.one_image:.1%}, and the floor should bear two"
        )
        if drop > _LOWEST_FLOOR:
            reason += ", but then it were none; add validation images"
        add("bundle.max_drop", min(drop, _LOWEST_FLOOR), reason)
    if seen.grey and seen.median_side >= _PART_SIDE:
        add("preprocess.size", 224, "grey images of parts: marks may be small, and 160 px would blur them")
    if seen.grey and seen.median_side > 48:
        add("train.augment", "photometric", "grey images; light and contrast vary more than colour")
        add("distill.augment", "photometric", "as for the teacher")
    if seen.grey and seen.median_side <= 48:
        add(
            "train.augment",
            "crop",
            "small grey images may be characters, which a flip would turn into others",
        )
        add("distill.augment", "crop", "as for the teacher")
    return found


def _detector_size(index: DataIndex) -> tuple[int, str]:
    """The least side at which nine of ten objects are seen well enough, and why."""
    sides = [
        math.sqrt((o.box[2] - o.box[0]) * (o.box[3] - o.box[1])) / max(sample.marked.size)
        for sample in index.split("train")
        if sample.marked
        for o in sample.marked.objects
    ]
    smallest = sorted(sides)[len(sides) // 10]
    for size in _DETECTOR_SIZES:
        if smallest * size >= _SEEN_SIDE:
            break
    reason = f"nine of ten objects are then {smallest * size:.0f} or more pixels a side; a multiple of 32"
    if size > _DETECTOR_SIZES[0]:
        reason += f". At {_DETECTOR_SIZES[0]} they would be {smallest * _DETECTOR_SIZES[0]:.0f}; larger takes longer"
    return size, reason


def suggest_detector(index: DataIndex) -> Sequence[Suggestion]:
    """Settings for boxes: the usual input of small detectors, and epochs enough for heads that start from nothing."""
    train = len(index.split("train"))
    batch = next((b for b in _DETECTOR_BATCHES if _steps(train, b) >= _MANY_STEPS), _DETECTOR_BATCHES[-1])
    steps = _steps(train, batch)
    objects = Counter(
        o.label for sample in index.split("train") if sample.marked for o in sample.marked.objects
    )
    usual = statistics.median(objects.values()) if objects else _CLASS_SEEN
    asked = max(math.ceil(_DETECTOR_STEPS / steps), math.ceil(_CLASS_SEEN / usual), _LEAST_EPOCHS)
    epochs = min(asked, _MOST_EPOCHS, max(_FEWEST_EPOCHS, _DETECTOR_IMAGES // train))
    found: list[tuple[str, Any, str]] = [
        ("task.kind", "detection", "the data marks boxes"),
        ("preprocess.size", *_detector_size(index)),
        ("preprocess.resize", "pad", "a crop would lose objects at the edge, and squashing their shapes"),
        ("train.head_epochs", 2, "neck and heads start from random weights"),
        (
            "train.epochs",
            epochs,
            f"{train} training images make {steps} steps per epoch and show {usual:g} objects of the usual class",
        ),
        ("train.batch_size", batch, "detectors learn from many small steps"),
        ("train.lr", 0.002, "neck and heads have far to go"),
        ("train.ema", 0.99, "detectors' scores swing from epoch to epoch; the weights' average swings less"),
        ("prune.target", {"kind": "macs", "share": 0.35}, "detectors bear less than classifiers"),
        ("prune.max_drop", 0.15, "mAP falls far in a cut, and a few epochs win back only a part"),
        (
            "distill.epochs",
            math.ceil(epochs * _STUDENT_SHARE),
            f"the teacher has {epochs}, and the student starts from it",
        ),
        ("distill.ema", 0.99, "as for the teacher"),
        ("distill.soft_weight", 0.5, "labelled boxes say as much as the teacher does"),
    ]
    return [Suggestion(key=key, value=value, reason=reason) for key, value, reason in found]


def suggest_window(seen: Depth) -> Sequence[Suggestion]:
    """The window of a set whose images have more than 8 bits."""
    if seen.proposed is None:
        return ()
    numbers = f"{seen.least:g} to {seen.largest:g}, of which all but a few lie within"
    reason = f"{seen.deep} images of more than 8 bits hold {numbers}; 0..255 are spread over these only"
    return (Suggestion(key="preprocess.window", value=seen.proposed, reason=reason),)


def suggest_preprocess(seen: Look, numbers: Depth) -> dict[str, Any]:
    """Of all these, the settings of `preprocess`, by their names in that section."""
    found = [*suggest(seen), *suggest_window(numbers)]
    parts = [(item.key.partition("."), item.value) for item in found]
    return {key: value for (section, _, key), value in parts if section == "preprocess"}


def default_name(source: str, taken: Container[str] = ()) -> str:
    """A run's name from its data source: the folder's name, with odd characters replaced; another where it is taken."""
    stem = Path(source).stem or Path(source).resolve().name or "model"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)
    name = plain.strip("-._")[:_LONGEST_NAME].strip("-._") or "model"
    if name not in taken:
        return name
    return next(other for number in count(2) if (other := f"{name}-{number}") not in taken)


def suggest_task(labelling: Labelling) -> Sequence[Suggestion]:
    """What the source's columns ask for."""
    if isinstance(labelling, HeadLabels):
        reason = f"the CSV has the label columns {', '.join(own.column for _, own in labelling.heads)}"
        heads = {
            name: {
                "kind": "multilabel" if isinstance(own, AnyLabels) else "classification",
                "column": own.column,
            }
            for name, own in labelling.heads
        }
        return (
            Suggestion(key="task.kind", value="multihead", reason=reason),
            Suggestion(key="task.heads", value=heads, reason="a column each; empty cells are missing labels"),
        )
    if not isinstance(labelling, AnyLabels):
        return ()
    reason = "the CSV may give an image any number of classes"
    return (Suggestion(key="task.kind", value="multilabel", reason=reason),)


def suggest_target() -> Sequence[Suggestion]:
    """What this machine's CPU asks of `quantize.target`."""
    if architecture() != "x86" or not has_vnni():
        return ()
    reason = "this CPU has VNNI, for which eight bits are right and finer; name cpu-x86 where the device may lack it"
    return (Suggestion(key="quantize.target", value=[VNNI_TARGET], reason=reason),)
