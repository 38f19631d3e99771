"""What became of boxes between two detectors on the same images: objects lost and won, wrong boxes new and gone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgetl.records.gate import BoxTurn, BoxTurns, TurnedBox, TurnedImage
from edgetl.tasks.detection.boxes import overlaps
from edgetl.tasks.detection.found import Found, Truth, in_pictures
from edgetl.tasks.detection.scores import judged

_SAME = 0.5
"""Overlap from which two wrong boxes of a class are one."""
_IMAGES, _BOXES = 60, 80
"""Images that are kept, and boxes of each."""


def turns(
    paths: Sequence[str],
    truths: Sequence[Truth],
    before: Sequence[Found],
    after: Sequence[Found],
    labels: Sequence[str],
    thresholds: tuple[float, float],
) -> BoxTurns:
    """Compare what two detectors answered.

    Args:
        paths: N images' names.
        truths: their objects.
        before: N images' boxes of the one.
        after: N images' boxes of the other.
        labels: the class names.
        thresholds: the least scores that each answers.
    """
    images = []
    for path, truth, was, now in zip(
        paths, truths, in_pictures(truths, before), in_pictures(truths, after), strict=True
    ):
        boxes = _turned(truth, was, now, labels, thresholds)
        if boxes:
            ends = np.concatenate([truth.boxes[:, 2:], np.ones((1, 2))]).max(axis=0)
            width, height = truth.frame.size if truth.frame else ends
            images.append(TurnedImage(path=path, width=int(width), height=int(height), boxes=tuple(boxes)))
    count = {turn: sum(image.count(turn) for image in images) for turn in BoxTurn}
    # What is worse now comes first.
    images.sort(key=lambda i: (-i.count(BoxTurn.LOST) - i.count(BoxTurn.NEW), -len(i.boxes)))
    return BoxTurns(
        lost=count[BoxTurn.LOST],
        won=count[BoxTurn.WON],
        new=count[BoxTurn.NEW],
        gone=count[BoxTurn.GONE],
        changed=len(images),
        images=tuple(
            TurnedImage(path=i.path, width=i.width, height=i.height, boxes=i.boxes[:_BOXES])
            for i in images[:_IMAGES]
        ),
    )


def _turned(
    truth: Truth, before: Found, after: Found, labels: Sequence[str], thresholds: tuple[float, float]
) -> list[TurnedBox]:
    was, now = (judged(truth, found, least) for found, least in zip((before, after), thresholds, strict=True))
    real = np.flatnonzero(~truth.crowds())
    found = []
    for turn, objects in ((BoxTurn.LOST, was[2] & ~now[2]), (BoxTurn.WON, now[2] & ~was[2])):
        found += [
            _box(truth.boxes[at], labels[truth.labels[at]], turn) for at in real[np.flatnonzero(objects)]
        ]
    wrong = [
        _wrong(boxes, sure, kinds)
        for boxes, (sure, kinds, _) in zip((before, after), (was, now), strict=True)
    ]
    found += [
        _box(box, labels[label], BoxTurn.NEW)
        for box, label in zip(*_only_in(wrong[1], wrong[0]), strict=True)
    ]
    found += [
        _box(box, labels[label], BoxTurn.GONE)
        for box, label in zip(*_only_in(wrong[0], wrong[1]), strict=True)
    ]
    return found


Wrong = tuple[NDArray[np.float64], NDArray[np.int64]]


def _wrong(boxes: Found, sure: NDArray[np.int64], kinds: Sequence[str]) -> Wrong:
    places = sure[[at for at, kind in enumerate(kinds) if kind != "right"]]
    return np.asarray(boxes.boxes[places], np.float64), boxes.labels[places]


def _only_in(these: Wrong, others: Wrong) -> Wrong:
    """Boxes that have no like among the others."""
    near = overlaps(these[0], others[0]) >= _SAME
    near &= these[1][:, None] == others[1][None]
    lone = ~near.any(axis=1)
    return these[0][lone], these[1][lone]


def _box(box: NDArray[np.float64], label: str, turn: BoxTurn) -> TurnedBox:
    x1, y1, x2, y2 = (round(float(value), 1) for value in box)
    return TurnedBox(box=(x1, y1, x2, y2), label=label, turn=turn)
