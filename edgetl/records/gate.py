"""What a gate returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgetl.records.measured import Machine
from edgetl.records.scores import SetUse


class Verdict(StrEnum):
    """What a gate says. `unsure` is neither of the others: what was measured does not decide it."""

    PASS = "pass"
    FAIL = "fail"
    UNSURE = "unsure"

    @property
    def text(self) -> str:
        """How tables show it."""
        return {"pass": "passed", "fail": "FAILED", "unsure": "cannot tell"}[self.value]


_MEASURES = ("ms", "bytes", "bits")
"""Units of checks that are not of shares."""


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    """One comparison with the baseline.

    `change` is current less baseline for scores and shares (in 0..1) and current over baseline less 1 for the rest.
    `interval` is its 95% interval, for latency its 99% interval, for scores the 90% one or little wider, whose lower
    end is the bound that decides. `limit` is the largest change for the worse that passes. `judged` is False where the
    figure is shown but cannot fail.
    """

    name: str
    unit: str
    baseline: float
    current: float
    change: float
    interval: tuple[float, float] | None
    limit: float
    judged: bool
    verdict: Verdict
    sentence: str

    @property
    def passed(self) -> bool:
        """Whether it surely holds, or is not judged."""
        return self.verdict is Verdict.PASS

    @property
    def is_share(self) -> bool:
        """Whether its figures are shares in 0..1, so that changes of them are points."""
        return self.unit not in _MEASURES


@dataclass(frozen=True, kw_only=True)
class Flip:
    """An image that one of the two got right: its path in the image set, its class, what was and is predicted."""

    path: str
    label: str
    before: str
    after: str

    @property
    def lost(self) -> bool:
        """Whether it was right and is wrong now."""
        return self.before == self.label


@dataclass(frozen=True, kw_only=True)
class Flips:
    """`lost` images went from right to wrong, `won` from wrong to right; `images` are the first, lost before won."""

    lost: int
    won: int
    images: tuple[Flip, ...]


class BoxTurn(StrEnum):
    """What became of a box: an object found before or found now, or an answer on no object, there now or gone."""

    LOST = "lost"
    WON = "won"
    NEW = "new"
    GONE = "gone"


@dataclass(frozen=True, kw_only=True)
class TurnedBox:
    """A box (x1, y1, x2, y2) in its picture's pixels, its class, and what became of it."""

    box: tuple[float, float, float, float]
    label: str
    turn: BoxTurn


@dataclass(frozen=True, kw_only=True)
class TurnedImage:
    """An image whose boxes changed: its path in the image set, its width and height in pixels, these boxes."""

    path: str
    width: int
    height: int
    boxes: tuple[TurnedBox, ...]

    def count(self, turn: BoxTurn) -> int:
        """How many boxes of a kind."""
        return sum(box.turn is turn for box in self.boxes)


@dataclass(frozen=True, kw_only=True)
class BoxTurns:
    """How boxes changed over all images, by kind; `changed` counts the images, `images` are those changed most."""

    lost: int
    won: int
    new: int
    gone: int
    changed: int
    images: tuple[TurnedImage, ...]


@dataclass(frozen=True, kw_only=True)
class LatencyTrial:
    """Two models timed in turn, until it was decided whether the candidate is slower than `limit` allows.

    `change` is the candidate's median over the baseline's less 1, estimated from the rounds; `interval` covers the
    true one with a chance of `confidence` at all moments of the trial at once, None where it has no end yet.
    `p99_change` and its 95% bootstrap interval are shown, not judged; None where the clock cannot be trusted.
    `baseline_ms` and `current_ms` are all counted calls in order, the same number per round. `seconds` is the time of
    the rounds, before which each ran `warmup` calls; `seconds_needed` estimates what would have decided it, None
    where it was decided or no time would do. `notes` say what was odd: one sentence each. `images` is 1, or how many
    were taken in turn since a cascade's time depends on them: then means stand in place of medians.
    """

    verdict: Verdict
    limit: float
    change: float
    interval: tuple[float, float] | None
    confidence: float
    p99_change: float | None
    p99_interval: tuple[float, float] | None
    rounds: int
    seconds: float
    seconds_needed: float | None
    warmup: int
    baseline_ms: tuple[float, ...]
    current_ms: tuple[float, ...]
    notes: tuple[str, ...]
    images: int = 1


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """What the gate found, check by check.

    `target` is the engine that ran the variant. `trial` stands where two bundles were timed in turn, `flips` where
    there are predictions image by image, of boxes `boxes` in their place, `image_set` what was taken of the image set.
    """

    baseline: str
    current: str
    variant: str
    target: str
    checks: tuple[GateCheck, ...]
    machine: Machine
    trial: LatencyTrial | None = None
    flips: Flips | None = None
    boxes: BoxTurns | None = None
    image_set: SetUse | None = None

    @property
    def verdict(self) -> Verdict:
        """Fail where a judged check fails; else unsure where one is; else pass."""
        found = {check.verdict for check in self.checks if check.judged}
        return next((v for v in (Verdict.FAIL, Verdict.UNSURE) if v in found), Verdict.PASS)

    @property
    def passed(self) -> bool:
        """Whether every judged check passed."""
        return self.verdict is Verdict.PASS

    def sentences(self) -> tuple[str, ...]:
        """One sentence per check: the failed ones first, then the unsure ones."""
        order = (Verdict.FAIL, Verdict.UNSURE, Verdict.PASS)
        return tuple(c.sentence for c in sorted(self.checks, key=lambda c: order.index(c.verdict)))
