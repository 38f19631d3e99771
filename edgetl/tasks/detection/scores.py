"""Scores of a detector as pure functions on arrays: those of the COCO benchmark (Lin et al. 2014).

Average precision is the area under the precision-recall curve, read at 101 recalls; `mAP` is its mean over the
classes and over ten overlaps from 0.50 to 0.95. The rules are those of COCO's own evaluation, case by case: matching
from the best score down, crowds and objects outside a size range neither help nor harm, at most 100 boxes of a class
per image.

Legend: N images, C classes, T overlaps, D found boxes of one class over all images.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.codec import to_json
from edgetl.records.frozen import dataclass
from edgetl.records.scores import Evaluation, Score
from edgetl.tasks.detection.boxes import areas, overlaps
from edgetl.tasks.detection.detail import (
    BoxDetail,
    ClassPrecision,
    JudgedBox,
    Mistakes,
    SideRecall,
    SizePrecision,
    WorstImage,
)
from edgetl.tasks.detection.found import Found as Found
from edgetl.tasks.detection.found import Truth as Truth

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""(T,) the overlaps that `mAP` is a mean over."""
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""Boxes of a class that count per image, best first."""
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Ranges of an object's area in square pixels of the original picture, as in COCO."""
_ANY = (0.0, 1e10)
_HIT, _NEAR = 0.5, 0.1
"""Overlaps of a hit, and of a box that at least meant the object."""
_SIDES = np.array([0, 8, 16, 32, 64, 128, 256, 512, 1024], dtype=np.float64)
"""Least sides of objects, in pixels, by which recall is counted."""
_WORST, _SHOWN = 8, 80
"""Images whose mistakes a detail shows, and boxes of each."""
_WORK = 3e8
"""So many numbers the bootstrap may touch; fewer draws where an evaluation is larger."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Which found boxes of one class hit an object, over all images, from the best score down.

    Attributes:
        image: (D,) int64, the image that each was found in.
        scores: (D,) float64.
        hit: (T, D) bool, whether it hit an object that no better box had hit.
        counts: (T, D) bool, False for boxes that neither help nor harm.
        objects: (N,) int64, objects to be found in each image.
    """

    image: NDArray[np.int64]
    scores: NDArray[np.float64]
    hit: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    objects: NDArray[np.int64]


def match(
    truths: Sequence[Truth],
    found: Sequence[Found],
    label: int,
    *,
    size: tuple[float, float] = _ANY,
    thresholds: NDArray[np.float64] = OVERLAPS,
) -> Matches:
    """Match one class's found boxes to its objects, image by image.

    Args:
        truths: N images' objects.
        found: N images' found boxes.
        label: index of the class.
        size: area range of the objects that count, in square pixels.
        thresholds: (T,) least overlaps of a hit.

    Raises:
        TensorError: the numbers of images differ.
    """
    if len(truths) != len(found):
        raise TensorError(f"found: boxes of {len(found)} images came for {len(truths)} images.")
    image, scores, hits, counts = [], [], [], []
    objects = np.zeros(len(truths), dtype=np.int64)
    for place, (truth, boxes) in enumerate(zip(truths, found, strict=True)):
        true, mine = np.flatnonzero(truth.labels == label), np.flatnonzero(boxes.labels == label)
        if not len(true) and not len(mine):
            continue
        mine = mine[np.argsort(-boxes.scores[mine], kind="stable")[:MOST]]
        crowd, area = truth.crowds()[true], truth.sizes()[true]
        ignored = crowd | (area < size[0]) | (area > size[1])
        # Objects that count come first, so that they are preferred.
        order = np.argsort(ignored, kind="stable")
        true, crowd, ignored = true[order], crowd[order], ignored[order]
        objects[place] = int((~ignored).sum())
        if not len(mine):
            continue
        shared = overlaps(boxes.boxes[mine], truth.boxes[true], crowd)
        hit, void = _assign(shared, crowd, ignored, thresholds)
        own = areas(np.asarray(boxes.boxes[mine], np.float64))
        outside = (own < size[0]) | (own > size[1])
        image.append(np.full(len(mine), place, dtype=np.int64))
        scores.append(np.asarray(boxes.scores[mine], dtype=np.float64))
        hits.append(hit & ~void)
        counts.append(~(void | (~hit & outside)))
    if not image:
        none = np.zeros((len(thresholds), 0), dtype=bool)
        return Matches(
            image=np.zeros(0, np.int64), scores=np.zeros(0), hit=none, counts=none, objects=objects
        )
    joined = np.concatenate(scores)
    best = np.argsort(-joined, kind="stable")
    return Matches(
        image=np.concatenate(image)[best],
        scores=joined[best],
        hit=np.concatenate(hits, axis=1)[:, best],
        counts=np.concatenate(counts, axis=1)[:, best],
        objects=objects,
    )


def _assign(
    shared: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    thresholds: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """From (K, M) overlaps, best box first: (T, K) whether each took an object, and whether that one is ignored."""
    rows, columns = shared.shape
    hit = np.zeros((len(thresholds), rows), dtype=bool)
    void = np.zeros_like(hit)
    if not columns:
        return hit, void
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    free = np.ones((len(thresholds), columns), dtype=bool)
    every = np.arange(len(thresholds))
    first_ignored = int((~ignored).sum())
    for row in np.flatnonzero((shared >= least.min()).any(axis=1)):
        open_ = free & (shared[row] >= least)
        taken = np.full(len(thresholds), -1)
        for low, high in ((0, first_ignored), (first_ignored, columns)):
            part = np.where(open_[:, low:high], shared[row, low:high], -1.0)
            if not part.shape[1]:
                continue
            # Of equal overlaps the last one wins, as in COCO's evaluation.
            last = part.shape[1] - 1 - part[:, ::-1].argmax(axis=1)
            able = (taken < 0) & (part[every, last] >= 0)
            taken = np.where(able, low + last, taken)
        some = taken >= 0
        hit[some, row] = True
        void[some, row] = ignored[taken[some]]
        free[every[some], taken[some]] = crowd[taken[some]]
    return hit, void


def curves(
    matches: Matches, weights: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Precision at 101 recalls, and the recall reached.

    Args:
        matches: as from `match`.
        weights: (N,) int64, how often each image counts; once where unset.

    Returns:
        (T, 101) and (T,) float64; None where there is no object to be found.
    """
    objects = int(matches.objects.sum() if weights is None else matches.objects @ weights)
    if not objects:
        return None
    hit: NDArray[Any] = matches.hit & matches.counts
    miss: NDArray[Any] = ~matches.hit & matches.counts
    if weights is not None:
        own = weights[matches.image]
        hit, miss = hit * own, miss * own
    right, wrong = hit.cumsum(axis=1, dtype=np.float64), miss.cumsum(axis=1, dtype=np.float64)
    precision, recall = right / np.maximum(right + wrong, np.spacing(1)), right / objects
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    table = np.zeros((len(hit), len(RECALLS)))
    for row in range(len(hit)):
        places = np.searchsorted(recall[row], RECALLS, side="left")
        inside = places < recall.shape[1]
        table[row, inside] = precision[row, places[inside]]
    return table, recall[:, -1] if recall.shape[1] else np.zeros(len(hit))


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Mean over the classes that have objects: `ap` over all overlaps, `ap50` at 0.5, `recall` with 100 boxes."""

    ap: float
    ap50: float
    recall: float


def averages(
    classes: Sequence[Matches], weights: NDArray[np.int64] | None = None
) -> tuple[Averages, list[Averages | None]]:
    """The means over the classes, and each class's own; None for a class without objects.

    Where no class has objects, all are 0.
    """
    each: list[Averages | None] = []
    for matches in classes:
        read = curves(matches, weights)
        each.append(
            None
            if read is None
            else Averages(
                ap=float(read[0].mean()), ap50=float(read[0][0].mean()), recall=float(read[1].mean())
            )
        )
    present = [a for a in each if a is not None]
    if not present:
        return Averages(ap=0.0, ap50=0.0, recall=0.0), each
    mean = Averages(
        ap=float(np.mean([a.ap for a in present])),
        ap50=float(np.mean([a.ap50 for a in present])),
        recall=float(np.mean([a.recall for a in present])),
    )
    return mean, each


def draws_for(classes: Sequence[Matches], most: int = 1000) -> int:
    """How many bootstrap draws are affordable: `most`, fewer (100 at least) where there are very many boxes."""
    work = sum(matches.hit.size for matches in classes)
    return int(min(most, max(100, _WORK // max(work, 1))))


def resampled(
    models: Sequence[Sequence[Matches]], images: int, *, draws: int, seed: int = 0
) -> NDArray[np.float64]:
    """Averages over images drawn with replacement, the same images for each model (paired bootstrap, Efron 1979).

    Args:
        models: each model's matches, class by class, on the same images.
        images: N.
        draws: how many.
        seed: of the draws.

    Returns:
        (draws, models, 3) float64: mAP, mAP50, recall.
    """
    generator = np.random.default_rng(seed)
    values = np.empty((draws, len(models), 3))
    for draw in range(draws):
        weights = np.bincount(generator.integers(0, images, images), minlength=images)
        for place, classes in enumerate(models):
            mean, _ = averages(classes, weights)
            values[draw, place] = mean.ap, mean.ap50, mean.recall
    return values


def best_threshold(classes: Sequence[Matches]) -> tuple[float, float]:
    """The score above which boxes are best taken: (threshold, F1), F1 over all classes together at an overlap of 0.5.

    Raises:
        TensorError: there is no box, or no object.
    """
    objects = sum(int(matches.objects.sum()) for matches in classes)
    scores = np.concatenate([matches.scores for matches in classes])
    if not objects or not len(scores):
        raise TensorError("found: a threshold needs at least one box and one object.")
    order = np.argsort(-scores, kind="stable")
    hit = np.concatenate([(m.hit & m.counts)[0] for m in classes])[order].cumsum()
    taken = np.concatenate([m.counts[0] for m in classes])[order].cumsum()
    f1 = 2 * hit / (taken + objects)
    # A threshold cannot part equal scores.
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    best = ends[int(f1[ends].argmax())]
    above = float(scores[order][best])
    below = float(scores[order][best + 1]) if best + 1 < len(scores) else 0.0
    middle = (above + below) / 2
    return (middle if math.isfinite(middle) and middle < above else below), float(f1[best])


def best_answer(truths: Sequence[Truth], found: Sequence[Found], classes: int, *, otherwise: float) -> float:
    """The least score to answer boxes from, by `best_threshold`, to four digits and within 0.01 to 0.99.

    Args:
        truths: N images' objects.
        found: N images' boxes, in the same pixels.
        classes: C.
        otherwise: where no box hits an object, so that there is nothing to choose by.
    """
    matches = [match(truths, found, index) for index in range(classes)]
    if not any((one.hit[0] & one.counts[0]).any() for one in matches):
        return otherwise
    return min(max(round(best_threshold(matches)[0], 4), 0.01), 0.99)


def evaluate(
    truths: Sequence[Truth],
    found: Sequence[Found],
    labels: Sequence[str],
    *,
    threshold: float | None = None,
    resamples: int = 1000,
) -> Evaluation:
    """Score a detector, with 95% percentile bootstrap intervals over the images.

    Args:
        truths: N images' objects.
        found: N images' boxes, in the same pixels.
        labels: the C class names.
        threshold: the least score of the boxes whose mistakes are counted; the one with the best F1 where unset.
        resamples: of the bootstrap, fewer where there are very many boxes; 0 leaves its intervals out.

    Raises:
        TensorError: the numbers of images differ, or a class is out of range.
    """
    for truth in truths:
        if len(truth.labels) and not 0 <= truth.labels.min() <= truth.labels.max() < len(labels):
            raise TensorError(f"truths: a class is outside 0..{len(labels) - 1}.")
    classes = [match(truths, found, index) for index in range(len(labels))]
    mean, each = averages(classes)
    intervals: list[tuple[float, float] | tuple[None, None]] = [(None, None)] * 3
    if resamples and len(truths) > 1:
        draws = resampled([classes], len(truths), draws=draws_for(classes, resamples))[:, 0]
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    there = any(matches.objects.any() for matches in classes) and any(len(m.scores) for m in classes)
    best, f1 = best_threshold(classes) if there else (0.5, 0.0)
    asked = best if threshold is None else threshold
    detail = BoxDetail(
        classes=tuple(map(_class_precision, labels, classes, each)),
        sizes=tuple(_size_precision(name, truths, found, len(labels)) for name in SIZES),
        mistakes=mistakes(truths, found, asked),
        threshold=best,
        f1=f1,
        asked=asked,
        sides=_side_recalls(truths, found, asked),
        worst=_worst(truths, found, asked),
    )
    values = zip(("map", "map50", "recall"), (mean.ap, mean.ap50, mean.recall), intervals, strict=True)
    return Evaluation(
        images=len(truths),
        scores={name: Score(value=value, low=low, high=high) for name, value, (low, high) in values},
        detail=to_json(detail),
    )


def _class_precision(label: str, matches: Matches, average: Averages | None) -> ClassPrecision:
    read = curves(matches)
    return ClassPrecision(
        label=label,
        objects=int(matches.objects.sum()),
        ap=average.ap if average else None,
        ap50=average.ap50 if average else None,
        recall=average.recall if average else None,
        precision=tuple(float(value) for value in read[0][0].round(4)) if read else (),
    )


def _size_precision(
    name: str, truths: Sequence[Truth], found: Sequence[Found], classes: int
) -> SizePrecision:
    matches = [match(truths, found, index, size=SIZES[name]) for index in range(classes)]
    objects = sum(int(one.objects.sum()) for one in matches)
    mean, _ = averages(matches)
    return SizePrecision(
        size=name, objects=objects, ap=mean.ap if objects else None, recall=mean.recall if objects else None
    )


def judged(
    truth: Truth, boxes: Found, threshold: float
) -> tuple[NDArray[np.int64], list[str], NDArray[np.bool_]]:
    """Of boxes of at least `threshold`, from the best score down: which, what each is by the name of its `Mistakes`;
    and (objects that are no crowds,) which were hit."""
    real = np.flatnonzero(~truth.crowds())
    own, labels = truth.boxes[real], truth.labels[real]
    sure = np.flatnonzero(boxes.scores >= threshold)
    sure = sure[np.argsort(-boxes.scores[sure], kind="stable")]
    shared = overlaps(boxes.boxes[sure], own)
    taken, kinds = np.zeros(len(real), dtype=bool), []
    for row, index in enumerate(sure):
        mine = np.where(labels == boxes.labels[index], shared[row], 0.0)
        free = np.where(taken, 0.0, mine)
        if free.max(initial=0.0) >= _HIT:
            taken[int(free.argmax())] = True
            kinds.append("right")
        elif mine.max(initial=0.0) >= _HIT:
            kinds.append("duplicate")
        elif shared[row].max(initial=0.0) >= _HIT:
            kinds.append("label")
        elif mine.max(initial=0.0) >= _NEAR:
            kinds.append("place")
        elif shared[row].max(initial=0.0) >= _NEAR:
            kinds.append("both")
        else:
            kinds.append("background")
    return sure.astype(np.int64), kinds, taken


def mistakes(truths: Sequence[Truth], found: Sequence[Found], threshold: float) -> Mistakes:
    """Boxes of at least `threshold` by what is wrong with them, from the best score down, and objects missed."""
    counts: Counter[str] = Counter()
    for truth, boxes in zip(truths, found, strict=True):
        _, kinds, taken = judged(truth, boxes, threshold)
        counts.update(kinds)
        counts["missed"] += int((~taken).sum())
    return Mistakes(**counts)


def _side_recalls(
    truths: Sequence[Truth], found: Sequence[Found], threshold: float
) -> tuple[SideRecall, ...]:
    """How many objects of each octave of sides were hit; octaves without objects are left out."""
    objects, hit = np.zeros(len(_SIDES), np.int64), np.zeros(len(_SIDES), np.int64)
    for truth, boxes in zip(truths, found, strict=True):
        taken = judged(truth, boxes, threshold)[2]
        places = np.searchsorted(_SIDES, np.sqrt(truth.sizes()[~truth.crowds()]), side="right") - 1
        objects += np.bincount(places, minlength=len(_SIDES))
        hit += np.bincount(places[taken], minlength=len(_SIDES))
    return tuple(
        SideRecall(side=float(side), objects=int(count), found=int(own))
        for side, count, own in zip(_SIDES, objects, hit, strict=True)
        if count
    )


def _worst(truths: Sequence[Truth], found: Sequence[Found], threshold: float) -> tuple[WorstImage, ...]:
    """The images with most mistakes, with their boxes; none without a mistake."""
    each = [mistakes([truth], [boxes], threshold) for truth, boxes in zip(truths, found, strict=True)]
    order = sorted(range(len(each)), key=lambda place: -each[place].wrong)[:_WORST]
    return tuple(
        _worst_image(place, truths[place], found[place], each[place], threshold)
        for place in order
        if each[place].wrong
    )


def _worst_image(place: int, truth: Truth, boxes: Found, counts: Mistakes, threshold: float) -> WorstImage:
    sure, kinds, taken = judged(truth, boxes, threshold)
    real = np.flatnonzero(~truth.crowds())
    boxed = [
        JudgedBox(
            box=_rounded(boxes.boxes[index]),
            label=int(boxes.labels[index]),
            kind=kind,
            score=round(float(boxes.scores[index]), 3),
        )
        for index, kind in zip(sure, kinds, strict=True)
    ]
    boxed += [
        JudgedBox(
            box=_rounded(truth.boxes[index]),
            label=int(truth.labels[index]),
            kind="true" if hit else "missed",
        )
        for index, hit in zip(real, taken, strict=True)
    ]
    # What is right is left out first.
    boxed.sort(key=lambda one: one.kind in ("right", "true"))
    ends = np.concatenate([truth.boxes[:, 2:], np.asarray(boxes.boxes, np.float64)[:, 2:], np.ones((1, 2))])
    width, height = truth.frame.size if truth.frame else np.ceil(ends.max(axis=0))
    return WorstImage(
        image=place,
        file=truth.file,
        width=int(width),
        height=int(height),
        mistakes=counts,
        boxes=tuple(boxed[:_SHOWN]),
    )


def _rounded(box: NDArray[Any]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(float(value), 1) for value in box)
    return x1, y1, x2, y2
