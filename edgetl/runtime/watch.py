"""What a session does beside answering, where it was asked to: watch for drift, and keep images worth labelling."""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import BundleError, ConfigError
from edgetl.inputs.looks import Sample, measured, sampled, thumbnail
from edgetl.records.captured import DRIFTED, UNKNOWN, UNSURE
from edgetl.runtime.betting import AT_ONCE
from edgetl.tasks.classification.answers import Prediction as ClassPrediction
from edgetl.tasks.confidence import has_sets, with_sets
from edgetl.tasks.detection.answers import Detections
from edgetl.tasks.multihead.answers import HeadsPrediction
from edgetl.tasks.multilabel.answers import TagsPrediction
from edgetl.tasks.summary import sureness

if TYPE_CHECKING:
    from edgetl.records.drift import DriftState
    from edgetl.runtime.capture import Capture, Capturer
    from edgetl.runtime.drift import Drift, Monitor
    from edgetl.runtime.session import Session
    from edgetl.runtime.stream import Seen, Shown
    from edgetl.tasks.all import Prediction


class Look(NamedTuple):
    """What is kept of an image until it is answered: of its pixels, what its looks are measured by, and all (S, S, 3);
    and what stands for it."""

    sample: Sample | None
    pixels: NDArray[np.uint8] | None
    shown: Shown


class Watch:
    """Takes each answer of a session, in the order in which they are given; from many threads.

    Drift is looked for in some images at once, which costs each of them a fraction: an alarm is given within `AT_ONCE`
    images, with the number of the one that called for it. After it each image is looked at by itself where images are
    kept, since those that show the change are.
    """

    def __init__(self, monitor: Monitor | None, capturer: Capturer | None) -> None:
        self.monitor, self.capturer = monitor, capturer
        self._sets: bool | None = None
        self._images = count()
        self._lock = threading.Lock()
        self._waiting: list[tuple[Sample, Prediction]] = []

    def look(self, shown: Shown, pixels: NDArray[np.uint8]) -> Look:
        """Look at the pixels (S, S, 3) uint8 of what is shown; called beside the model, where images are decoded."""
        return Look(
            sampled(pixels) if self.monitor is not None and self._is_next(self.monitor) else None,
            None if self.capturer is None else pixels,
            shown,
        )

    def _is_next(self, monitor: Monitor) -> bool:
        return next(self._images) % monitor.settings.every == 0

    def take(self, session: Session, seen: Seen, answer: Prediction) -> None:
        """Take an image's answer."""
        look = seen.look
        if look is None:
            return
        shows = look.sample is not None and self._shows(look.sample, answer)
        if self.capturer is None or look.pixels is None:
            return
        reasons = [UNKNOWN] if _unknown(answer) else []
        reasons += [UNSURE] if self._unsure(session, seen, answer) else []
        reasons += [DRIFTED] if shows else []
        pixels = look.pixels
        if reasons and self.capturer.wants(lambda: thumbnail(pixels), "thumbnail"):
            from edgetl.runtime.capture import Worth

            self.capturer.offer(
                look.shown,
                Worth(
                    reasons=tuple(reasons),
                    answer=answer.text,
                    label=_best(answer),
                    score=sureness(answer),
                    kind="thumbnail",
                    vector=thumbnail(pixels),
                ),
            )

    def _shows(self, sample: Sample, answer: Prediction) -> bool:
        """Take an image's answer, for the monitor; whether there was an alarm that the image is known to show."""
        assert self.monitor is not None
        with self._lock:
            self._waiting.append((sample, answer))
            alone = self.capturer is not None and self.monitor.drifted
            return self._measure() if alone or len(self._waiting) == AT_ONCE else False

    def _measure(self) -> bool:
        """Give the monitor the images that wait; whether the last one shows a change."""
        if not self._waiting:
            return False
        assert self.monitor is not None
        samples, answers = zip(*self._waiting, strict=True)
        self._waiting = []
        return self.monitor.add_all(measured(samples), answers)[-1]

    @property
    def drift(self) -> DriftState | None:
        """What is known of all images so far; None where none is looked for."""
        if self.monitor is None:
            return None
        with self._lock:
            self._measure()
        return self.monitor.state()

    def close(self) -> None:
        """Write what waits."""
        if self.capturer is not None:
            self.capturer.close()

    def _unsure(self, session: Session, seen: Seen, answer: Prediction) -> bool:
        assert self.capturer is not None
        settings = self.capturer.settings
        if isinstance(answer, Detections):
            return bool(answer.items) and sureness(answer) < settings.below
        if sureness(answer) < settings.below:
            return True
        if self._sets is None:
            self._sets = has_sets(session.task.spec)
        if not self._sets:
            return False
        try:
            needed = session.least_conformities(settings.coverage)
        except (BundleError, ConfigError):  # an older bundle, or too few validation images
            self._sets = False
            return False
        return _further(with_sets(session.task, seen.outputs, answer, needed)) > 0


def watch_for(session: Session, drift: bool | Drift, capture: Capture | None) -> Watch | None:
    """What `load` was asked for; None where nothing.

    Raises:
        BundleError: the bundle has no reference for drift, or one that is too small.
        ConfigError: nothing is left to watch.
    """
    monitor: Monitor | None = None
    capturer: Capturer | None = None
    if drift:
        from edgetl.bundle.drift import reference
        from edgetl.runtime.drift import Drift, Monitor

        settings = drift if isinstance(drift, Drift) else Drift()
        monitor = Monitor(reference(session.bundle, session.variant), session.task.spec, settings)
    if capture is not None:
        from edgetl.runtime.capture import Capturer

        capturer = Capturer(
            capture, session.manifest.preprocess, bundle=session.manifest.name, variant=session.variant.name
        )
    return None if monitor is None and capturer is None else Watch(monitor, capturer)


def _unknown(answer: Prediction) -> bool:
    """Whether an image is like none of the bundle's, where that was asked for."""
    return not isinstance(answer, Detections) and bool(answer.unknown)


def _further(answer: Any) -> int:
    """How many labels a set has beside those that are answered; of several heads the most."""
    match answer:
        case ClassPrediction():
            return len(answer.possible or ()) - 1
        case TagsPrediction():
            return len(answer.possible or ()) - len(answer.tags)
        case HeadsPrediction():
            return max(map(_further, answer.heads.values()))
        case _:
            return 0


def _best(answer: Prediction) -> str:
    """The best class, for whoever labels the image; of several heads each one's."""
    match answer:
        case ClassPrediction():
            return answer.top[0].label
        case TagsPrediction():
            return "|".join(tag.label for tag in answer.tags)
        case HeadsPrediction():
            return "; ".join(f"{name}={_best(found)}" for name, found in answer.heads.items())
        case Detections():
            return "|".join(sorted({item.label for item in answer.items}))
        case _:
            assert_never(answer)
