"""What a check for drift says."""

from __future__ import annotations

from edgetl.records.frozen import dataclass
from edgetl.records.gate import Verdict


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A number of images, or a class's share of answers, that is not the reference's any more.

    Attributes:
        name: of the number, as in `brightness`, or `classes`.
        label: the class, where it is one's share.
        before: of the reference the median, of a class its share in 0..1.
        now: the same of the last `images` images.
        images: how many of the last images it is of: those since the change, and no more than are kept.
        beyond: share of the reference's images that lie on the near side of `now`, in 0..1; of a class 0.
        since: number of the image, from 1 on, at which the change most likely began.
        sentence: all of it in words.
    """

    name: str
    label: str = ""
    before: float
    now: float
    images: int
    beyond: float
    since: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class DriftState:
    """What is known after some images.

    Attributes:
        images: looked at so far.
        drifted: whether there was an alarm; it stays until the check is begun anew.
        at: number of the image, from 1 on, that raised it; None where there was none.
        since: number of the image at which the change most likely began; None likewise.
        rate: chance, at most, that there is ever an alarm while images are like the reference's.
        evidence: how far on the way to an alarm it is, in 0..1: of the logarithm of what the capital must reach.
        moved: what is different, the clearest first; empty without an alarm.
        watched: the numbers that are watched.
        reference: images of the reference.
        enough: images after which a lasting change by `shift` standard deviations of one number is found on average.
        shift: the least of 1, 2 and 3 that can be distinguished from the reference's own error at all; with `enough`.
        unwatched: what the bundle's reference says nothing of, and why, one sentence each.
    """

    images: int
    drifted: bool
    at: int | None
    since: int | None
    rate: float
    evidence: float
    moved: tuple[Moved, ...]
    watched: tuple[str, ...]
    reference: int
    enough: int
    shift: float
    unwatched: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Failed where there was an alarm; unsure where there were too few images to find a change by `shift`."""
        if self.drifted:
            return Verdict.FAIL
        return Verdict.PASS if self.images >= self.enough else Verdict.UNSURE

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        shift = f"{self.shift:g} standard deviation{'' if self.shift == 1 else 's'}"
        counted = f"{self.images} image{'' if self.images == 1 else 's'}"
        if self.drifted:
            what = "; ".join(one.sentence for one in self.moved)
            return f"Drift, seen at image {self.at} of {self.images}, most likely since image {self.since}: {what}."
        if self.verdict is Verdict.PASS:
            return (
                f"No drift in {counted}: a change of one number by {shift} takes about"
                f" {self.enough} to be found."
            )
        return (
            f"Cannot tell from {counted}: a change of one number by {shift} takes about"
            f" {self.enough} to be found."
        )
