"""Whether the images that come are still like those that a bundle was made with, image by image.

What is watched: the looks of the preprocessed pixels (`edgetl.inputs.looks`), how sure the answers are, and how often
each class is answered, against the validation images' (`edgetl.bundle.drift`); the test is `edgetl.runtime.betting`. It
gives a false alarm, ever, with a chance of at most the stated rate, for images that are drawn independently as the
validation images were. Pictures of one scene, one after the other, are no such draw, nor is a folder class by class:
the command line shuffles folders, and of a camera that sees one part for seconds every so many frames are enough.

Memory is bounded: a few numbers a bet, and the last images' numbers, so that an alarm can say what moved. Bets are paid
for some images at once, which changes no number, and costs a fraction of paying for each.
"""

from __future__ import annotations

import math
import random
import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.drift import DriftReference
from edgetl.errors import BundleError, ConfigError
from edgetl.inputs.looks import LOOKS
from edgetl.records.drift import DriftState, Moved
from edgetl.records.frozen import dataclass
from edgetl.runtime.betting import (
    ODDS,
    POWERS,
    Capital,
    class_payoffs,
    images_needed,
    logarithms,
    payoffs,
)
from edgetl.tasks.base import TaskSpec, labels_of
from edgetl.tasks.summary import named, sureness

if TYPE_CHECKING:
    from edgetl.tasks.all import Prediction

SURENESS, CLASSES = "confidence", "classes"
WATCHED = (*LOOKS, SURENESS, CLASSES)
"""All that can be watched."""
_WORDS = {
    "brightness": ("brighter", "darker"),
    "highlights": ("brighter highlights", "darker highlights"),
    "contrast": ("more contrast", "less contrast"),
    "sharpness": ("sharper or noisier", "less sharp"),
    "saturation": ("stronger colours", "paler colours"),
    "warmth": ("redder", "bluer"),
    "tint": ("greener", "more magenta"),
    SURENESS: ("surer answers", "less sure answers"),
}
"""In words, that a number rose, and that it fell."""
_SHIFTS = (1.0, 2.0, 3.0)
_OUTER = 0.9
_LONGEST = 1000
"""A change that takes more images on average than this to be found counts as one that cannot be detected."""
_CLASSES_TOLD = 5
_NO_ANSWERS = "the bundle does not know what this variant answered to its validation images"


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How drift is watched for.

    Attributes:
        rate: chance, at most, of ever giving an alarm while images are like the validation images; above 0, below 1.
        window: so many of the last images are kept, to say what moved; at least 1.
        every: watch every so many images of a session, at least 1: a fast stream has enough of them, and each costs
            some 60 microseconds. Only those watched count in `DriftState`.
        ignore: what is not watched, of `WATCHED`; as `classes` on a line that makes other parts than the set shows.

    Raises:
        ConfigError: one of them is out of range.
    """

    rate: float = 0.01
    window: int = 50
    every: int = 1
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ConfigError(
                f"drift: the rate is {self.rate:g}, expected a chance above 0 and below 1, as 0.01."
            )
        if self.window < 1:
            raise ConfigError(f"drift: the window is {self.window}, expected at least 1 image.")
        if self.every < 1:
            raise ConfigError(f"drift: every is {self.every}, expected at least 1.")
        if unknown := sorted(set(self.ignore) - set(WATCHED)):
            raise ConfigError(f"drift: ignore has {unknown[0]!r}, expected some of {', '.join(WATCHED)}.")
        if set(self.ignore) == set(WATCHED):
            raise ConfigError(
                "drift: all is ignored, so that there is nothing to watch; leave something out of ignore."
            )


@dataclass(frozen=True, kw_only=True)
class _Change:
    """Which number (or class, by its place), whether it rose, since which image, and how clearly: a logarithm."""

    name: str
    place: int
    rose: bool
    since: int
    clear: float


class Monitor:
    """Watches for drift. `add` and `state` may be called from many threads; images count in the order of the calls."""

    def __init__(self, reference: DriftReference, task: TaskSpec, settings: Drift | None = None) -> None:
        """Raises BundleError where the reference is too small, ConfigError where nothing is left to watch."""
        self.settings = settings or Drift()
        self._task, self._labels, self._lock = task, labels_of(task), threading.Lock()
        self._images, answers = len(reference.looks), reference.answers
        columns = dict(zip(LOOKS, reference.looks.T, strict=True))
        if answers is not None:
            columns[SURENESS] = answers.sureness
        ignored = self.settings.ignore
        self._ranked = {
            name: sorted(map(float, values)) for name, values in columns.items() if name not in ignored
        }
        self._named = None if answers is None or CLASSES in ignored else answers.named
        self._families = len(self._ranked) + (self._named is not None)
        if not self._families:
            raise ConfigError(f"drift: {_NO_ANSWERS} and all else is ignored; leave something out of ignore.")
        self._unwatched = () if answers is not None else (f"Confidence and classes: {_NO_ANSWERS}.",)
        # One half of the rate is for the bets' luck, the other for the reference's own error, shared by all bets.
        self._threshold = math.log(2.0 / self.settings.rate)
        level = self.settings.rate / 2 / self._families
        self._paid = np.exp(payoffs(self._images, level / (2 * len(POWERS)))).T.copy()
        self._class_paid: NDArray[np.float64] | None = None
        if self._named is not None:
            bets = 2 * len(ODDS) * len(self._named)
            self._class_paid = np.exp(class_payoffs(self._named, self._images, level / bets))
        self._shift, self._enough = self._needed(level / (2 * len(POWERS)))
        self.reset()

    def reset(self) -> None:
        """Begin anew, as after an alarm was looked into. The stated rate holds from here on."""
        with self._lock:
            self._seen = 0
            self._at: int | None = None
            self._random = random.Random(0)
            self._capital = Capital((len(self._ranked), self._paid.shape[1]))
            self._class_capital = None if self._class_paid is None else Capital(self._class_paid.shape[1:])
            self._last = deque[tuple[tuple[float, ...], tuple[int, ...]]](maxlen=self.settings.window)
            self._moved: list[_Change] = []

    @property
    def drifted(self) -> bool:
        """Whether there was an alarm."""
        return self._at is not None

    def add(self, looks: Sequence[float] | NDArray[np.float32], prediction: Prediction) -> bool:
        """Take an image: its looks (7,), and what was answered; returns as `add_all`."""
        return self.add_all(np.asarray(looks)[None], [prediction])[0]

    def add_all(self, looks: NDArray[Any], predictions: Sequence[Prediction]) -> list[bool]:
        """Take images, at most `AT_ONCE`: their looks (N, 7), and what was answered; costs little more than one.

        Returns:
            Of each whether there was an alarm, up to now, and the image shows it: what moved lies in the outer tenth of
            the reference on that side, or it is answered by a class that comes more often.
        """
        numbers, cells, classes = list[tuple[float, ...]](), list[list[int]](), list[tuple[int, ...]]()
        with self._lock:
            for row, prediction in zip(looks.tolist(), predictions, strict=True):
                values = dict(zip(LOOKS, row, strict=True))
                values[SURENESS] = sureness(prediction)
                numbers.append(tuple(values[name] for name in self._ranked))
                cells.append([*map(self._cell, self._ranked.values(), numbers[-1])])
                classes.append(named(prediction, self._task))
            self._last.extend(zip(numbers, classes, strict=True))
            self._pay(cells, classes)
            if self._at is None:
                return [False] * len(cells)
            self._moved = self._changes()
            return [*map(self._shows, cells, classes)]

    def _pay(self, cells: list[list[int]], classes: list[tuple[int, ...]]) -> None:
        """Pay the bets for some images, and give the alarm at the first of them that calls for it."""
        first = self._seen + 1
        self._seen += len(cells)
        numbers = self._capital.pay(self._paid[np.array(cells, dtype=np.int64)], first)
        of_classes = None
        if self._class_capital is not None and self._class_paid is not None:
            without, with_it = self._class_paid
            gains = np.repeat(without[None], len(classes), axis=0)
            for row, places in zip(gains, classes, strict=True):
                for place in places:
                    row[:, place] = with_it[:, place]
            of_classes = self._class_capital.pay(gains, first)
        if self._at is not None:
            return
        least = math.exp(self._threshold)
        richest = max(numbers.max(initial=0.0), 0.0 if of_classes is None else of_classes.max())
        for at in range(
            len(cells) if richest >= least else 0
        ):  # The whole capital is never above the largest.
            now = None if of_classes is None else of_classes[at]
            if self._evidence(numbers[at], now) >= self._threshold:
                self._at = first + at
                return

    def state(self) -> DriftState:
        """What is known now."""
        with self._lock:
            drifted = self._at is not None
            moved = tuple(map(self._told, self._moved))
            evidence = 1.0 if drifted else min(1.0, max(0.0, self._evidence_now() / self._threshold))
            return DriftState(
                images=self._seen,
                drifted=drifted,
                at=self._at,
                since=min((one.since for one in moved), default=None),
                rate=self.settings.rate,
                evidence=round(evidence, 4),
                moved=moved,
                watched=(*self._ranked, *((CLASSES,) if self._named is not None else ())),
                reference=self._images,
                enough=self._enough,
                shift=self._shift,
                unwatched=self._unwatched,
            )

    def _cell(self, ranked: list[float], value: float) -> int:
        """Between which of the reference's values it lies; among equal ones anywhere. What is no number is lowest."""
        if math.isnan(value):
            return 0
        low, high = bisect_left(ranked, value), bisect_right(ranked, value)
        return low if low == high else self._random.randint(low, high)

    def _evidence_now(self) -> float:
        """The logarithm of the whole capital now."""
        classes = self._class_capital
        return self._evidence(self._capital.values, None if classes is None else classes.values)

    def _evidence(self, numbers: NDArray[np.float64], classes: NDArray[np.float64] | None) -> float:
        """The logarithm of the whole capital, of that of the bets on numbers and on classes."""
        parts = [*_means(numbers)]
        if classes is not None:
            parts += [*_means(classes.reshape(1, -1))]
        return float(np.logaddexp.reduce(parts)) - math.log(self._families)

    def _changes(self) -> list[_Change]:
        """What would have given the alarm by itself, the clearest first; else what did most for it."""
        found = []
        for place, (name, clear) in enumerate(
            zip(self._ranked, _means(self._capital.values).tolist(), strict=True)
        ):
            best = int(self._capital.values[place].argmax())
            since = int(self._capital.since[place, best])
            found.append(_Change(name=name, place=place, rose=best % 2 == 0, since=since, clear=clear))
        if self._class_capital is not None:
            logs = self._class_capital.logs
            clear = np.logaddexp.reduce(logs, axis=0) - math.log(logs.size)
            for place in np.argsort(-clear, kind="stable")[:_CLASSES_TOLD].tolist():
                best = int(logs[:, place].argmax())
                since = int(self._class_capital.since[best, place])
                found.append(
                    _Change(
                        name=CLASSES, place=place, rose=best % 2 == 0, since=since, clear=float(clear[place])
                    )
                )
        found.sort(key=lambda one: -one.clear)
        return [one for one in found if one.clear >= self._threshold + math.log(self._families)] or found[:1]

    def _shows(self, cells: list[int], classes: tuple[int, ...]) -> bool:
        for change in self._moved:
            if change.name == CLASSES:
                if change.rose and change.place in classes:
                    return True
                continue
            rank = cells[change.place] / self._images
            if (rank if change.rose else 1 - rank) >= _OUTER:
                return True
        return False

    def _told(self, change: _Change) -> Moved:
        recent = list(self._last)[-(self._seen - change.since + 1) :]
        over = f"the last {len(recent)} images" if len(recent) > 1 else "the last image"
        if change.name == CLASSES:
            assert self._named is not None
            label = self._labels[change.place]
            before = float(self._named[change.place]) / self._images
            now = sum(change.place in classes for _, classes in recent) / len(recent)
            beyond = 0.0
            often = "more" if change.rose else "less"
            sentence = (
                f"{label} is answered {often} often: in {now:.0%} of {over}, in {before:.0%} of the reference"
            )
        else:
            label, ranked = "", self._ranked[change.name]
            before, now = median(ranked), median(numbers[change.place] for numbers, _ in recent)
            rank = bisect_left(ranked, now) if change.rose else len(ranked) - bisect_right(ranked, now)
            beyond = rank / len(ranked)
            side = "above" if change.rose else "below"
            sentence = (
                f"{_WORDS[change.name][not change.rose]}: median {change.name} {now:.3g} in {over}, {side} {beyond:.0%}"
                f" of the reference, whose median is {before:.3g}"
            )
        return Moved(
            name=change.name,
            label=label,
            before=before,
            now=now,
            images=len(recent),
            beyond=round(beyond, 4),
            since=change.since,
            sentence=sentence,
        )

    def _needed(self, level: float) -> tuple[float, int]:
        """The least shift in standard deviations that can be found at all, and the images that this takes."""
        for shift in _SHIFTS:
            threshold = self._threshold + math.log(self._families)
            needed = images_needed(self._images, level, threshold, shift)
            if needed <= _LONGEST:
                return shift, math.ceil(needed)
        raise BundleError(
            f"drift: the bundle's reference has {self._images} validation images, too few to tell a change from"
            " chance; make it again with more of them."
        )


def _means(capital: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of each row's mean."""
    return np.asarray(np.logaddexp.reduce(logarithms(capital), axis=1) - math.log(capital.shape[1]))
